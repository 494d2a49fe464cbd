package message

import (
	"cmp"
	"fmt"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
)

// Digest is what a person is told of many incidents at once.
type Digest struct {
	Severity event.Severity // the highest
	Headline string         // "52 incidents in one message: 1,204 alerts"
	Why      string
	Lines    []string // one for each incident
	More     string   // incidents that are not listed, may be empty
}

// OfDigest makes what is told of d. No line is longer than limit.
func OfDigest(d integration.Digest, limit int) Digest {
	m := Digest{
		Headline: fmt.Sprintf("%s incidents in one message: %s alerts", thousands(int64(len(d.Incidents)+d.More)), thousands(d.Alerts)),
		Why: fmt.Sprintf("More came from %s to %s than could be sent one by one.",
			Time(d.From), d.To.UTC().Format("15:04:05")),
	}
	for _, i := range d.Incidents {
		one := brief(i, cmp.Or(i.Alert, &event.Alert{}), limit)
		m.Severity = max(m.Severity, one.Severity)
		m.Lines = append(m.Lines, Cut(fmt.Sprintf("%s× %s", thousands(one.Count), one.Summary()), limit))
	}
	if d.More > 0 {
		m.More = fmt.Sprintf("%s more incidents are listed in the log of the function.", thousands(int64(d.More)))
	}
	return m
}

// Symbol stands for the severity.
func (m Digest) Symbol() string { return symbol(m.Severity) }
