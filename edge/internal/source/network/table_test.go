package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/source/clocktest"
	"github.com/apss-sensor/apss/shared/event"
)

// script is a lister that says what a test tells it.
type script struct {
	sockets []socket
	err     error
	lists   int
	over    bool // what the last list was asked for
}

func (s *script) list(dst []socket, over bool) ([]socket, error) {
	s.lists++
	s.over = over
	return append(dst, s.sockets...), s.err
}

func (s *script) close() {}

// world is a sensor on a fixture of procfs and a script.
type world struct {
	t *testing.T
	*script
	s   *Sensor
	dir string
	now time.Time
}

func newWorld(t *testing.T, c Config, baseline ...socket) *world {
	t.Helper()
	w := &world{t: t, script: &script{sockets: baseline}, dir: t.TempDir(), now: time.Unix(1000, 0)}
	c.Proc = w.dir
	if c.Self == 0 {
		c.Self = 900
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.spaces[0].lister = w.script
	w.s = s
	if err := s.open(w.now); err != nil {
		t.Fatal(err)
	}
	return w
}

// holds makes pid the owner of sockets.
func (w *world) holds(pid int, inodes ...int) {
	w.t.Helper()
	dir := filepath.Join(w.dir, fmt.Sprint(pid), "fd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	for _, inode := range inodes {
		if err := os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(dir, fmt.Sprint(inode))); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) write(path, content string) {
	w.t.Helper()
	path = filepath.Join(w.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// poll shows the sensor these sockets and compares what it says, each as "connect outbound ESTABLISHED 8.8.8.8:443 7",
// with the destination and the pid.
func (w *world) poll(sockets []socket, want ...string) []*event.Event {
	w.t.Helper()
	w.sockets = sockets
	w.now = w.now.Add(200 * time.Millisecond)
	events := w.s.poll(w.now)
	var got []string
	for _, e := range events {
		n := e.Network
		line := fmt.Sprintf("%s %s %s %s", e.Type[len("network_"):], n.Direction, n.State, netip.AddrPortFrom(netip.MustParseAddr(n.DstIP), n.DstPort))
		if e.Process != nil {
			line += fmt.Sprintf(" %d", e.Process.PID)
		}
		got = append(got, line)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("a poll shows %q, want %q", got, want)
	}
	return events
}

func in(st state, inode uint64, local, remote string) socket {
	return socket{key: ends(local, remote), state: st, uid: 1000, inode: inode}
}

const (
	client = "10.0.0.1:40000"
	server = "8.8.8.8:443"
)

func TestLifeOfAConnection(t *testing.T) {
	gone := []socket(nil)
	type step struct {
		sockets []socket
		want    []string
	}
	one := func(s socket, want ...string) step { return step{[]socket{s}, want} }
	for name, steps := range map[string][]step{
		"once": {
			one(in(established, 5, client, server), "connect outbound ESTABLISHED 8.8.8.8:443"),
			one(in(established, 5, client, server)),
			{gone, nil}, // a list may skip one
			{gone, []string{"close outbound ESTABLISHED 8.8.8.8:443"}},
			{gone, nil},
		},
		"skipped in a list": {
			one(in(established, 5, client, server), "connect outbound ESTABLISHED 8.8.8.8:443"),
			{gone, nil},
			one(in(established, 5, client, server)),
			{gone, nil},
			one(in(established, 5, client, server)),
		},
		"attempt, then established, then time wait": {
			one(in(synSent, 5, client, server), "connect outbound SYN_SENT 8.8.8.8:443"),
			one(in(established, 5, client, server)),
			one(in(timeWait, 0, client, server), "close outbound TIME_WAIT 8.8.8.8:443"),
			one(in(timeWait, 0, client, server)),
			{gone, nil}, {gone, nil}, {gone, nil},
		},
		"attempt without answer": {
			one(in(synSent, 5, client, server), "connect outbound SYN_SENT 8.8.8.8:443"),
			{gone, nil},
			{gone, []string{"close outbound SYN_SENT 8.8.8.8:443"}},
		},
		"over when seen": {
			one(in(timeWait, 0, client, server), "connect outbound TIME_WAIT 8.8.8.8:443", "close outbound TIME_WAIT 8.8.8.8:443"),
			one(in(timeWait, 0, client, server)),
			{gone, nil}, {gone, nil},
		},
		"again with the same ports": {
			one(in(established, 5, client, server), "connect outbound ESTABLISHED 8.8.8.8:443"),
			one(in(timeWait, 0, client, server), "close outbound TIME_WAIT 8.8.8.8:443"),
			one(in(established, 6, client, server), "connect outbound ESTABLISHED 8.8.8.8:443"),
			one(in(established, 7, client, server), "close outbound ESTABLISHED 8.8.8.8:443", "connect outbound ESTABLISHED 8.8.8.8:443"),
		},
		"closed by its process": {
			one(in(established, 5, client, server), "connect outbound ESTABLISHED 8.8.8.8:443"),
			one(in(state(4), 0, client, server)),
			one(in(state(5), 0, client, server)),
			{gone, nil},
			{gone, []string{"close outbound FIN_WAIT2 8.8.8.8:443"}},
		},
		"half open": {one(in(synRecv, 0, "10.0.0.1:80", "8.8.8.8:999")), {gone, nil}, {gone, nil}},
		"listener, and what comes in": {
			one(in(listen, 5, "0.0.0.0:4444", "0.0.0.0:0"), "listen listen LISTEN 0.0.0.0:4444"),
			{
				[]socket{in(listen, 5, "0.0.0.0:4444", "0.0.0.0:0"), in(established, 6, "10.0.0.1:4444", "8.8.8.8:999")},
				[]string{"connect inbound ESTABLISHED 10.0.0.1:4444"},
			},
			{gone, nil},
			{gone, []string{"close inbound ESTABLISHED 10.0.0.1:4444", "close listen LISTEN 0.0.0.0:4444"}},
			// It was a service a moment ago.
			one(in(timeWait, 0, "10.0.0.1:4444", "8.8.8.8:998"), "connect inbound TIME_WAIT 10.0.0.1:4444", "close inbound TIME_WAIT 10.0.0.1:4444"),
		},
		"several listen on one port": {
			{[]socket{in(listen, 5, "0.0.0.0:80", "0.0.0.0:0"), in(listen, 6, "0.0.0.0:80", "0.0.0.0:0")}, []string{"listen listen LISTEN 0.0.0.0:80"}},
			{[]socket{in(listen, 6, "0.0.0.0:80", "0.0.0.0:0"), in(listen, 5, "0.0.0.0:80", "0.0.0.0:0")}, nil},
			one(in(listen, 6, "0.0.0.0:80", "0.0.0.0:0")),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			for _, step := range steps {
				w.poll(step.sockets, step.want...)
			}
		})
	}
}

func TestUDP(t *testing.T) {
	u := func(inode uint64, local, remote string) socket {
		s := in(closed, inode, local, remote)
		if s.protocol = udp; !s.listening() {
			s.state = established
		}
		return s
	}
	w := newWorld(t, Config{})
	w.poll([]socket{u(1, "0.0.0.0:53", "0.0.0.0:0"), u(2, "0.0.0.0:40000", "0.0.0.0:0"), u(3, "10.0.0.1:40001", "8.8.8.8:53"), u(4, "10.0.0.1:53", "10.0.0.2:999")},
		"listen listen UNCONN 0.0.0.0:53", "connect outbound ESTABLISHED 8.8.8.8:53", "connect inbound ESTABLISHED 10.0.0.1:53")
}

func TestBaseline(t *testing.T) {
	old := []socket{
		in(established, 5, client, server), in(timeWait, 0, client, "8.8.8.8:80"), in(listen, 6, "0.0.0.0:22", "0.0.0.0:0"),
	}
	w := newWorld(t, Config{}, old...)
	w.poll(old)
	w.poll(append(old, in(established, 7, "10.0.0.1:22", "10.0.0.9:999")), "connect inbound ESTABLISHED 10.0.0.1:22")
	w.poll([]socket{in(established, 8, client, "8.8.8.8:80")}, "connect outbound ESTABLISHED 8.8.8.8:80")
	w.poll(nil, "close inbound ESTABLISHED 10.0.0.1:22")
}

func TestProcesses(t *testing.T) {
	known := func(pid int32) *event.Process {
		if pid == 8 {
			return nil
		}
		return &event.Process{PID: pid, Exe: "/bin/x", Capture: event.CaptureFull}
	}
	w := newWorld(t, Config{Process: known, Ignore: []netip.AddrPort{netip.MustParseAddrPort("8.8.4.4:443"), netip.MustParseAddrPort("0.0.0.0:9")}})
	w.holds(7, 5, 50)
	w.holds(8, 6)
	w.holds(900, 9)
	events := w.poll([]socket{in(established, 5, client, server)}, "connect outbound ESTABLISHED 8.8.8.8:443 7")
	if got := events[0].Process.Exe; got != "/bin/x" {
		t.Errorf("got exe %q, want what the process sensor knows", got)
	}
	events = w.poll([]socket{in(established, 5, client, server), in(established, 6, client, "8.8.8.8:1")}, "connect outbound ESTABLISHED 8.8.8.8:1 8")
	want := &event.Process{PID: 8, UID: 1000, LoginUID: event.UnknownID, SessionID: event.UnknownID, Capture: event.CapturePartial}
	if diff := cmp.Diff(want, events[0].Process); diff != "" {
		t.Errorf("an unknown process differs (-want +got):\n%s", diff)
	}
	// Two that are the agent's own and the other end of it, two ignored.
	w.poll([]socket{
		in(established, 5, client, server), in(established, 6, client, "8.8.8.8:1"),
		in(established, 10, "10.0.0.1:80", "10.0.0.1:999"), in(established, 9, "10.0.0.1:999", "10.0.0.1:80"),
		in(established, 11, client, "8.8.4.4:443"), in(established, 12, client, "8.8.4.4:9"),
	})
	// Not accepted yet: the listener's process, said to be inferred.
	w.poll([]socket{in(listen, 50, "0.0.0.0:80", "0.0.0.0:0")}, "listen listen LISTEN 0.0.0.0:80 7")
	w.holds(7)
	events = w.poll([]socket{in(listen, 50, "0.0.0.0:80", "0.0.0.0:0"), in(established, 0, "10.0.0.1:80", "10.0.0.5:999")},
		"connect inbound ESTABLISHED 10.0.0.1:80 7",
		"close outbound ESTABLISHED 8.8.8.8:443 7", "close outbound ESTABLISHED 8.8.8.8:1 8")
	i := slices.IndexFunc(events, func(e *event.Event) bool { return e.Type == event.NetworkConnect })
	if got := events[i].Metadata["process_inferred"]; got != true {
		t.Errorf("got metadata %v, want that the process is inferred", events[i].Metadata)
	}
	if got := w.s.Stats(); got.Excluded != 4 || got.Unjoined != 0 {
		t.Errorf("got %+v, want 4 excluded and none unjoined", got)
	}
}

func TestStdio(t *testing.T) {
	w := newWorld(t, Config{})
	w.holds(7, 5)
	w.holds(6)
	if err := os.Symlink("socket:[5]", filepath.Join(w.dir, "7", "fd", "0")); err != nil {
		t.Fatal(err)
	}
	e := w.poll([]socket{in(established, 5, client, server)}, "connect outbound ESTABLISHED 8.8.8.8:443 7")[0]
	if e.Metadata["stdio_socket"] != true {
		t.Errorf("got metadata %v, want that it is the standard input", e.Metadata)
	}
}

func TestPulse(t *testing.T) {
	snmp := func(opens int) string { return fmt.Sprintf("Tcp: a b\nTcp: 1 200 120000 -1 %d 0 0 0 0 0\n", opens) }
	w := newWorld(t, Config{})
	w.write("net/snmp", snmp(10))
	w.poll(nil)
	lists := w.lists
	w.poll(nil)
	w.poll([]socket{in(established, 5, client, server)}) // no pulse, no list
	if w.lists != lists {
		t.Errorf("listed %d times without a pulse", w.lists-lists)
	}
	w.write("net/snmp", snmp(13))
	w.poll(w.sockets, "connect outbound ESTABLISHED 8.8.8.8:443")
	w.write("net/snmp", snmp(14))
	w.poll(nil)
	w.poll(nil, "close outbound ESTABLISHED 8.8.8.8:443") // without a pulse: it was missing before
	w.sockets = []socket{in(established, 6, client, server)}
	w.now = w.now.Add(listEvery)
	w.poll(w.sockets, "connect outbound ESTABLISHED 8.8.8.8:443")
	if got := w.s.Stats(); got.Opened != 14 || got.MissedAtMost != 12 {
		t.Errorf("opened %d, missed at most %d; want 14 and 12", got.Opened, got.MissedAtMost)
	}
}

func TestTrouble(t *testing.T) {
	w := newWorld(t, Config{})
	w.poll([]socket{in(established, 5, client, server)}, "connect outbound ESTABLISHED 8.8.8.8:443")
	w.err = errCrowded
	w.poll(nil)
	w.poll(nil) // what is cut off has not ended
	if got := w.s.Stats(); got.Crowded != 2 || got.Sockets != 1 {
		t.Errorf("got %+v, want two crowded lists and one socket", got)
	}
	w.err = errors.New("broken")
	w.poll(nil)
	w.err = nil
	w.poll([]socket{in(established, 5, client, server)})
}

// A clock that is set neither ends a connection nor forgets what was told.
func TestClockIsSet(t *testing.T) {
	one := []socket{in(established, 5, client, server)}
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			w := newWorld(t, Config{})
			w.now = time.Now()
			set := func() { w.now = clocktest.Set(t, w.now, by) }
			first := w.poll(one, "connect outbound ESTABLISHED 8.8.8.8:443")[0]
			told := &w.s.spaces[0].told
			told.add(77, w.now)
			set()
			w.poll(one)
			told.add(78, w.now)
			w.poll(nil) // a list may skip one
			set()
			told.add(79, w.now)
			if !told.has(77) || !told.has(78) {
				t.Errorf("of the sockets told a moment ago 77 is known: %t, 78: %t, want both", told.has(77), told.has(78))
			}
			last := w.poll(nil, "close outbound ESTABLISHED 8.8.8.8:443")[0]
			if got, want := last.Timestamp.Sub(first.Timestamp), 600*time.Millisecond; got != want {
				t.Errorf("the connection lasted %v, want %v", got, want)
			}
			w.now = w.now.Add(cookieMemory + time.Second)
			told.add(80, w.now)
			w.now = w.now.Add(cookieMemory + time.Second)
			told.add(81, w.now)
			if told.has(77) {
				t.Error("a socket is known after twice the memory's time, want it forgotten")
			}
		})
	}
}
