package sockdiag

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open returns a Conn, or skips where this kernel or sandbox refuses netlink.
func open(t testing.TB) *Conn {
	t.Helper()
	c, err := Open()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skipf("this kernel or sandbox has no sock_diag (%v); run on Linux with CONFIG_INET_DIAG", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// pair is an established connection over loopback, closed with the test.
func pair(t testing.TB, network, address string) (dialled, accepted net.Conn) {
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

func exchange(t testing.TB, from, to net.Conn, n int) {
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

func find(sockets []Socket, local netip.AddrPort, protocol uint8) (Socket, bool) {
	i := slices.IndexFunc(sockets, func(s Socket) bool { return s.Local == local && s.Protocol == protocol })
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
			sockets, err := c.Dump(nil)
			if err != nil {
				t.Fatal(err)
			}
			s, ok := find(sockets, addr(dialled.LocalAddr()), unix.IPPROTO_TCP)
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
		sockets, err := c.Dump(nil)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := find(sockets, addr(u.LocalAddr()), unix.IPPROTO_UDP); !ok || s.Inode == 0 {
			t.Errorf("got %+v, %v; want the socket with its inode", s, ok)
		}
	})
	t.Run("listener", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		sockets, err := c.Dump(nil)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := find(sockets, addr(l.Addr()), unix.IPPROTO_TCP); !ok || s.State != 10 || s.Remote.Port() != 0 {
			t.Errorf("got %+v, %v; want it in state LISTEN", s, ok)
		}
	})
}

// Every one of 200 connections that live as short as they can is told, with addresses and bytes, at both ends.
func TestClosesTellEveryShortConnection(t *testing.T) {
	open(t)
	closes, err := Listen(unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer closes.Close()
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
	if err := closes.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for len(missing) > 0 {
		sockets, err := closes.Next(nil)
		if err != nil {
			t.Fatalf("with %d connections not told: %v", len(missing), err)
		}
		for _, s := range sockets {
			if !missing[s.Local] {
				continue
			}
			delete(missing, s.Local)
			// The peer's FIN counts as a byte when it came in time.
			if s.Remote != addr(l.Addr()) || s.BytesSent != 10 || s.BytesReceived < 10 || s.BytesReceived > 11 || s.Cookie == 0 {
				t.Errorf("got %+v, want one to %v with 10 bytes both ways", s, l.Addr())
			}
		}
	}
}

func TestCloseEndsNext(t *testing.T) {
	open(t)
	closes, err := Listen(unix.IPPROTO_UDP)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		for {
			if _, err := closes.Next(nil); err != nil {
				ended <- err
				return
			}
		}
	}()
	closes.Close()
	if err := <-ended; err == nil {
		t.Error("got no error after Close")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(make([]byte, messageSize), uint8(unix.IPPROTO_TCP))
	f.Add(append(make([]byte, messageSize), 4, 0, 2, 0, 12, 0, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 0), uint8(unix.IPPROTO_TCP))
	f.Add(append(append(make([]byte, messageSize), 236, 0, 2, 0), make([]byte, 232)...), uint8(unix.IPPROTO_TCP))
	f.Add([]byte{2, 1}, uint8(unix.IPPROTO_UDP))
	f.Fuzz(func(t *testing.T, b []byte, protocol uint8) {
		s, ok := parse(b, protocol)
		if ok != (len(b) >= messageSize) {
			t.Errorf("accepted %v for %d bytes", ok, len(b))
		}
		if ok && protocol != unix.IPPROTO_TCP && (s.BytesSent|s.BytesReceived) != 0 {
			t.Errorf("got bytes %d and %d for protocol %d", s.BytesSent, s.BytesReceived, protocol)
		}
	})
}

func BenchmarkDump(b *testing.B) {
	for _, n := range []int{100, 1000, 6000} {
		b.Run(fmt.Sprintf("sockets=%d", n), func(b *testing.B) {
			c := open(b)
			for range n / 2 {
				pair(b, "tcp4", "127.0.0.1:0")
			}
			b.ReportAllocs()
			var sockets []Socket
			for b.Loop() {
				var err error
				if sockets, err = c.Dump(sockets[:0]); err != nil {
					b.Fatal(err)
				}
			}
			if len(sockets) < n {
				b.Fatalf("got %d sockets, want at least %d", len(sockets), n)
			}
		})
	}
}
