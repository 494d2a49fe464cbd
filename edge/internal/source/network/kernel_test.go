package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// watch returns a sensor with this machine's baseline that takes the test for another process than the agent.
func watch(tb testing.TB) *Sensor {
	tb.Helper()
	s, err := New(Config{Self: -1})
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.open(time.Now()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// find polls until there is an event that suits.
func find(t *testing.T, s *Sensor, what string, suits func(*event.Event) bool) *event.Event {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
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
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "mapped": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			s := watch(t)
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
		})
	}
}

// A connection that is over before a poll is seen by its TIME_WAIT, once, and the kernel's count says that one of its
// ends was missed.
func TestRealShortConnection(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	s := watch(t)
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close() // the first to close keeps the TIME_WAIT
	if _, err := a.Read(make([]byte, 1)); err == nil {
		t.Fatal("read from a closed connection")
	}
	a.Close()
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
	for range 3 {
		s.listed = time.Time{} // force a list
		for _, e := range s.poll(time.Now()) {
			if e.Network.DstPort == port {
				t.Errorf("reported again: %s %+v", e.Type, e.Network)
			}
		}
	}
	if got := s.Stats(); got.Opened < 2 || got.ShortLived == 0 {
		t.Errorf("got %+v, want both ends counted by the kernel", got)
	}
}

func TestRealUDP(t *testing.T) {
	s := watch(t)
	c, err := net.Dial("udp4", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := find(t, s, "UDP socket with a peer", is(event.NetworkConnect, outbound, 53))
	if e.Network.Protocol != "udp" || e.Network.State != "ESTABLISHED" || e.Process == nil {
		t.Errorf("got %+v of %+v", e.Network, e.Process)
	}
}

func TestRealOwnSockets(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.open(time.Now()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	for _, e := range s.poll(time.Now()) {
		if e.Network.DstPort == port {
			t.Errorf("got %s %+v of our own", e.Type, e.Network)
		}
	}
	if got := s.Stats().Excluded; got < 3 {
		t.Errorf("got %d excluded, want the listener and both ends", got)
	}
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
