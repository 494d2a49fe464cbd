package scenario

import (
	"context"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/view"
	"github.com/apss-sensor/apss/shared/event"
)

// sighting is what is known of one event, by where it was seen.
type sighting struct {
	id        string
	typ       event.Type
	severity  event.Severity
	path      string // of a file
	cmdline   string // of a process
	port      uint16 // of the other side
	about     string
	rules     []string
	happened  time.Time
	whileDown bool
	detail    string // what else it tells
	diff      bool   // it shows what changed
	writers   int    // candidates
	ancestors int    // of a process, its parent among them, that are more than a pid

	published, delivered, dead int
	publishedAt, deliveredAt   time.Time
	reason                     string // of the dead letter
}

// ended reports whether the event is nowhere any more.
func (s *sighting) ended() bool { return s.delivered > 0 || s.dead > 0 }

// maxSightings bounds a run of less than a minute, many times over.
const maxSightings = 200_000

// tracker follows every event of the run. Safe for concurrent use.
type tracker struct {
	mu       sync.Mutex
	byID     map[string]*sighting
	inOrder  []*sighting // as first seen
	changed  chan struct{}
	overflow int
}

func newTracker() *tracker {
	return &tracker{byID: make(map[string]*sighting), changed: make(chan struct{})}
}

func (t *tracker) published(e event.Raw, at time.Time) {
	t.see(e, func(s *sighting) {
		if s.published++; s.published == 1 {
			s.publishedAt = at
		}
	})
}

func (t *tracker) delivered(e event.Raw, at time.Time) {
	t.see(e, func(s *sighting) {
		if s.delivered++; s.delivered == 1 {
			s.deliveredAt = at
		}
	})
}

func (t *tracker) dead(e event.Raw, reason string) {
	t.see(e, func(s *sighting) { s.dead++; s.reason = reason })
}

func (t *tracker) see(raw event.Raw, change func(*sighting)) {
	id, err := raw.ID()
	if err != nil {
		return // the stand-in complains
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[id]
	if s == nil {
		if len(t.byID) >= maxSightings {
			t.overflow++
			return
		}
		s = read(id, raw)
		t.byID[id] = s
		t.inOrder = append(t.inOrder, s)
	}
	change(s)
	close(t.changed)
	t.changed = make(chan struct{})
}

func read(id string, raw event.Raw) *sighting {
	s := &sighting{id: id}
	e, err := event.Decode(raw)
	if err != nil {
		s.about = err.Error()
		return s
	}
	s.typ, s.severity, s.happened, s.about = e.Type, e.Severity, e.Timestamp, view.Essence(e)
	s.rules = e.Rules
	s.whileDown = e.Metadata["while_down"] == true
	s.detail = view.Detail(e)
	if e.File != nil {
		s.path, s.diff, s.writers = e.File.Path, e.File.Diff != "", len(e.File.Writers)
	}
	if e.Process != nil && e.Process.Parent != nil && e.Process.Parent.Exe != "" {
		s.ancestors = 1 + len(e.Process.Ancestors)
	}
	if e.Process != nil && e.File == nil && e.Network == nil {
		s.cmdline = e.Process.Cmdline
	}
	if e.Network != nil {
		s.port = e.Network.DstPort
	}
	return s
}

// first returns a copy of the first sighting that match takes.
func (t *tracker) first(match func(*sighting) bool) (sighting, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.inOrder {
		if match(s) {
			return *s, true
		}
	}
	return sighting{}, false
}

// wait waits until there is a sighting that match takes, or ctx ends.
func (t *tracker) wait(ctx context.Context, match func(*sighting) bool) (sighting, error) {
	for {
		t.mu.Lock()
		changed := t.changed
		t.mu.Unlock()
		if s, ok := t.first(match); ok {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return sighting{}, ctx.Err()
		}
	}
}

// all returns copies of all sightings, in the order in which they were first seen.
func (t *tracker) all() []sighting {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]sighting, 0, len(t.inOrder))
	for _, s := range t.inOrder {
		all = append(all, *s)
	}
	return all
}
