package notify

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// message is what a receiver was told.
type message struct {
	kind     kind
	at       time.Time
	alert    *event.Alert         // of a program
	incident integration.Incident // of people
	digest   integration.Digest
}

// inbox is what a fake receiver accepted, and how it answers.
type inbox struct {
	mu       sync.Mutex
	answer   func(ctx context.Context, m message) *outcome.Error // nil: it accepts
	calls    int
	under    int // way
	most     int // under way at once
	messages []message
}

func (b *inbox) take(ctx context.Context, m message) error {
	b.mu.Lock()
	b.calls++
	b.under++
	b.most = max(b.most, b.under)
	answer := b.answer
	b.mu.Unlock()
	var e *outcome.Error
	if answer != nil { // without the lock: it may take its time
		defer func() {
			if r := recover(); r != nil {
				b.mu.Lock()
				b.under--
				b.mu.Unlock()
				panic(r)
			}
		}()
		e = answer(ctx, m)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.under--
	if e != nil {
		return e
	}
	m.at = time.Now()
	b.messages = append(b.messages, m)
	return nil
}

func (b *inbox) set(answer func(context.Context, message) *outcome.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

func (b *inbox) got() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]message(nil), b.messages...)
}

// lines are the messages in short: "opened f1 x3 HIGH".
func (b *inbox) lines() (lines []string) {
	for _, m := range b.got() {
		switch m.kind {
		case kindAlert:
			lines = append(lines, "alert "+m.alert.ID)
		case kindDigest:
			lines = append(lines, fmt.Sprintf("digest of %d, %d alerts", len(m.digest.Incidents)+m.digest.More, m.digest.Alerts))
		default:
			lines = append(lines, fmt.Sprintf("%s %s x%d %s", m.kind, m.incident.Fingerprint, m.incident.Count, m.incident.Alert.Severity))
		}
	}
	return lines
}

// program takes alerts.
type program struct{ inbox }

func (*program) Check(context.Context) (integration.Status, error) { return integration.Status{}, nil }
func (p *program) SendAlert(ctx context.Context, a *event.Alert) error {
	return p.take(ctx, message{kind: kindAlert, alert: a})
}

// people take incidents. Their reference is the fingerprint and a number.
type people struct{ inbox }

func (*people) Check(context.Context) (integration.Status, error) { return integration.Status{}, nil }

func (p *people) SendIncident(ctx context.Context, i integration.Incident) (string, error) {
	k := map[integration.Change]kind{integration.Opened: kindOpened, integration.Repeated: kindRepeated, integration.Resolved: kindResolved}[i.Change]
	if err := p.take(ctx, message{kind: k, incident: i}); err != nil {
		return "", err
	}
	return "ref-" + i.Fingerprint, nil
}

func (p *people) SendDigest(ctx context.Context, d integration.Digest) error {
	return p.take(ctx, message{kind: kindDigest, digest: d})
}

// graveyard keeps dead letters, and fails while err is set.
type graveyard struct {
	mu      sync.Mutex
	err     error
	letters []deadletter.Letter
}

func (g *graveyard) Publish(_ context.Context, l deadletter.Letter) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return g.err
	}
	g.letters = append(g.letters, l)
	return nil
}

func (g *graveyard) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

func (g *graveyard) all() []deadletter.Letter {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]deadletter.Letter(nil), g.letters...)
}

// setup is one instance with fakes around it.
type setup struct {
	*Notify
	dead *graveyard
}

func start(tb testing.TB, to integration.Integration, change func(*Config)) setup {
	tb.Helper()
	dead := &graveyard{}
	c := Config{
		Name: "test", To: to, Dead: dead, State: state.NewMemory(100_000, 256<<20),
		Group:    Group{Window: 5 * time.Minute, ResolveAfter: time.Hour, DigestEvery: time.Minute},
		MaxConns: 16, Deliver: 30 * time.Second, Bury: 5 * time.Second, InHand: budget.New(64 << 20),
		Log: slog.New(slog.DiscardHandler), Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{},
	}
	if change != nil {
		change(&c)
	}
	n, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return setup{n, dead}
}

// run lets time pass, with a Tick each second.
func (s setup) run(t *testing.T, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Second)
		if err := s.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// alert is number i of the incident fp.
func alert(i int, fp string, s event.Severity) *event.Alert {
	now := time.Now().UTC()
	return &event.Alert{
		ID: fmt.Sprintf("%08d-0000-7000-8000-000000000000", i), Timestamp: now, Severity: s, RuleID: "APSS-001", RuleName: "Reverse shell",
		Description: "A shell talks to the network.", Cluster: "c1", Fingerprint: fp, Count: 1, FirstSeen: now, LastSeen: now,
		Metadata: event.AlertMetadata{Source: "apss"},
	}
}

func pushOf(a *event.Alert) envelope.Push {
	return envelope.Push{
		Message: envelope.SealAlert(a, envelope.Source{Cluster: a.Cluster}, time.Now()), ID: "m-" + a.ID, Subscription: "projects/p/subscriptions/s",
	}
}

// hand hands a in and returns what came of it.
func (s setup) hand(ctx context.Context, a *event.Alert) *outcome.Error {
	err := s.Handle(ctx, pushOf(a))
	return outcome.From(err)
}

func (s setup) done(t *testing.T, alerts ...*event.Alert) {
	t.Helper()
	for _, a := range alerts {
		if e := s.hand(t.Context(), a); e != nil {
			t.Fatalf("alert %s: %v", a.ID, e)
		}
	}
}

// closes ends s: what it started must be over for a bubble of synctest to end.
func (s setup) closes(tb testing.TB) {
	tb.Helper()
	if err := s.Close(context.Background()); err != nil {
		tb.Errorf("Close: %v", err)
	}
}

func retry(status int, after time.Duration) *outcome.Error {
	return &outcome.Error{Class: outcome.Retry, Status: status, After: after, Reason: fmt.Sprint("HTTP ", status)}
}

func always(e *outcome.Error) func(context.Context, message) *outcome.Error {
	return func(context.Context, message) *outcome.Error { return e }
}
