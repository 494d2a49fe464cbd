package integrationtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// aMessage is a way to tell a receiver of an alert.
type aMessage struct {
	name string
	send func(ctx context.Context, i integration.Integration, a *event.Alert) error
}

// messages are what the integration can tell. An incident that is repeated or resolved was opened at a receiver that
// accepted it.
func (s Subject) messages(t *testing.T, probe integration.Integration) []aMessage {
	t.Helper()
	var list []aMessage
	if _, ok := probe.(integration.Notifier); ok {
		list = append(list, aMessage{"SendAlert", func(ctx context.Context, i integration.Integration, a *event.Alert) error {
			return i.(integration.Notifier).SendAlert(ctx, a)
		}})
	}
	_, people := probe.(integration.IncidentNotifier)
	if s.Inspect == nil && (people || len(list) > 0) {
		t.Fatal("the subject takes alerts and has no Inspect")
	}
	if !people {
		return list
	}
	url, stop := serve(s.accept())
	defer stop()
	opener := s.New(t, url, slog.New(slog.DiscardHandler)).(integration.IncidentNotifier)
	ref, err := opener.SendIncident(t.Context(), Incident(integration.Opened, "", eventtest.Alert()))
	if err != nil {
		t.Fatalf("opening an incident at a receiver that accepts it: %v", err)
	}
	for name, i := range map[string]struct {
		change integration.Change
		ref    string
	}{"opened": {integration.Opened, ""}, "repeated": {integration.Repeated, ref}, "resolved": {integration.Resolved, ref}} {
		list = append(list, aMessage{"SendIncident/" + name, func(ctx context.Context, n integration.Integration, a *event.Alert) error {
			_, err := n.(integration.IncidentNotifier).SendIncident(ctx, Incident(i.change, i.ref, a))
			return err
		}})
	}
	list = append(list, aMessage{"SendDigest", func(ctx context.Context, n integration.Integration, a *event.Alert) error {
		return n.(integration.IncidentNotifier).SendDigest(ctx, Digest(a, integration.MaxDigest+10))
	}})
	slices.SortFunc(list, func(a, b aMessage) int { return strings.Compare(a.name, b.name) })
	return list
}

// canonical are messages about an ordinary alert, the same one for each call.
func canonical(messages []aMessage) []operation {
	list := make([]operation, 0, len(messages))
	a := eventtest.Alert()
	for _, m := range messages {
		list = append(list, operation{m.name, func(ctx context.Context, i integration.Integration) error { return m.send(ctx, i, a) }})
	}
	return list
}

// message: whatever is in an alert, the receiver gets what it documents, and the same each time.
func (s Subject) message(t *testing.T, m aMessage) {
	t.Helper()
	for name, a := range Alerts() {
		t.Run(name, func(t *testing.T) {
			before := a.AppendJSON(nil)
			first, second := s.sent(t, m, a), s.sent(t, m, a)
			if len(first) == 0 {
				t.Error("nothing was sent")
			}
			if diff := cmp.Diff(first, second); diff != "" {
				t.Errorf("the same message is sent in two ways:\n%s", diff)
			}
			if !bytes.Equal(before, a.AppendJSON(nil)) {
				t.Error("the alert was changed")
			}
		})
	}
}

// sent sends a by m to a receiver that accepts it, and returns the requests' bodies.
func (s Subject) sent(t *testing.T, m aMessage, a *event.Alert) (bodies []string) {
	t.Helper()
	var mu sync.Mutex
	accept := s.accept()
	url, stop := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err == nil && r.Header.Get("X-Injected") != "" {
			err = errors.New("a header was injected")
		}
		if err == nil {
			err = s.Inspect(r, body)
		}
		if err != nil {
			t.Errorf("%s: %v", r.Method, err)
		}
		bodies = append(bodies, string(body))
		r.Body = io.NopCloser(bytes.NewReader(body))
		accept(w, r)
	}))
	defer stop()
	if err := m.send(t.Context(), s.New(t, url, slog.New(slog.DiscardHandler)), a); err != nil {
		t.Error(err)
	}
	return bodies
}

// Incident is one of three events of a.
func Incident(c integration.Change, ref string, a *event.Alert) integration.Incident {
	return integration.Incident{
		Change: c, Ref: ref, Alert: a, Fingerprint: a.Fingerprint, Count: 3, FirstSeen: a.FirstSeen, LastSeen: a.LastSeen,
	}
}

// Digest lists n incidents of a, and says that there are twelve more.
func Digest(a *event.Alert, n int) integration.Digest {
	d := integration.Digest{From: eventtest.Time(), To: eventtest.Time().Add(time.Minute), More: 12, Alerts: int64(n) * 5}
	for range n {
		d.Incidents = append(d.Incidents, Incident(integration.Opened, "", a))
	}
	return d
}

