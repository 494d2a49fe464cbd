// Package suppression counts the repeats of an alert instead of telling them again.
//
// The first alert of a fingerprint passes and opens a window. Until the window closes, further ones are counted. When it
// closes and some were held back, a summary goes out: their count, first and last time, and the newest event ids. Then
// the next window opens at once, so that an incident that goes on is one summary for each window, and none when it
// rested for a whole one.
//
// # Promises
//
//   - No count is lost: the matches told are the alerts that passed plus the sum of Suppressed of the summaries, at any
//     time at which no window is open. A fingerprint that has to give way to another, the one whose window opened first,
//     emits its summary as it goes; so does every one at Close.
//   - An alert that is more severe than all before it in its window passes at once.
//   - What is kept of a fingerprint is bounded: of the repeats the newest [MaxEventIDs] ids, and the outline of the first
//     one's event.
//
// # Limits
//
// Windows live in memory: a killed agent loses the counts of those that are open, and tells the next repeat as new. The
// events themselves are not held back and name their rules.
package suppression

import (
	"slices"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// MaxEventIDs bounds the event ids of a summary: the newest are kept.
const MaxEventIDs = 10

// MaxFingerprints is how many windows are open at the same time unless Config says otherwise.
const MaxFingerprints = 10_000

// Config says how to hold back.
type Config struct {
	// Window is the time from an alert to the summary of its repeats; 0 holds nothing back.
	Window time.Duration
	// MaxFingerprints is how many windows may be open; 0 is [MaxFingerprints].
	MaxFingerprints int
}

// Stats count what was done since the start.
type Stats struct {
	Open       int    // windows now
	Passed     uint64 // alerts that went out at once
	Suppressed uint64 // alerts that were held back
	Summaries  uint64
	Evicted    uint64 // windows that had to close early to make room
}

// Suppressor holds the open windows. Safe for concurrent use. It does not watch the clock: its callers say what time it
// is, and no time may be before one that was said already.
type Suppressor struct {
	config Config

	mu     sync.Mutex
	byID   map[string]*window
	ring   window // ring.next opened first: it closes first too, as all windows are as long
	closed bool
	stats  Stats
}

// window is one fingerprint's.
type window struct {
	fingerprint string
	opened      time.Time
	severity    event.Severity // the highest that passed
	first, last time.Time      // of the events
	count       int            // of all matches, those that passed too
	suppressed  int
	repeat      *event.Alert // the first that was held back: the summary is made of it
	prev, next  *window
}

// New returns a Suppressor without windows.
func New(c Config) *Suppressor {
	if c.MaxFingerprints <= 0 {
		c.MaxFingerprints = MaxFingerprints
	}
	s := &Suppressor{config: c, byID: map[string]*window{}}
	s.ring.prev, s.ring.next = &s.ring, &s.ring
	return s
}

// Add takes an alert and appends to out what is to be told now: the alert itself unless it is held back, and the
// summaries of windows that end by it. The alert is the Suppressor's from then on unless it is in out.
func (s *Suppressor) Add(now time.Time, a *event.Alert, out []*event.Alert) []*event.Alert {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config.Window <= 0 || s.closed {
		s.stats.Passed++
		return append(out, a)
	}
	w := s.byID[a.Fingerprint]
	if w != nil && s.due(w, now) { // its closing is a moment behind
		out = s.shut(w, now, out)
		w = s.byID[a.Fingerprint]
	}
	if w == nil {
		for len(s.byID) >= s.config.MaxFingerprints {
			s.stats.Evicted++
			out = s.forget(s.ring.next, out)
		}
		w = s.open(&window{fingerprint: a.Fingerprint, severity: a.Severity}, now)
		w.add(a)
		s.stats.Passed++
		return append(out, a)
	}
	w.add(a)
	if a.Severity > w.severity {
		w.severity = a.Severity
		s.stats.Passed++
		return append(out, a)
	}
	s.stats.Suppressed++
	w.hold(a)
	return out
}

// Due closes the windows whose time has come, appends their summaries to out, and returns when to call it again; the
// zero time when no window is open.
func (s *Suppressor) Due(now time.Time, out []*event.Alert) ([]*event.Alert, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := s.ring.next; w != &s.ring && s.due(w, now); w = s.ring.next {
		out = s.shut(w, now, out)
	}
	if s.ring.next == &s.ring {
		return out, time.Time{}
	}
	return out, s.ring.next.opened.Add(s.config.Window)
}

// Close closes all windows and appends their summaries to out. What is added later passes.
func (s *Suppressor) Close(out []*event.Alert) []*event.Alert {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for s.ring.next != &s.ring {
		out = s.forget(s.ring.next, out)
	}
	return out
}

// Stats returns the counters.
func (s *Suppressor) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Open = len(s.byID)
	return st
}

