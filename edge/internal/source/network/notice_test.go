package network

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
	"github.com/apss-sensor/apss/shared/event"
)

// tidings are notices that a test sends.
type tidings struct {
	waiting []sockdiag.Socket
	err     error // after those that wait, once
	closed  bool
}

func (n *tidings) Next(dst []sockdiag.Socket) ([]sockdiag.Socket, error) {
	dst = append(dst, n.waiting...)
	err := n.err
	n.waiting, n.err = nil, nil
	return dst, err
}

func (n *tidings) Wait() error { return os.ErrClosed }

func (n *tidings) Close() error {
	n.closed = true
	return nil
}

// hearing is a world in which the kernel tells what ends.
func hearing(t *testing.T, c Config, baseline ...socket) (*world, *tidings) {
	t.Helper()
	w := newWorld(t, c, baseline...)
	n := &tidings{}
	w.s.spaces[0].notices = n
	return w, n
}

func with(s socket, cookie uint64) socket {
	s.cookie = cookie
	return s
}

func (n *tidings) end(cookie uint64, local, remote string) {
	n.waiting = append(n.waiting, sockdiag.Socket{
		Protocol: unix.IPPROTO_TCP, State: 7, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote),
		Cookie: cookie, BytesSent: 10, BytesReceived: 20, Answered: true,
	})
}

// traffic compares what the events of an end say.
func traffic(t *testing.T, events []*event.Event, sent, received uint64) {
	t.Helper()
	for _, e := range events {
		if e.Type == event.NetworkClose && (e.Network.BytesSent != sent || e.Network.BytesReceived != received) {
			t.Errorf("got %d bytes sent and %d received, want %d and %d", e.Network.BytesSent, e.Network.BytesReceived, sent, received)
		}
	}
}

func TestNoticeOfAListedConnection(t *testing.T) {
	w, n := hearing(t, Config{})
	w.holds(7, 5)
	live := with(in(established, 5, client, server), 1)
	w.poll([]socket{live}, "connect outbound ESTABLISHED 8.8.8.8:443 7")
	n.end(1, client, server)
	traffic(t, w.poll(nil, "close outbound CLOSE 8.8.8.8:443 7"), 10, 20)
	n.end(1, client, server)
	w.poll(nil)
	// The same addresses again, before and after its end is told.
	w.poll([]socket{with(in(established, 6, client, server), 2)}, "connect outbound ESTABLISHED 8.8.8.8:443")
	w.poll([]socket{with(in(established, 7, client, server), 3)}, "close outbound ESTABLISHED 8.8.8.8:443", "connect outbound ESTABLISHED 8.8.8.8:443")
	n.end(2, client, server)
	w.poll(w.sockets)
	n.end(3, "0.0.0.0:40000", "0.0.0.0:0") // reset: the kernel knows no peer and no bytes any more
	n.waiting[0].BytesSent, n.waiting[0].BytesReceived = 0, 0
	events := w.poll(nil, "close outbound CLOSE 8.8.8.8:443")
	if events[0].Metadata["reset"] != true {
		t.Errorf("got metadata %v, want that it was reset", events[0].Metadata)
	}
	if got := w.s.Stats(); got.Notices != 4 || got.Sockets != 0 || len(w.s.spaces[0].known) != 0 {
		t.Errorf("got %+v and %v, want 4 notices and nothing tracked", got, w.s.spaces[0].known)
	}
}

func TestNoticeOverdue(t *testing.T) {
	w, n := hearing(t, Config{})
	w.poll([]socket{with(in(established, 5, client, server), 1)}, "connect outbound ESTABLISHED 8.8.8.8:443")
	w.poll(nil)
	w.poll(nil) // it may come yet
	w.now = w.now.Add(noticePatience)
	w.poll(nil, "close outbound ESTABLISHED 8.8.8.8:443")
	n.end(1, client, server)
	w.poll(nil)
}