// Hostile are strings that somebody else's process, file, image or rule may put into an alert.
func Hostile() []string {
	return []string{
		"<!channel> <!here> <@U012AB3CD> <!subteam^S1|x> <https://evil.example|https://bank.example> *b* _i_ ~s~ `c` ```\nblock\n``` &lt;!channel&gt;",
		"@everyone @here <@&1234> <@!99> <#42> [https://bank.example](https://evil.example) <https://evil.example> ||spoiler|| # head\n> quote\n```",
		"<script>alert(1)</script><img src=//evil.example/x onerror=alert(1)><a href=\"https://evil.example\">bank</a>",
		"line\r\nX-Injected: 1\r\n\r\nbody\nSubject: forged\n.\nQUIT",
		"\x00\x01\x1b[2J\x1b]8;;http://evil.example\x07\u0085\u2028\u2029",
		"gpj.\u202egnp.exe \u2066\u2069\u200b\u200d\ufeff\u00ad\u3164\U000e0041",
		"z" + strings.Repeat("\u0301\u0302", 500),
		`"}],"routing_key":"forged","blocks":[{"type":"header"}]`, `{{.}}{{printf "%s"}}${jndi:ldap://x}%s%n%00%0a`,
		"\xff\xfe\xed\xa0\x80 invalid", strings.Repeat("😀", 5000), strings.Repeat("&<>`*|\\\"", 5000),
		strings.Repeat("A", 1<<20), strings.Repeat("long words and lines\n", 50_000),
	}
}

// Alerts are alerts by name: ordinary ones, ones that lack everything, and ones with Hostile in each string.
func Alerts() map[string]*event.Alert {
	with := func(e *event.Event) *event.Alert {
		a := eventtest.Alert()
		a.Event = e
		return a
	}
	many := eventtest.Alert()
	many.Count = math.MaxInt
	for range 1000 {
		p := many.Event.Process
		p.Ancestors = append(p.Ancestors, event.Ancestor{PID: 1, Exe: "/bin/sh", Cmdline: strings.Repeat("sh ", 100)})
		many.EventIDs = append(many.EventIDs, event.NewID())
		many.Metadata.RecommendedActions = append(many.Metadata.RecommendedActions, strings.Repeat("Do. ", 100))
		many.Metadata.FalsePositives = append(many.Metadata.FalsePositives, strings.Repeat("A test. ", 100))
		many.Metadata.References = append(many.Metadata.References, "https://example.com/"+strings.Repeat("x", 300))
	}
	alerts := map[string]*event.Alert{
		"connect": with(eventtest.Connect()), "exec": with(eventtest.Exec()), "file": with(eventtest.FileModify()),
		"no event": with(nil), "empty": {}, "many": many,
		"far times": {FirstSeen: time.Unix(1<<40, 0), LastSeen: time.Unix(-1<<40, 0), Timestamp: time.Time{}},
	}
	for i, h := range Hostile() {
		a := alertOf(h[:min(len(h), 64<<10)])
		a.Description = h
		alerts[fmt.Sprintf("hostile %d", i)] = a
	}
	return alerts
}

// alertOf is an alert whose every string is s.
func alertOf(s string) *event.Alert {
	ancestor := event.Ancestor{PID: 1, Exe: s, Cmdline: s}
	return &event.Alert{
		ID: s, RuleID: s, RuleName: s, Description: s, Severity: event.Critical, Timestamp: eventtest.Time(),
		Cluster: s, NodeName: s, PodName: s, PodNamespace: s, Workload: s, MITRETactic: s, MITREID: s,
		EventIDs: []string{s, s}, Fingerprint: s, Count: 3, FirstSeen: eventtest.Time(), LastSeen: eventtest.Time(),
		Event: &event.Event{
			ID: s, AgentID: s, Type: event.Type(s), Cluster: s, NodeName: s, PodName: s, PodNamespace: s, Workload: s,
			Container: &event.Container{ID: s, Name: s, Image: s},
			Process: &event.Process{PID: 1, Exe: s, Cmdline: s, Args: []string{s}, Cwd: s, User: s, Capture: event.Capture(s),
				Parent: &ancestor, Ancestors: []event.Ancestor{ancestor, ancestor}},
			File: &event.File{Path: s, Operation: s, FileState: event.FileState{Mode: s, SHA256: s},
				Previous: &event.FileState{Mode: s, SHA256: s}, Diff: s, Writers: []event.Writer{{PID: 1, Exe: s, Confidence: math.NaN()}}},
			Network: &event.Network{Protocol: s, Direction: s, SrcIP: s, DstIP: s, State: s,
				IsExternal: true, IsSuspiciousPort: true, BytesSent: 1, BytesReceived: 1},
			Rules: []string{s}, Metadata: map[string]any{s: s},
		},
		Metadata: event.AlertMetadata{Source: s, RecommendedActions: []string{s, s}, FalsePositives: []string{s}, References: []string{s, "https://" + s}},
	}
}
