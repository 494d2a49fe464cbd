package network

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// Began is a program that a process ran lately.
type Began struct {
	*event.Process

	At        time.Time // when it ran the program
	Container string    // the id of the one it runs in; empty: none, or unknown
}

// How sure a candidate is, in the manner of the file sensor's writers: who did the like before may be outdone by who
// begins now, and nobody is ever certain.
const (
	sameService   = 0.6 // had a connection to the same service before, alone
	sameAmong     = 0.3 // the same, with others
	namedAtOnce   = 0.5 // began within the second before; its command line has the address
	named         = 0.4 // began within the minute before; its command line has the address
	begunAtOnce   = 0.2 // began within the second before
	atOnce        = time.Second
	lately        = time.Minute
	maxCandidates = 4
	// maxServices bounds half of the services whose clients are remembered: about 200 bytes each.
	maxServices = 1024
)

// peer is a service that somebody had a connection to.
type peer struct {
	protocol protocol
	remote   netip.AddrPort
}

// clients remembers who had connections to a service, the services of longest ago forgotten first.
type clients struct{ now, before map[peer][]*event.Process }

func (c *clients) add(to peer, p *event.Process) {
	known := c.of(to)
	same := func(q *event.Process) bool { return q.PID == p.PID && q.StartTime.Equal(p.StartTime) }
	if i := slices.IndexFunc(known, same); i >= 0 {
		known = slices.Delete(slices.Clone(known), i, i+1)
	}
	if len(c.now) >= maxServices {
		c.now, c.before = nil, c.now
	}
	if c.now == nil {
		c.now = make(map[peer][]*event.Process)
	}
	known = append([]*event.Process{p}, known...) // the last first
	c.now[to] = known[:min(len(known), maxCandidates)]
}

func (c *clients) of(to peer) []*event.Process {
	if known, found := c.now[to]; found {
		return known
	}
	return c.before[to]
}

// candidates are processes that may have had the outbound connection k, which nobody was seen to hold.
func (n *namespace) candidates(k key, now time.Time) []event.Writer {
	var out []event.Writer
	add := func(p *event.Process, confidence float64) {
		if p.PID == n.config.Self {
			return
		}
		if i := slices.IndexFunc(out, func(w event.Writer) bool { return w.PID == p.PID }); i >= 0 {
			out[i].Confidence = max(out[i].Confidence, confidence)
			return
		}
		out = append(out, event.Writer{PID: p.PID, Exe: p.Exe, Confidence: confidence})
	}
	alive := slices.DeleteFunc(slices.Clone(n.clients.of(peer{k.protocol, k.remote})), func(p *event.Process) bool { return !n.lives(p) })
	for _, p := range alive {
		if len(alive) == 1 {
			add(p, sameService)
		} else {
			add(p, sameAmong)
		}
	}
	address := k.remote.Addr().String()
	for _, b := range n.lately() {
		age := now.Sub(b.At)
		if id, known := n.members[b.PID]; known && id != n.id || !known && !n.home() || age < -atOnce || age > lately {
			continue
		}
		switch hit := namesAddress(b.Cmdline, address); {
		case hit && age <= atOnce:
			add(b.Process, namedAtOnce)
		case hit:
			add(b.Process, named)
		case age <= atOnce:
			add(b.Process, begunAtOnce)
		}
	}
	slices.SortStableFunc(out, func(a, b event.Writer) int { return cmp.Compare(b.Confidence, a.Confidence) })
	return out[:min(len(out), maxCandidates)]
}

// lives reports whether p is that process still, or was a moment ago.
func (s *Sensor) lives(p *event.Process) bool {
	if s.config.Process == nil {
		return true
	}
	now := s.config.Process(p.PID)
	return now != nil && now.StartTime.Equal(p.StartTime)
}

// lately asks once in a poll which programs began.
func (s *Sensor) lately() []Began {
	if s.config.Recent != nil && !s.asked {
		s.recent, s.asked = s.config.Recent(), true
	}
	return s.recent
}

// namesAddress reports whether a command line has the address as a whole: 10.0.0.1 is not in 110.0.0.12.
func namesAddress(line, address string) bool {
	digit := func(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' }
	for at := 0; ; {
		n := strings.Index(line[at:], address)
		if n < 0 {
			return false
		}
		start, end := at+n, at+n+len(address)
		before := start > 0 && (digit(line[start-1]) || line[start-1] == '.' && start > 1 && digit(line[start-2]))
		after := end < len(line) && (digit(line[end]) || line[end] == '.' && end+1 < len(line) && digit(line[end+1]))
		if !before && !after {
			return true
		}
		at = start + 1
	}
}
