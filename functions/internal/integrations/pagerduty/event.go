package pagerduty

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/jsonapi"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// PagerDuty's limits, in characters and bytes (developer.pagerduty.com/docs/send-alert-event, Parameters;
// developer.pagerduty.com/docs/events-api-v2-overview, Size Limits: 512 KB, here taken as the smaller of its meanings).
const (
	maxSummary = 1024
	maxDedup   = 255
	maxSize    = 512_000
)

// maxText is how long a text may be before the whole is too large. With texts of it an ordinary event is a few KB.
const (
	maxText = 8000
	minText = 100
	maxName = 255 // of source, component, group, class: no limit is documented
)

// enqueued is the body of /v2/enqueue.
type enqueued struct {
	Key     string   `json:"routing_key"`
	Action  string   `json:"event_action"`
	Dedup   string   `json:"dedup_key"`
	Payload *payload `json:"payload,omitempty"`
	Links   []link   `json:"links,omitempty"`
	Client  string   `json:"client,omitempty"`

	// fill makes Payload and Links with texts of at most a length.
	fill func(e *enqueued, limit int)
}

// payload is in the PagerDuty Common Event Format (support.pagerduty.com/docs/pd-cef).
type payload struct {
	Summary   string            `json:"summary"`
	Source    string            `json:"source"`
	Severity  string            `json:"severity"`
	Timestamp string            `json:"timestamp,omitempty"`
	Component string            `json:"component,omitempty"`
	Group     string            `json:"group,omitempty"`
	Class     string            `json:"class,omitempty"`
	Details   map[string]string `json:"custom_details,omitempty"`
}

type link struct {
	Href string `json:"href"`
	Text string `json:"text,omitempty"`
}

// dedupKey is stable for a fingerprint. What is too long or strange to stand for itself is hashed.
func dedupKey(fingerprint string) string {
	key := "apss/" + fingerprint
	if len(key) > maxDedup || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		sum := sha256.Sum256([]byte(fingerprint))
		key = "apss/" + hex.EncodeToString(sum[:])
	}
	return key
}

// severity is PagerDuty's for ours.
func severity(s event.Severity) string {
	switch s {
	case event.Critical:
		return "critical"
	case event.High:
		return "error"
	case event.Medium:
		return "warning"
	default:
		return "info"
	}
}

// encode makes the body. When it is too large its texts are halved until it fits, and it says so.
func encode(e enqueued) ([]byte, error) {
	for limit := maxText; ; limit /= 2 {
		if e.fill != nil {
			e.fill(&e, limit)
			if limit < maxText {
				e.Payload.Details["cut"] = fmt.Sprintf("Texts are cut to %d characters: PagerDuty takes %d bytes in all.", limit, maxSize)
			}
		}
		body, err := jsonapi.Encode(e)
		if err != nil || len(body) <= maxSize {
			return body, err
		}
		if e.fill == nil || limit <= minText {
			return nil, &outcome.Error{Class: outcome.Permanent, Reason: fmt.Sprintf("the event has %d bytes, PagerDuty takes %d", len(body), maxSize)}
		}
	}
}

func trigger(i integration.Incident, key string) enqueued {
	return enqueued{Action: "trigger", Dedup: key, Client: "APSS", fill: func(e *enqueued, limit int) {
		m := message.Of(i, limit)
		where := map[string]string{}
		for _, f := range m.Where {
			where[f.Name] = f.Value
		}
		first := func(names ...string) string {
			for _, n := range names {
				if where[n] != "" {
					return message.Cut(where[n], maxName)
				}
			}
			return ""
		}
		e.Payload = &payload{
			Summary:   message.Cut(m.Summary(), maxSummary),
			Source:    first("Pod", "Workload", "Node", "Cluster"),
			Severity:  severity(m.Severity),
			Component: first("Workload", "Container"),
			Group:     message.Cut(strings.Trim(first("Cluster")+"/"+first("Namespace"), "/"), maxName),
			Class:     message.Cut(m.Rule, maxName),
			Details:   details(m),
		}
		if e.Payload.Source == "" { // which is required
			e.Payload.Source = "APSS"
		}
		if t := m.FirstSeen; !t.IsZero() && t.Year() > 0 && t.Year() < 10_000 {
			e.Payload.Timestamp = t.UTC().Format(time.RFC3339Nano)
		}
		e.Links = links(m)
	}}
}

// details are shown as a table, by name.
func details(m message.Incident) map[string]string {
	d := map[string]string{
		"description": m.Description, "seen": m.Seen(), "rule": strings.TrimSpace(m.Rule + " " + m.Title),
		"process": strings.Join(m.Tree, "\n"), "change_of_the_file": m.Diff,
		"technique": strings.TrimSpace(m.Technique + " " + m.Tactic), "what_to_do": strings.Join(m.Actions, "\n"),
		"it_may_be_harmless": strings.Join(m.Harmless, "\n"),
		"references":         strings.Join(m.References, "\n"),
	}
	if m.Test {
		d["test"] = message.TestNote
	}
	for _, list := range [][]message.Fact{m.Where, m.What, m.IDs} {
		for _, f := range list {
			d[strings.ReplaceAll(strings.ToLower(f.Name), " ", "_")] = f.Value
		}
	}
	for name, value := range d {
		if value == "" {
			delete(d, name)
		}
	}
	return d
}

func links(m message.Incident) []link {
	var list []link
	if m.TechniqueURL != "" {
		list = append(list, link{m.TechniqueURL, strings.TrimSpace(m.Technique + " " + m.Tactic)})
	}
	for _, r := range m.References {
		if message.IsLink(r) {
			list = append(list, link{Href: r}) // without a text it shows its own address
		}
	}
	return list
}

func digest(d integration.Digest, key string) enqueued {
	return enqueued{Action: "trigger", Dedup: key, Client: "APSS", fill: func(e *enqueued, limit int) {
		m := message.OfDigest(d, min(limit, maxName))
		e.Payload = &payload{
			Summary: message.Cut(m.Headline, maxSummary), Source: "APSS", Severity: severity(m.Severity),
			Details: map[string]string{"why": m.Why, "incidents": strings.Join(m.Lines, "\n")},
		}
		if m.More != "" {
			e.Payload.Details["more"] = m.More
		}
	}}
}