func TestNoticeOfAShortConnection(t *testing.T) {
	w, n := hearing(t, Config{Ignore: []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:53")}})
	w.holds(7, 50)
	n.end(1, client, server)
	traffic(t, w.poll(nil, "connect outbound ESTABLISHED 8.8.8.8:443", "close outbound CLOSE 8.8.8.8:443"), 10, 20)
	n.end(2, client, "8.8.4.4:443")
	n.waiting[0].Answered = false
	w.poll(nil, "connect outbound SYN_SENT 8.8.4.4:443", "close outbound CLOSE 8.8.4.4:443")
	n.end(3, client, "9.9.9.9:53")
	n.end(4, client, "0.0.0.0:0")
	w.poll(nil)
	// A service that the list shows which the notice made necessary.
	n.end(5, "10.0.0.1:40001", "10.0.0.9:50000")
	events := w.poll([]socket{with(in(listen, 50, "0.0.0.0:40001", "0.0.0.0:0"), 6)},
		"listen listen LISTEN 0.0.0.0:40001 7", "connect inbound ESTABLISHED 10.0.0.1:40001 7", "close inbound CLOSE 10.0.0.1:40001 7")
	if events[1].Metadata["process_inferred"] != true {
		t.Errorf("got metadata %v, want that the process is inferred", events[1].Metadata)
	}
	// A service that nobody ever saw, and one that has just gone.
	n.end(7, "10.0.0.1:8080", "10.0.0.9:50000")
	w.poll(w.sockets, "connect inbound ESTABLISHED 10.0.0.1:8080", "close inbound CLOSE 10.0.0.1:8080")
	n.end(6, "0.0.0.0:40001", "0.0.0.0:0")
	w.poll(nil)
	w.poll(nil, "close listen LISTEN 0.0.0.0:40001 7")
	n.end(8, "10.0.0.1:40001", "10.0.0.9:50000")
	w.poll(nil, "connect inbound ESTABLISHED 10.0.0.1:40001", "close inbound CLOSE 10.0.0.1:40001")
	if got := w.s.Stats(); got.ShortLived != 5 || got.Excluded != 1 || got.Nameless != 1 || w.s.accounted != 6 {
		t.Errorf("got %+v, %d accounted; want 5 short-lived, 1 excluded, 1 nameless and 6 accounted", got, w.s.accounted)
	}
}

// The TIME_WAITs tell what the kernel dropped notices of, and nothing twice.
func TestNoticesDropped(t *testing.T) {
	old := in(timeWait, 0, client, "1.1.1.1:1")
	w, n := hearing(t, Config{}, old)
	w.poll(nil)
	w.poll(nil)
	if w.over {
		t.Error("lists what is over though the kernel tells it")
	}
	n.end(1, client, server)
	n.err = sockdiag.ErrMissed
	w.poll([]socket{with(in(timeWait, 0, client, server), 8), with(in(timeWait, 0, client, "8.8.8.8:80"), 9), old},
		"connect outbound ESTABLISHED 8.8.8.8:443", "close outbound CLOSE 8.8.8.8:443",
		"connect outbound TIME_WAIT 8.8.8.8:80", "close outbound TIME_WAIT 8.8.8.8:80")
	if !w.over {
		t.Error("what is over is not listed after a loss")
	}
	for range 3 {
		n.err = sockdiag.ErrMissed
		w.poll(w.sockets)
	}
	if got := w.s.Stats(); got.Overruns != 4 {
		t.Errorf("got %+v, want 4 overruns", got)
	}
	// Too many to remember: better unseen than twice.
	w.s.spaces[0].told.lost = w.now
	n.err = sockdiag.ErrMissed
	w.poll(w.sockets)
	if w.over {
		t.Error("lists what is over though it may have been told")
	}
	n.err = errors.New("broken")
	w.poll(w.sockets)
	if got := w.s.Stats(); !n.closed || !w.over || got.Refused != "broken" || got.NamespacesByProc != 1 {
		t.Errorf("got %+v, closed %t, over %t; want lists of all and why", got, n.closed, w.over)
	}
}

// What was there at the start ends in silence.
func TestNoticeOfTheBaseline(t *testing.T) {
	w, n := hearing(t, Config{}, with(in(established, 5, client, server), 1))
	n.end(1, client, server)
	w.poll(nil)
}

func TestCookies(t *testing.T) {
	var c cookies
	now := time.Unix(1000, 0)
	c.add(0, now)
	c.add(1, now)
	if c.has(0) || !c.has(1) || c.has(2) || !c.whole(now) {
		t.Error("it holds something else than 1")
	}
	c.add(2, now.Add(cookieMemory+1))
	if !c.has(1) || !c.has(2) {
		t.Error("one is forgotten too early")
	}
	c.add(3, now.Add(2*cookieMemory+2))
	if c.has(1) || !c.has(2) || !c.has(3) {
		t.Error("one is not forgotten, or another is")
	}
	for i := range uint64(maxCookies) {
		c.add(i+4, now.Add(2*cookieMemory+2))
	}
	if len(c.now) != maxCookies || c.whole(now.Add(2*cookieMemory+2)) || !c.whole(now.Add(4*cookieMemory)) {
		t.Errorf("it holds %d, whole %t", len(c.now), c.whole(now.Add(2*cookieMemory+2)))
	}
}
