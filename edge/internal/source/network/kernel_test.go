package network

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/network/netns/netnstest"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	byDiag = "sock_diag"
	byProc = "/proc/net"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

// watch returns a sensor with this machine's baseline, by one mechanism, that takes the test for another process than
// the agent.
func watch(tb testing.TB, mechanism string, c Config) *Sensor {
	tb.Helper()
	if c.Self == 0 {
		c.Self = -1
	}
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	if mechanism == byProc {
		s.spaces[0].lister = newProcLister(s.spaces[0].dir)
	}
	if err := s.open(time.Now()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.close)
	if got := s.Stats(); got.Listing != mechanism {
		tb.Skipf("got %s, want %s: %s", got.Listing, mechanism, got.Refused)
	}
	return s
}

// find polls until there is an event that suits.
func find(t *testing.T, s *Sensor, what string, suits func(*event.Event) bool) *event.Event {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		for _, e := range s.poll(time.Now()) {
			if suits(e) {
				return e
			}
		}
	}
	t.Fatalf("no %s", what)
	return nil
}

func is(typ event.Type, direction string, port uint16) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.Type == typ && e.Network.Direction == direction && e.Network.DstPort == port
	}
}

func TestRealSockets(t *testing.T) {
	addresses := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "mapped": "127.0.0.1:0"}
	for _, mechanism := range []string{byDiag, byProc} {
		for network, address := range addresses {
			t.Run(mechanism+" "+network, func(t *testing.T) { realSockets(t, mechanism, network, address) })
		}
	}
}

