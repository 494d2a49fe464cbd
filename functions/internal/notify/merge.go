package notify

import (
	"bytes"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

const (
	seenCollection      = "notify.seen."
	incidentsCollection = "notify.incidents."
)

// Merge is a [state.FallbackConfig]'s: what was counted of an incident in memory is added to what the others counted, so
// that nobody's count goes under; an alert that was dealt with stays so.
func Merge(collection string, there, base, mine state.Record) state.Record {
	switch {
	case strings.HasPrefix(collection, seenCollection) && bytes.Equal(there.Value, done):
		return there
	case !strings.HasPrefix(collection, incidentsCollection):
		return mine
	}
	theirs, own := parse(there), parse(mine)
	if theirs == nil || own == nil {
		return mine
	}
	merged := own.merge(theirs, parse(base))
	value, err := merged.value()
	if err != nil {
		return mine
	}
	// When something is due after all is found when it is looked at.
	return state.Record{Value: value, Due: earlier(there.Due, mine.Due), Expires: later(there.Expires, mine.Expires)}
}

// merge is r with what theirs has beside base, which is what of r is in there already.
func (r *record) merge(theirs, base *record) *record {
	if base == nil {
		base = new(record)
	}
	m := *r
	m.Count = theirs.Count + max(r.Count-base.Count, 0)
	m.Told = theirs.Told + max(r.Told-base.Told, 0)
	m.Alerts = theirs.Alerts + max(r.Alerts-base.Alerts, 0)
	m.Last, m.Heard, m.Sent = max(r.Last, theirs.Last), max(r.Heard, theirs.Heard), max(r.Sent, theirs.Sent)
	if m.First == 0 || theirs.First != 0 && theirs.First < m.First {
		m.First = theirs.First
	}
	if theirs.Severity > r.Severity {
		m.Severity, m.alert = theirs.Severity, theirs.alert
	}
	if theirs.Phase == open && r.Phase != open { // there is a message to go on with
		m.Phase, m.Ref = open, theirs.Ref
	}
	if m.Digest == 0 {
		m.Digest = theirs.Digest
	}
	if m.Turn == "" {
		m.Turn, m.Until, m.Ending = theirs.Turn, theirs.Until, theirs.Ending
	}
	return &m
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
