package network

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

func program(pid int32, line string) *event.Process {
	return &event.Process{PID: pid, Exe: "/bin/x", Cmdline: line, StartTime: time.Unix(int64(pid), 0)}
}

func TestCandidates(t *testing.T) {
	now := time.Unix(1000, 0)
	k := key{tcp, netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)} // to 8.8.8.8:443
	to := peer{tcp, k.remote}
	const space, other = 7, 8
	tests := []struct {
		name    string
		clients []*event.Process
		recent  []Began
		members map[int32]uint64
		want    string // pid:confidence
	}{
		{"nobody", nil, nil, nil, ""},
		{"one had it", []*event.Process{program(5, "")}, nil, nil, "5:0.6 "},
		{"two had it", []*event.Process{program(5, ""), program(6, "")}, nil, nil, "6:0.3 5:0.3 "},
		{"the same twice", []*event.Process{program(5, ""), program(5, "")}, nil, nil, "5:0.6 "},
		{"one has ended", []*event.Process{program(5, ""), program(99, "")}, nil, nil, "5:0.6 "},
		{"its pid is another's", []*event.Process{{PID: 5, StartTime: time.Unix(4, 0)}}, nil, nil, ""},
		{"the agent", []*event.Process{program(900, "")}, nil, nil, ""},
		{"begun just now", nil, []Began{{program(5, "curl example.com"), now.Add(-time.Second / 2), ""}}, nil, "5:0.2 "},
		{"begun just now, names it", nil, []Began{{program(5, "nc 8.8.8.8 443"), now, ""}}, nil, "5:0.5 "},
		{"begun lately, names it", nil, []Began{{program(5, "nc 8.8.8.8 443"), now.Add(-30 * time.Second), ""}}, nil, "5:0.4 "},
		{"begun lately", nil, []Began{{program(5, "nc 8.8.8.88 443"), now.Add(-30 * time.Second), ""}}, nil, ""},
		{"begun long ago", nil, []Began{{program(5, "nc 8.8.8.8 443"), now.Add(-61 * time.Second), ""}}, nil, ""},
		{"in another namespace", nil, []Began{{program(5, "nc 8.8.8.8"), now, ""}}, map[int32]uint64{5: other}, ""},
		{"in this one", nil, []Began{{program(5, "nc 8.8.8.8"), now, ""}}, map[int32]uint64{5: space}, "5:0.5 "},
		{"the best first, no more than four", []*event.Process{program(9, "")}, []Began{
			{program(2, "a"), now, ""}, {program(3, "b"), now, ""}, {program(4, "c"), now, ""}, {program(5, "nc 8.8.8.8"), now, ""},
		}, nil, "9:0.6 5:0.5 2:0.2 3:0.2 "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := New(Config{Self: 900, Recent: func() []Began { return test.recent }, Process: func(pid int32) *event.Process {
				if pid == 99 {
					return nil
				}
				return program(pid, "")
			}})
			if err != nil {
				t.Fatal(err)
			}
			n := s.spaces[0]
			n.id, s.members = space, test.members
			for _, p := range test.clients {
				n.clients.add(to, p)
			}
			got := ""
			for _, w := range n.candidates(k, now) {
				got += fmt.Sprintf("%d:%v ", w.PID, w.Confidence)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestClientsAreBounded(t *testing.T) {
	var c clients
	at := func(i int) peer {
		return peer{tcp, netip.AddrPortFrom(netip.AddrFrom4([4]byte{8, 8, byte(i >> 8), byte(i)}), 443)}
	}
	for i := range 2*maxServices + 1 {
		c.add(at(i), program(5, ""))
	}
	for i := range 10 * maxCandidates {
		c.add(at(2*maxServices), program(int32(i), ""))
	}
	if len(c.now) != 1 || len(c.before) != maxServices || len(c.of(at(2*maxServices))) != maxCandidates || c.of(at(0)) != nil {
		t.Errorf("got %d and %d services with %d clients, want 1, %d and %d", len(c.now), len(c.before), len(c.of(at(2*maxServices))), maxServices, maxCandidates)
	}
}

func TestNamesAddress(t *testing.T) {
	for line, want := range map[string]bool{
		"nc 10.0.0.1 80": true, "http://10.0.0.1:80/x": true, "10.0.0.1": true, "to 10.0.0.1.": true, "x 110.0.0.1": false, "10.0.0.12": false,
		"1.10.0.0.1": false, "10.0.0.1.5": false, "10.0.0.12 and 10.0.0.1": true, "": false,
	} {
		if got := namesAddress(line, "10.0.0.1"); got != want {
			t.Errorf("%q: got %t, want %t", line, got, want)
		}
	}
}

// Who was seen with a connection to a service is the candidate of a short one to it, with both of its events.
func TestShortConnectionHasCandidates(t *testing.T) {
	w, n := hearing(t, Config{})
	w.holds(7, 5)
	w.poll([]socket{with(in(established, 5, client, server), 1)}, "connect outbound ESTABLISHED 8.8.8.8:443 7")
	n.end(2, "10.0.0.1:40001", server)
	events := w.poll(w.sockets, "connect outbound ESTABLISHED 8.8.8.8:443", "close outbound CLOSE 8.8.8.8:443")
	for _, e := range events {
		want := []event.Writer{{PID: 7, Confidence: sameService}}
		if diff := cmp.Diff(map[string]any{"process_candidates": want}, e.Metadata); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", e.Type, diff)
		}
	}
	n.end(3, "10.0.0.1:40002", "8.8.4.4:443")
	w.poll(w.sockets, "connect outbound ESTABLISHED 8.8.4.4:443", "close outbound CLOSE 8.8.4.4:443")
	got := w.s.Stats()
	if got.Joined != 1 || got.Unjoined != 2 || got.Guessed != 1 || got.Inferred != 0 {
		t.Errorf("got %+v, want 1 joined, 2 unjoined, 1 of them guessed", got)
	}
	c := got.CoverageSince(Stats{Joined: 1, Connects: 1})
	if c.Connects != 2 || c.Joined != 0 || c.Unjoined != 2 || c.Guessed != 1 {
		t.Errorf("got coverage %+v, want what came since", c)
	}
}

// A hunt ends by itself and does not begin again at once.
func TestHunt(t *testing.T) {
	w, n := hearing(t, Config{})
	n.end(1, client, server)
	w.poll(nil, "connect outbound ESTABLISHED 8.8.8.8:443", "close outbound CLOSE 8.8.8.8:443")
	w.holds(7, 5)
	w.sockets = []socket{with(in(established, 5, "10.0.0.1:40001", server), 2)}
	if next := w.s.hunting(); next != huntEvery {
		t.Fatalf("got %v, want a hunt", next)
	}
	events, _ := w.s.hunt(w.now)
	if len(events) != 1 || events[0].Process == nil || events[0].Process.PID != 7 {
		t.Errorf("got %v, want the connection of 7 that is open", events)
	}
	tries := 1
	for w.s.hunting() > 0 {
		w.s.hunt(w.now)
		tries++
	}
	n.end(3, "10.0.0.1:40002", "8.8.4.4:443")
	w.poll(w.sockets, "connect outbound ESTABLISHED 8.8.4.4:443", "close outbound CLOSE 8.8.4.4:443")
	if got := w.s.Stats(); tries != huntTries || got.Hunts != huntTries || w.s.hunting() != 0 {
		t.Errorf("got %d tries and %+v, want %d and no other hunt yet", tries, got, huntTries)
	}
	w.now = w.now.Add(huntPause)
	n.end(4, "10.0.0.1:40003", "8.8.4.4:443")
	w.poll(w.sockets, "connect outbound ESTABLISHED 8.8.4.4:443", "close outbound CLOSE 8.8.4.4:443")
	if w.s.hunting() == 0 {
		t.Error("no other hunt after a while")
	}
}