func realSockets(t *testing.T, mechanism, network, address string) {
	t.Helper()
	s := watch(t, mechanism, Config{})
	listenOn, dialWith := network, network
	if network == "mapped" { // an IPv6 socket that takes IPv4
		listenOn, dialWith, address = "tcp", "tcp4", ":0"
	}
	l, err := net.Listen(listenOn, address)
	if err != nil {
		if network == "tcp6" {
			t.Skipf("IPv6 is off: %v; turn it on to run this", err)
		}
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	e := find(t, s, "listen", is(event.NetworkListen, listening, port))
	if e.Process == nil || e.Process.PID != int32(os.Getpid()) || e.Network.State != "LISTEN" {
		t.Errorf("got %+v of %+v, want a listening socket of this process", e.Network, e.Process)
	}
	host := "127.0.0.1"
	if network == "tcp6" {
		host = "::1"
	}
	dialled, err := net.Dial(dialWith, netip.AddrPortFrom(netip.MustParseAddr(host), port).String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var ends []*event.Event
	find(t, s, "two ends", func(e *event.Event) bool {
		if e.Type == event.NetworkConnect && e.Network.DstPort == port {
			ends = append(ends, e)
		}
		return len(ends) == 2
	})
	clientPort := uint16(dialled.LocalAddr().(*net.TCPAddr).Port)
	directions := ""
	for _, e := range ends {
		directions += e.Network.Direction + " "
		n := e.Network
		if n.SrcIP != host || n.DstIP != host || n.SrcPort != clientPort || n.State != "ESTABLISHED" || n.IsExternal {
			t.Errorf("got %+v, want %d to %d on %s", n, clientPort, port, host)
		}
		if e.Process == nil || e.Process.PID != int32(os.Getpid()) {
			t.Errorf("got process %+v, want this one", e.Process)
		}
	}
	if !strings.Contains(directions, outbound) || !strings.Contains(directions, inbound) {
		t.Errorf("got directions %q, want both", directions)
	}
	dialled.Close()
	accepted.Close()
	find(t, s, "close", is(event.NetworkClose, outbound, port))
	l.Close()
	find(t, s, "end of listening", is(event.NetworkClose, listening, port))
}

// shortConnection dials, sends 7 bytes, receives 5 and closes, the dialling end first. It returns the local address.
func shortConnection(t *testing.T, l net.Listener) netip.AddrPort {
	t.Helper()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	c.Close() // the first to close keeps the TIME_WAIT
	if n, err := io.Copy(io.Discard, a); n != 7 || err != nil {
		t.Fatal(n, err)
	}
	a.Close()
	return c.LocalAddr().(*net.TCPAddr).AddrPort()
}

func listenTCP(t *testing.T) (net.Listener, uint16) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, uint16(l.Addr().(*net.TCPAddr).Port)
}

// again lists until the sensor has had time to say more of a port than it should.
func again(t *testing.T, s *Sensor, port uint16) {
	t.Helper()
	for range 3 {
		s.spaces[0].unsettled, s.spaces[0].over = true, true // all of it
		for _, e := range s.poll(time.Now()) {
			if e.Network.DstPort == port {
				t.Errorf("reported again: %s %+v", e.Type, e.Network)
			}
		}
	}
}

// By /proc, a connection that is over before a poll is seen by its TIME_WAIT, once, and the kernel's count says that
// one of its ends was missed.
func TestRealTimeWait(t *testing.T) {
	l, port := listenTCP(t)
	s := watch(t, byProc, Config{})
	shortConnection(t, l)
	var events []*event.Event
	find(t, s, "short connection", func(e *event.Event) bool {
		if e.Network.DstPort == port && e.Network.Direction == outbound {
			events = append(events, e)
		}
		return len(events) == 2
	})
	if events[0].Type != event.NetworkConnect || events[1].Type != event.NetworkClose || events[1].Network.State != "TIME_WAIT" {
		t.Errorf("got %s %s in %s, want connect and close in TIME_WAIT", events[0].Type, events[1].Type, events[1].Network.State)
	}
	again(t, s, port)
	if got := s.Stats(); got.Opened < 2 || got.ShortLived == 0 {
		t.Errorf("got %+v, want both ends counted by the kernel", got)
	}
}

// By sock_diag both ends of it are told, with their bytes, once.
func TestRealShortConnection(t *testing.T) {
	s := watch(t, byDiag, Config{})
	l, port := listenTCP(t) // a service that is newer than the last list
	from := shortConnection(t, l)
	got := map[string]*event.Event{}
	find(t, s, "short connection", func(e *event.Event) bool {
		if e.Network.DstPort == port && e.Network.Direction != listening {
			if got[string(e.Type)+e.Network.Direction] != nil {
				t.Errorf("twice: %s %+v", e.Type, e.Network)
			}
			got[string(e.Type)+e.Network.Direction] = e
		}
		return len(got) == 4
	})
	for end, bytes := range map[string][2]uint64{outbound: {7, 5}, inbound: {5, 7}} {
		connect, over := got[string(event.NetworkConnect)+end], got[string(event.NetworkClose)+end]
		if connect == nil || over == nil {
			t.Fatalf("got %v, want connect and close of the %s end", got, end)
		}
		n := over.Network
		// The peer's FIN counts as a byte when it came in time.
		if n.BytesSent != bytes[0] || n.BytesReceived < bytes[1] || n.BytesReceived > bytes[1]+1 || n.SrcPort != from.Port() || n.State != "CLOSE" {
			t.Errorf("%s: got %+v, want %v bytes from port %d", end, n, bytes, from.Port())
		}
		if connect.Network.State != "ESTABLISHED" || connect.Network.BytesSent != 0 {
			t.Errorf("%s: got %+v", end, connect.Network)
		}
	}
	p := got[string(event.NetworkConnect)+inbound]
	if p.Process == nil || p.Process.PID != int32(os.Getpid()) || p.Metadata["process_inferred"] != true {
		t.Errorf("got %+v, %v; want the process that listens, inferred", p.Process, p.Metadata)
	}
	again(t, s, port)
}

// A connection that was listed has its bytes when it ends, or that its own side reset it.
func TestRealEnds(t *testing.T) {
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset=%t", reset), func(t *testing.T) {
			s := watch(t, byDiag, Config{})
			l, port := listenTCP(t)
			c, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			find(t, s, "connect", is(event.NetworkConnect, outbound, port))
			if _, err := c.Write(make([]byte, 9)); err != nil {
				t.Fatal(err)
			}
			a, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if reset {
				if err := c.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
			}
			from := uint16(c.LocalAddr().(*net.TCPAddr).Port)
			c.Close()
			a.Close()
			var e, other *event.Event
			find(t, s, "close of both ends", func(got *event.Event) bool {
				if is(event.NetworkClose, outbound, port)(got) {
					e = got
				}
				if is(event.NetworkClose, inbound, port)(got) {
					other = got
				}
				return e != nil && other != nil
			})
			want := uint64(9)
			if reset {
				want = 0
			}
			if e.Network.SrcPort != from || e.Network.BytesSent != want || (e.Metadata["reset"] == true) != reset || e.Process == nil {
				t.Errorf("got %+v, %v; want %d bytes sent from port %d", e.Network, e.Metadata, want, from)
			}
			again(t, s, port)
		})
	}
}

