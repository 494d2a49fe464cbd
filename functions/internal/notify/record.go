package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
)

// phase is what the receiver knows of an incident.
type phase uint8

const (
	opening phase = iota + 1 // nothing; its first message is being sent, and its alerts are not counted yet
	waiting                  // nothing; its alerts wait for the digest
	listed                   // that it stood in a digest, which leaves nothing to change or to resolve
	open                     // its first message
)

// record is an incident as the store keeps it: a line of JSON, and after it the alert's JSON, which is not decoded for
// each repeat. Times are in nanoseconds of Unix.
type record struct {
	Phase    phase          `json:"p"`
	Ref      string         `json:"r,omitempty"`
	Severity event.Severity `json:"s"`           // of the alert
	Count    int64          `json:"c,omitempty"` // of events
	Told     int64          `json:"t,omitempty"` // how many of them the receiver was told of
	Alerts   int64          `json:"a,omitempty"` // since it was last told
	First    int64          `json:"f,omitempty"` // of the events
	Last     int64          `json:"l,omitempty"`
	Heard    int64          `json:"h,omitempty"` // when the last alert came here
	Sent     int64          `json:"m,omitempty"` // when the receiver last accepted a message
	Digest   int64          `json:"d,omitempty"` // when the digest goes out that it waits for
	Tries    int            `json:"n,omitempty"` // in vain, to send what is due
	Again    int64          `json:"g,omitempty"` // no try before

	// Turn is who sends a message of it right now; until Until nobody else does.
	Turn   string `json:"w,omitempty"`
	Until  int64  `json:"u,omitempty"`
	Ending bool   `json:"e,omitempty"` // it sends the incident's end: an alert begins a new one
	Over   bool   `json:"o,omitempty"` // it was said to be: its end is due without a time of quiet

	alert []byte // the first of those with the highest severity
}

// parse reads what append wrote; nil when there is none or it cannot be read, as by an older version: it begins anew.
func parse(r state.Record) *record {
	head, alert, ok := bytes.Cut(r.Value, []byte("\n"))
	if !ok {
		return nil
	}
	out := new(record)
	if json.Unmarshal(head, out) != nil || out.Phase < opening || out.Phase > open {
		return nil
	}
	out.alert = alert
	return out
}

// keep is r as it is stored.
func (r *record) keep(g Group) (state.Record, error) {
	value, err := r.value()
	return state.Record{Value: value, Due: r.due(g), Expires: r.expires(g)}, err
}

func (r *record) value() ([]byte, error) {
	head, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding an incident: %w", err)
	}
	return append(append(head, '\n'), r.alert...), nil
}

// act is what is to be done of an incident.
type act uint8

const (
	nothing act = iota
	digest      // list it
	tell        // send what was counted, or its first message
	resolve     // say that it is over
)

// due is when there is something to be done of r; zero: never.
func (r *record) due(g Group) time.Time {
	var at int64
	switch {
	case r.Phase == opening:
		return time.Time{}
	case r.Digest != 0:
		at = r.Digest
	case r.Count > r.Told:
		at = r.Sent + int64(g.Window)
	case r.Over:
		at = r.Heard
	case g.ResolveAfter > 0:
		at = r.Heard + int64(g.ResolveAfter)
	default:
		return time.Time{}
	}
	at = max(at, r.Again)
	if r.Turn != "" {
		at = max(at, r.Until)
	}
	return time.Unix(0, at)
}

// do is what is to be done of r at now.
func (r *record) do(now time.Time, g Group) act {
	at := r.due(g)
	switch {
	case at.IsZero() || at.After(now):
		return nothing
	case r.Digest != 0:
		return digest
	case r.Count > r.Told:
		return tell
	default:
		return resolve
	}
}

const (
	// keepUntold is how long what could not be sent is kept: as Pub/Sub keeps a message by default
	// (cloud.google.com/pubsub/docs/subscription-properties#message_retention).
	keepUntold = 7 * 24 * time.Hour
	// keepQuiet is how long an incident without an end is kept in mind.
	keepQuiet = 24 * time.Hour
)

func (r *record) expires(g Group) time.Time {
	switch {
	case r.Phase == opening: // its alerts come again
		return time.Unix(0, r.Until).Add(time.Minute)
	case r.Count > r.Told || g.ResolveAfter > 0:
		return time.Unix(0, r.Heard).Add(g.ResolveAfter + keepUntold)
	default:
		return time.Unix(0, r.Heard).Add(keepQuiet)
	}
}

func (r *record) busy(now time.Time) bool { return r.Turn != "" && now.UnixNano() < r.Until }

// take gives owner the turn.
func (r *record) take(now time.Time, owner string, lease time.Duration) {
	r.Turn, r.Until = owner, now.Add(lease).UnixNano()
}

func (r *record) leave(owner string) {
	if r.Turn == owner {
		r.Turn, r.Until, r.Ending = "", 0, false
	}
}

// step is what an alert comes to.
type step uint8

const (
	counted step = iota // it is in the record
	send                // the caller has the turn and sends it at once
	hold                // another has the turn: look again later
)

