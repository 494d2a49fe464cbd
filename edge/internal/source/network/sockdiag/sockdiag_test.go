package sockdiag

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

// open returns a Conn, or skips where this kernel or sandbox refuses netlink.
func open(t *testing.T) *Conn {
	t.Helper()
	c, err := Open()
	if err == nil {
		if err = c.Dump(Live, make([]byte, BufferSize), func(*Socket) {}); err == nil {
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		c.Close()
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENOENT) {
		t.Skipf("this kernel or sandbox has no sock_diag (%v); run on Linux with CONFIG_INET_DIAG", err)
	}
	t.Fatal(err)
	return nil
}

func dump(t *testing.T, c *Conn, states States) []Socket {
	t.Helper()
	var sockets []Socket
	if err := c.Dump(states, make([]byte, BufferSize), func(s *Socket) { sockets = append(sockets, *s) }); err != nil {
		t.Fatal(err)
	}
	return sockets
}

// pair is an established connection over loopback, closed with the test.
func pair(t *testing.T, network, address string) (dialled, accepted net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled, accepted
}

func exchange(t *testing.T, from, to net.Conn, n int) {
	t.Helper()
	if _, err := from.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

func addr(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	case *net.UDPAddr:
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	panic("neither TCP nor UDP")
}

// find finds the socket between two addresses; remote is nil when it has no peer.
func find(sockets []Socket, local, remote net.Addr, protocol uint8) (Socket, bool) {
	i := slices.IndexFunc(sockets, func(s Socket) bool {
		return s.Local == addr(local) && s.Protocol == protocol &&
			(remote == nil && s.Remote.Port() == 0 || remote != nil && s.Remote == addr(remote))
	})
	if i < 0 {
		return Socket{}, false
	}
	return sockets[i], true
}

func TestDump(t *testing.T) {
	c := open(t)
	for _, network := range []struct{ name, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"tcp", ":0"}} {
		t.Run(network.name, func(t *testing.T) {
			dialled, _ := pair(t, network.name, network.address)
			sockets := dump(t, c, Live)
			s, ok := find(sockets, dialled.LocalAddr(), dialled.RemoteAddr(), unix.IPPROTO_TCP)
			if !ok {
				t.Fatalf("no socket at %v among %d", dialled.LocalAddr(), len(sockets))
			}
			if s.State != 1 || s.Remote != addr(dialled.RemoteAddr()) || s.Inode == 0 || s.UID != uint32(os.Getuid()) || s.Cookie == 0 {
				t.Errorf("got %+v, want it established to %v with inode, cookie and uid %d", s, dialled.RemoteAddr(), os.Getuid())
			}
		})
	}
	t.Run("udp", func(t *testing.T) {
		u, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		sockets := dump(t, c, Live)
		if s, ok := find(sockets, u.LocalAddr(), nil, unix.IPPROTO_UDP); !ok || s.Inode == 0 {
			t.Errorf("got %+v, %v; want the socket with its inode", s, ok)
		}
	})
	t.Run("listener", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		sockets := dump(t, c, Live)
		if s, ok := find(sockets, l.Addr(), nil, unix.IPPROTO_TCP); !ok || s.State != 10 || s.Remote.Port() != 0 {
			t.Errorf("got %+v, %v; want it in state LISTEN", s, ok)
		}
	})
}

// end waits until the kernel tells the end of a socket that suits.
func end(t *testing.T, c *Closes, what string, suits func(Socket) bool) Socket {
	t.Helper()
	stop := time.AfterFunc(30*time.Second, func() { c.Close() })
	defer stop.Stop()
	for {
		if err := c.Wait(); err != nil {
			t.Fatalf("no end of %s: %v", what, err)
		}
		sockets, err := c.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(sockets, suits); i >= 0 {
			return sockets[i]
		}
	}
}

