package ledger

import "sync"

// Incidents keeps the books of a receiver for people, who are told of incidents and how often something was seen, not of
// each alert: published = told + dead-lettered + waiting, in events that alerts stand for, for each fingerprint.
//
// A digest does not name the fingerprints that it stands for: what it says is taken off the sums, as [Incidents.Listed] was
// told, and duplicates of digests hide what is missing.
//
// It knows at most 100,000 fingerprints; what is about others is counted as Overflow and nothing else. Safe for concurrent
// use.
type Incidents struct {
	mu       sync.Mutex
	byPrint  map[string]*incident
	overflow int64
	listed   IncidentTotals // of digests: Incidents and Told
}

const maxIncidents = 100_000

type incident struct {
	published, dead int64
	told            int64            // of messages that are superseded
	messages        map[string]int64 // how often each says that it was seen
}

// IncidentTotals are sums over incidents.
type IncidentTotals struct {
	Incidents int64 // fingerprints published
	Published int64 // events
	Told      int64
	Dead      int64
	Waiting   int64 // published, and neither told nor dead yet: most are repeats whose window is open
	Untold    int64 // incidents of which nothing was told and nothing is dead
	Over      int64 // told more often than published: a duplicate, or the observers of the topic are a moment behind
	Doubled   int64 // incidents with more than one message
	Overflow  int64
}

// Published notes that an alert that stands for n events was seen on the topic.
func (i *Incidents) Published(fingerprint string, n int64) {
	i.note(fingerprint, func(in *incident) { in.published += n })
}

// Dead notes that one was seen on the dead-letter topic.
func (i *Incidents) Dead(fingerprint string, n int64) {
	i.note(fingerprint, func(in *incident) { in.dead += n })
}

// Told notes what a message of the receiver, by its id, says now. A count that is smaller than before is one that was
// begun anew, and adds to it.
func (i *Incidents) Told(fingerprint, message string, n int64) {
	i.note(fingerprint, func(in *incident) {
		if in.messages == nil {
			in.messages = map[string]int64{}
		}
		if before := in.messages[message]; n < before {
			in.told += before
		}
		in.messages[message] = n
	})
}

// Listed notes a digest of a number of incidents and alerts.
func (i *Incidents) Listed(incidents, alerts int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listed.Incidents += incidents
	i.listed.Told += alerts
}

func (i *Incidents) note(fingerprint string, change func(*incident)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	in := i.byPrint[fingerprint]
	if in == nil {
		if len(i.byPrint) >= maxIncidents {
			i.overflow++
			return
		}
		if i.byPrint == nil {
			i.byPrint = map[string]*incident{}
		}
		in = new(incident)
		i.byPrint[fingerprint] = in
	}
	change(in)
}

// Totals returns the sums of this moment.
func (i *Incidents) Totals() IncidentTotals {
	i.mu.Lock()
	defer i.mu.Unlock()
	t := IncidentTotals{Overflow: i.overflow}
	for _, in := range i.byPrint {
		told := in.told
		for _, n := range in.messages {
			told += n
		}
		t.Published += in.published
		t.Told += told
		t.Dead += in.dead
		t.Waiting += max(in.published-told-in.dead, 0)
		t.Over += max(told+in.dead-in.published, 0)
		if in.published > 0 {
			t.Incidents++
		}
		if in.published > 0 && told == 0 && in.dead == 0 {
			t.Untold++
		}
		if len(in.messages) > 1 {
			t.Doubled++
		}
	}
	// A digest may stand for more than still waits: then part of it was told otherwise meanwhile.
	told := min(i.listed.Told, t.Waiting)
	t.Told += i.listed.Told
	t.Waiting -= told
	t.Over += i.listed.Told - told
	t.Untold -= min(i.listed.Incidents, t.Untold)
	return t
}