// An attempt that is refused is told as one that had no answer.
func TestRealRefused(t *testing.T) {
	s := watch(t, byDiag, Config{})
	l, port := listenTCP(t)
	l.Close()
	if _, err := net.Dial("tcp4", l.Addr().String()); err == nil {
		t.Fatal("nobody listens and yet it connects")
	}
	if e := find(t, s, "attempt", is(event.NetworkConnect, outbound, port)); e.Network.State != "SYN_SENT" {
		t.Errorf("got state %s, want SYN_SENT", e.Network.State)
	}
}

func TestRealUDP(t *testing.T) {
	for _, mechanism := range []string{byDiag, byProc} {
		t.Run(mechanism, func(t *testing.T) {
			s := watch(t, mechanism, Config{})
			c, err := net.Dial("udp4", "127.0.0.1:53")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			e := find(t, s, "UDP socket with a peer", is(event.NetworkConnect, outbound, 53))
			if e.Network.Protocol != "udp" || e.Network.State != "ESTABLISHED" || e.Process == nil {
				t.Errorf("got %+v of %+v", e.Network, e.Process)
			}
		})
	}
	s := watch(t, byDiag, Config{})
	c, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	find(t, s, "end of a short one", is(event.NetworkClose, outbound, 9))
}

func TestRealOwnSockets(t *testing.T) {
	for _, mechanism := range []string{byDiag, byProc} {
		t.Run(mechanism, func(t *testing.T) {
			s := watch(t, mechanism, Config{Self: int32(os.Getpid())})
			l, port := listenTCP(t)
			c, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			quiet := func() {
				for _, e := range s.poll(time.Now()) {
					if e.Network.DstPort == port {
						t.Errorf("got %s %+v of our own", e.Type, e.Network)
					}
				}
			}
			quiet()
			if got := s.Stats().Excluded; got < 3 {
				t.Errorf("got %d excluded, want the listener and both ends", got)
			}
			c.Close()
			a, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			a.Close()
			shortConnection(t, l)
			s.spaces[0].unsettled = true
			quiet()
			quiet()
		})
	}
}

// What went through Control is the agent's however short it was.
func TestRealControl(t *testing.T) {
	s := watch(t, byDiag, Config{})
	dial := func(d net.Dialer, port string) {
		c, err := d.Dial("udp4", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	dial(net.Dialer{Control: s.Control}, "7")
	dial(net.Dialer{}, "9")
	find(t, s, "the socket of somebody else", func(e *event.Event) bool {
		if e.Network.DstPort == 7 {
			t.Errorf("got %s %+v of our own", e.Type, e.Network)
		}
		return is(event.NetworkClose, outbound, 9)(e)
	})
}

func TestRun(t *testing.T) {
	s, err := New(Config{Self: -1, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan *event.Event, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx, func(e *event.Event) { events <- e }, nil); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	for s.Stats().Polls == 0 {
		runtime.Gosched() // the baseline is taken
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for e := range events {
		if is(event.NetworkListen, listening, uint16(l.Addr().(*net.TCPAddr).Port))(e) {
			break
		}
	}
	cancel()
	wg.Wait()
	if s, err = New(Config{Proc: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	s.spaces[0].lister = newProcLister(t.TempDir())
	if err := s.Run(t.Context(), nil, nil); err == nil {
		t.Error("Run without /proc/net: got no error")
	}
	if _, err := New(Config{Interval: 1}); err == nil {
		t.Error("New with an interval of 1ns: got no error")
	}
	if _, err := New(Config{InternalNets: []netip.Prefix{{}}}); err == nil {
		t.Error("New with an empty range: got no error")
	}
}