func listenCloses(t *testing.T) *Closes {
	t.Helper()
	open(t)
	c, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func with(cookie uint64) func(Socket) bool { return func(s Socket) bool { return s.Cookie == cookie } }

func TestClosesTellHow(t *testing.T) {
	closes, c := listenCloses(t), open(t)
	t.Run("closed", func(t *testing.T) {
		dialled, accepted := pair(t, "tcp4", "127.0.0.1:0")
		exchange(t, dialled, accepted, 7)
		exchange(t, accepted, dialled, 5)
		near, _ := find(dump(t, c, Live), dialled.LocalAddr(), dialled.RemoteAddr(), unix.IPPROTO_TCP)
		dialled.Close()
		got := end(t, closes, "the connection", with(near.Cookie))
		if got.Protocol != unix.IPPROTO_TCP || got.Remote != addr(dialled.RemoteAddr()) || got.BytesSent != 7 || got.BytesReceived != 5 || !got.Answered {
			t.Errorf("got %+v, want 7 bytes out and 5 in", got)
		}
		// What is left of it, in FIN_WAIT2, says so and is left out of what lives.
		if rest, ok := find(dump(t, c, All), dialled.LocalAddr(), dialled.RemoteAddr(), unix.IPPROTO_TCP); !ok || rest.State != timeWait || rest.Cookie != near.Cookie {
			t.Errorf("got %+v, %v; want TIME_WAIT with cookie %d", rest, ok, near.Cookie)
		}
		if rest, ok := find(dump(t, c, Live), dialled.LocalAddr(), dialled.RemoteAddr(), unix.IPPROTO_TCP); ok {
			t.Errorf("got %+v among what lives", rest)
		}
	})
	t.Run("reset by ourselves", func(t *testing.T) {
		dialled, accepted := pair(t, "tcp4", "127.0.0.1:0")
		exchange(t, dialled, accepted, 7)
		near, _ := find(dump(t, c, Live), dialled.LocalAddr(), dialled.RemoteAddr(), unix.IPPROTO_TCP)
		far, _ := find(dump(t, c, Live), accepted.LocalAddr(), accepted.RemoteAddr(), unix.IPPROTO_TCP)
		if err := dialled.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		dialled.Close()
		if got := end(t, closes, "the reset end", with(near.Cookie)); got.Remote.Port() != 0 || got.BytesSent != 0 {
			t.Errorf("got %+v, want neither remote nor bytes", got)
		}
		accepted.Close()
		if got := end(t, closes, "the other end", with(far.Cookie)); got.Remote != addr(dialled.LocalAddr()) || got.BytesReceived != 7 {
			t.Errorf("got %+v, want 7 bytes from %v", got, dialled.LocalAddr())
		}
	})
	t.Run("refused", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := net.Dial("tcp4", l.Addr().String()); err == nil {
			t.Fatal("nobody listens and yet it connects")
		}
		got := end(t, closes, "the attempt", func(s Socket) bool { return s.Remote == addr(l.Addr()) })
		if got.Answered || got.BytesSent != 0 {
			t.Errorf("got %+v, want that nobody answered", got)
		}
	})
	t.Run("udp", func(t *testing.T) {
		u, err := net.Dial("udp4", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		u.Close()
		got := end(t, closes, "the UDP socket", func(s Socket) bool { return s.Local == addr(u.LocalAddr()) })
		if got.Protocol != unix.IPPROTO_UDP || got.Remote != addr(u.RemoteAddr()) {
			t.Errorf("got %+v, want UDP to %v", got, u.RemoteAddr())
		}
	})
}

// Every one of 200 connections that live as short as they can is told, with addresses and bytes, at both ends.
func TestClosesTellEveryShortConnection(t *testing.T) {
	closes := listenCloses(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	missing := map[netip.AddrPort]bool{}
	for range 200 {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, c, 10)
		missing[addr(c.LocalAddr())] = true
		c.Close()
	}
	end(t, closes, "the last connection", func(s Socket) bool {
		if missing[s.Local] {
			delete(missing, s.Local)
			// The peer's FIN counts as a byte when it came in time.
			if s.Remote != addr(l.Addr()) || s.BytesSent != 10 || s.BytesReceived < 10 || s.BytesReceived > 11 || s.Cookie == 0 {
				t.Errorf("got %+v, want one to %v with 10 bytes both ways", s, l.Addr())
			}
		}
		return len(missing) == 0
	})
}

// Nobody reads until the buffer is full; then it is said once and notices go on.
func TestMissed(t *testing.T) {
	closes := listenCloses(t)
	buffer := func(size int) {
		err := closes.raw.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	buffer(1) // the kernel's least
	udp := func() net.Conn {
		u, err := net.Dial("udp4", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		u.Close()
		return u
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		for range 100 {
			udp()
		}
		_, err := closes.Next(nil)
		if errors.Is(err, ErrMissed) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("got %v, want %v", err, ErrMissed)
		}
	}
	buffer(receiveBuffer)
	for {
		sockets, err := closes.Next(nil)
		if len(sockets) == 0 && err == nil {
			break
		}
	}
	u := udp()
	end(t, closes, "a socket after the loss", func(s Socket) bool { return s.Local == addr(u.LocalAddr()) })
}

func TestCloseEndsWait(t *testing.T) {
	closes := listenCloses(t)
	ended := make(chan error)
	go func() {
		for {
			if err := closes.Wait(); err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 100 {
		if _, err := closes.Next(nil); err != nil { // it does not wait for who waits
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	closes.Close()
	if err := <-ended; err == nil {
		t.Error("got no error after Close")
	}
	if _, err := closes.Next(nil); err == nil {
		t.Error("Next: got no error after Close")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(make([]byte, messageSize))
	f.Add(append(make([]byte, messageSize), 4, 0, 2, 0, 12, 0, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 0))
	f.Add(append(append(make([]byte, messageSize), 236, 0, 2, 0), make([]byte, 232)...))
	f.Add([]byte{2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, body := range messages(b) {
			total += unix.SizeofNlMsghdr + len(body)
		}
		if total > len(b) {
			t.Errorf("got messages of %d bytes from %d", total, len(b))
		}
		var s Socket
		if ok := parse(&s, b); ok != (len(b) >= messageSize) {
			t.Errorf("accepted %v for %d bytes", ok, len(b))
		}
		if s.Protocol != unix.IPPROTO_TCP && (s.BytesSent|s.BytesReceived) != 0 {
			t.Errorf("got bytes %d and %d for protocol %d", s.BytesSent, s.BytesReceived, s.Protocol)
		}
		if s.Local.Addr().Is4In6() {
			t.Errorf("got address %v", s.Local)
		}
	})
}