// join is what a comes to in the incident r, nil when there is none, and the record afterwards.
func (r *record) join(a *event.Alert, now time.Time, owner string, lease time.Duration) (*record, step) {
	if r == nil || r.Phase == opening && !r.busy(now) {
		r = &record{Phase: opening}
		r.take(now, owner, lease)
		return r, send
	}
	// Who waits for a digest waits with a higher severity as well, but for the highest.
	urgent := a.Severity > r.Severity && (r.Phase != waiting || a.Severity == event.Critical)
	if r.Phase == opening || urgent || r.Ending {
		if r.busy(now) {
			return r, hold
		}
		r.Ending = false
		if urgent {
			r.take(now, owner, lease)
			return r, send
		}
	}
	r.count(a, now)
	return r, counted
}

// count adds a to r.
func (r *record) count(a *event.Alert, now time.Time) {
	r.Count += weight(a)
	r.Alerts++
	r.Heard, r.Over = now.UnixNano(), false
	first, last := seenBetween(a, now)
	if r.First == 0 || first < r.First {
		r.First = first
	}
	r.Last = max(r.Last, last)
	if len(r.alert) == 0 || a.Severity > r.Severity {
		r.Severity, r.alert = a.Severity, shorten(a)
	}
}

// told notes that the receiver accepted a message of what r was when it was sent.
func (r *record) told(sent *record, now time.Time) {
	r.Told = max(r.Told, sent.Count)
	r.Alerts = max(r.Alerts-sent.Alerts, 0)
	r.Sent, r.Digest, r.Tries, r.Again = now.UnixNano(), 0, 0, 0
}

// list puts r into the digest that goes out at a time.
func (r *record) list(at time.Time) {
	if r.Phase == opening {
		r.Phase = waiting
	}
	if r.Digest == 0 {
		r.Digest = at.UnixNano()
	}
}

// lose notes a try in vain; at is when the receiver may be tried again, if it is known.
func (r *record) lose(now, at time.Time) {
	if at.IsZero() {
		r.Tries++
		at = now.Add(min(time.Second<<min(r.Tries, 20), longestBackoff))
	}
	r.Again = at.UnixNano()
}

const (
	longestBackoff = 5 * time.Minute
	// mostTries in vain, while other messages pass, take more than an hour; then the message counts as refused.
	mostTries = 20
)

// mostEvents is what one alert may stand for, so that no sum of them overflows.
const mostEvents = 1 << 32

// weight is how many events a tells of that no alert told of before. The Count of an agent's summary is the whole window's,
// the first alert among them.
func weight(a *event.Alert) int64 {
	n := a.Count
	if a.Metadata.Summary {
		n = a.Metadata.Suppressed
	}
	return min(max(int64(n), 1), mostEvents)
}

// seenBetween is when a's events were, as far as it says; now where it says nothing, or what nanoseconds of Unix cannot hold.
func seenBetween(a *event.Alert, now time.Time) (first, last int64) {
	nanos := func(at time.Time) int64 {
		if at.IsZero() {
			at = a.Timestamp
		}
		if y := at.Year(); y < 1970 || y > 2200 {
			at = now
		}
		return at.UnixNano()
	}
	return nanos(a.FirstSeen), nanos(a.LastSeen)
}

const (
	// maxKept is what a record keeps of an alert. Firestore's limit of a document would allow more; a digest's would not.
	maxKept = 16 << 10
	cut     = 2 << 10 // of a text of an alert that is too large
)

// shorten is a as a record keeps it. Of one that is too large the event goes and long texts are cut, and it says so.
func shorten(a *event.Alert) []byte {
	if whole := a.AppendJSON(nil); len(whole) <= maxKept {
		return whole
	}
	small := event.Alert{
		ID: a.ID, Timestamp: a.Timestamp, Severity: a.Severity,
		RuleID: clip(a.RuleID, cut/4), RuleName: clip(a.RuleName, cut/4),
		Description: clip(a.Description, cut) + " [the alert was too large: its event and more are left out]",
		Cluster:     clip(a.Cluster, cut/4), NodeName: clip(a.NodeName, cut/4), PodName: clip(a.PodName, cut/4),
		PodNamespace: clip(a.PodNamespace, cut/4), Workload: clip(a.Workload, cut/4),
		MITRETactic: clip(a.MITRETactic, cut/4), MITREID: clip(a.MITREID, cut/4),
		Fingerprint: clip(a.Fingerprint, cut/4), Count: a.Count, FirstSeen: a.FirstSeen, LastSeen: a.LastSeen,
		Metadata: event.AlertMetadata{Source: clip(a.Metadata.Source, cut/4)},
	}
	for _, action := range a.Metadata.RecommendedActions[:min(3, len(a.Metadata.RecommendedActions))] {
		small.Metadata.RecommendedActions = append(small.Metadata.RecommendedActions, clip(action, cut/4))
	}
	return small.AppendJSON(nil)
}

// clip is the beginning of s, at most n bytes and an ellipsis.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
