package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/outcome"
)

// Status is how an integration, or everything, is.
type Status string

// The statuses, from good to bad.
const (
	Disabled Status = "disabled" // it is in the document and switched off
	Healthy  Status = "healthy"
	Warning  Status = "warning" // it delivers, or may again by itself; somebody should look
	Failing  Status = "failing" // it does not deliver
)

// rank orders statuses.
func (s Status) rank() int64 {
	return int64(slices.Index([]Status{Disabled, Healthy, Warning, Failing}, s))
}

// facts are what the witnesses say of an integration.
type facts struct {
	enabled bool
	check   checkRecord
	tally   tally
	waiting Waiting
	canary  map[string]canaryRecord // by topic; nil: it did not opt in
	// canaryEvery is how often one is sent, canarySince when that began.
	canaryEvery time.Duration
	canarySince time.Time
}

const (
	// checksInVain after which a receiver counts as down: one may be a blink.
	checksInVain = 2
	// waitsLong is what no burst explains.
	waitsLong = 10 * time.Minute
	// canariesMissed after which the way counts as broken.
	canariesMissed = 3
)

// judge makes a status of facts, with the reasons for it.
func judge(now time.Time, f facts) (Status, []string) {
	if !f.enabled {
		return Disabled, []string{"it is switched off in the document"}
	}
	status := Healthy
	var reasons []string
	say := func(s Status, format string, args ...any) {
		reasons = append(reasons, fmt.Sprintf(format, args...))
		if s.rank() > status.rank() {
			status = s
		}
	}
	switch c := f.check; {
	case c.At.IsZero():
		say(Warning, "it was not checked yet")
	case c.OK:
	case c.Failures >= checksInVain, c.Class == outcome.Auth.String(), c.Class == outcome.Permanent.String():
		say(Failing, "the receiver fails its check, %s: %s", times(c.Failures), c.Error)
	default:
		say(Warning, "the receiver failed its last check: %s", c.Error)
	}
	hour := f.tally.hour(now)
	if b, open := f.tally.worst(now); open {
		s := Failing
		if b.State != "open" {
			s = Warning
		}
		next := "the next call finds out"
		if wait := b.Retry.Sub(now); wait > 0 {
			next = "the next call is in " + wait.Round(time.Second).String()
		}
		say(s, "it is not called for now: %s; %s", b.Reason, next)
	} else if len(hour.Failures) > 0 && f.tally.LastFailure.After(f.tally.LastSuccess) {
		say(Warning, "the last call failed: %s", f.tally.LastError)
	}
	if len(hour.Failures) > 0 && hour.Accepted == 0 {
		say(Warning, "nothing was accepted in the last hour, and calls failed (%s)", classes(hour.Failures))
	}
	if w := f.waiting; w.Messages > 0 && w.Oldest > waitsLong {
		say(Warning, "%d messages wait for it, the oldest for %s", w.Messages, w.Oldest.Round(time.Second))
	}
	if hour.Dead > 0 {
		say(Warning, "%d went to the dead letters in the last hour; apssctl dlq list says why", hour.Dead)
	}
	for _, topic := range slices.Sorted(maps.Keys(f.canary)) {
		c, late := f.canary[topic], canariesMissed*f.canaryEvery
		if c.Arrived.IsZero() && now.Sub(f.canarySince) > late {
			say(Failing, "no canary of %s has come out", topic)
		} else if age := now.Sub(c.Sent); !c.Arrived.IsZero() && age > late {
			say(Failing, "the last canary of %s that came out was sent %s ago", topic, age.Round(time.Second))
		}
	}
	return status, reasons
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times in a row", n)
}

// classes are failures by class, for a person.
func classes(failures map[string]int64) string {
	parts := make([]string, 0, len(failures))
	for _, class := range slices.Sorted(maps.Keys(failures)) {
		parts = append(parts, fmt.Sprintf("%s %d", class, failures[class]))
	}
	return strings.Join(parts, ", ")
}