func (s *Suppressor) due(w *window, now time.Time) bool { return now.Sub(w.opened) >= s.config.Window }

// open puts w at the end of the ring.
func (s *Suppressor) open(w *window, now time.Time) *window {
	w.opened = now
	w.prev, w.next = s.ring.prev, &s.ring
	w.prev.next, w.next.prev = w, w
	s.byID[w.fingerprint] = w
	return w
}

// shut ends a window. When there were repeats, the next one opens.
func (s *Suppressor) shut(w *window, now time.Time, out []*event.Alert) []*event.Alert {
	again := w.suppressed > 0
	out = s.forget(w, out)
	if again {
		s.open(&window{fingerprint: w.fingerprint, severity: w.severity}, now)
	}
	return out
}

// forget takes a window away and appends the summary of what it held back.
func (s *Suppressor) forget(w *window, out []*event.Alert) []*event.Alert {
	w.prev.next, w.next.prev = w.next, w.prev
	delete(s.byID, w.fingerprint)
	if w.suppressed == 0 {
		return out
	}
	s.stats.Summaries++
	return append(out, w.summary())
}

// add counts a.
func (w *window) add(a *event.Alert) {
	w.count += a.Count
	if w.first.IsZero() || a.FirstSeen.Before(w.first) {
		w.first = a.FirstSeen
	}
	if a.LastSeen.After(w.last) {
		w.last = a.LastSeen
	}
}

// hold keeps of a what its summary needs.
func (w *window) hold(a *event.Alert) {
	w.suppressed += a.Count
	if w.repeat == nil {
		w.repeat = a
		a.EventIDs = slices.Clone(newest(a.EventIDs)) // the caller's may be long
		a.Event = outline(a.Event)
		return
	}
	w.repeat.EventIDs = append(w.repeat.EventIDs, newest(a.EventIDs)...)
	if extra := len(w.repeat.EventIDs) - MaxEventIDs; extra > 0 {
		w.repeat.EventIDs = slices.Delete(w.repeat.EventIDs, 0, extra)
	}
}

func newest(ids []string) []string { return ids[max(0, len(ids)-MaxEventIDs):] }

// summary makes the alert about the repeats.
func (w *window) summary() *event.Alert {
	a := w.repeat
	a.Severity = max(a.Severity, w.severity)
	a.Timestamp, a.FirstSeen, a.LastSeen = w.last, w.first, w.last
	a.Count = w.count
	a.Metadata.Summary, a.Metadata.Suppressed = true, w.suppressed
	return a
}

// outline is e without what may be large: ten thousand of them are kept. It is a valid event with e's id.
func outline(e *event.Event) *event.Event {
	if e == nil {
		return nil
	}
	o := *e
	o.Metadata, o.Extra = nil, nil
	if e.Process != nil {
		p := *e.Process
		p.Args, p.Ancestors, p.Extra = nil, nil, nil
		o.Process = &p
	}
	if e.File != nil {
		f := *e.File
		f.Diff, f.Extra = "", nil
		f.Writers = f.Writers[:min(len(f.Writers), 1)]
		o.File = &f
	}
	return &o
}
