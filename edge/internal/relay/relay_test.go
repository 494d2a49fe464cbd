package relay_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/apss-sensor/apss/edge/internal/publish/publishtest"
	"github.com/apss-sensor/apss/edge/internal/relay"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// honest returns an event that says of itself what is so.
func honest(namespace, name string) *event.Event {
	e := publishtest.Event("id")
	e.AgentID, e.Cluster, e.NodeName, e.PodName, e.PodNamespace = "prod/"+name, "prod", "n1", name, namespace
	return e
}

func place(e *event.Event) [5]string {
	return [...]string{e.AgentID, e.Cluster, e.NodeName, e.PodName, e.PodNamespace}
}

func TestAnHonestPod(t *testing.T) {
	h := open(t, tokens{"a": pod("shop", "till")}, nil)
	e, later := honest("shop", "till"), honest("shop", "till")
	e.Severity = event.High
	later.NodeName = "" // it does not know
	if err := h.sidecar("a").Publish(t.Context(), publishtest.Envelope(e, later)); err != nil {
		t.Fatal(err)
	}
	got := h.topic.events(t)
	if len(got) != 2 || place(got[0]) != place(e) || place(got[1]) != place(e) {
		t.Fatalf("got %d events, the first of %v, want two of %v", len(got), got[0], place(e))
	}
	want := map[string]string{"cluster": "prod", "namespace": "shop", "severity": "HIGH", "agent_id": "prod/relay"}
	for name, value := range want {
		if a := h.topic.all()[0].Attributes; a[name] != value {
			t.Errorf("got the attribute %s=%q, want %q", name, a[name], value)
		}
	}
}

func TestALyingPodIsToldApart(t *testing.T) {
	h := open(t, tokens{"a": pod("shop", "till")}, nil)
	lie := honest("bank", "vault")
	p := h.sidecar("a")
	for range 3 {
		if err := p.Publish(t.Context(), publishtest.Envelope(lie)); err != nil {
			t.Fatal(err)
		}
	}
	conflicts := 0
	for _, e := range h.topic.events(t) {
		if e.PodName != "till" || e.PodNamespace != "shop" {
			t.Errorf("got an event of %s/%s", e.PodNamespace, e.PodName)
		}
		if e.Type != event.AgentIdentityConflict {
			continue
		}
		conflicts++
		claimed := map[string]any{"agent_id": "prod/vault", "pod_name": "vault", "pod_namespace": "bank"}
		if diff := cmp.Diff(claimed, e.Metadata["claimed"]); diff != "" || e.Severity != event.High || e.AgentID != "prod/relay" {
			t.Errorf("got %v at %v by %s (-want +got):\n%s", e.Metadata, e.Severity, e.AgentID, diff)
		}
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
	}
	if conflicts != 1 || len(h.topic.events(t)) != 4 {
		t.Errorf("got %d events about it among %d, want one among four", conflicts, len(h.topic.events(t)))
	}
}

func TestAConflictThatWasNotPublishedIsToldAgain(t *testing.T) {
	h := open(t, tokens{"a": pod("shop", "till")}, nil)
	h.topic.publish = func(context.Context, envelope.Message) error { return errors.New("no") }
	p := h.sidecar("a")
	if err := p.Publish(t.Context(), publishtest.Envelope(honest("bank", "vault"))); err == nil {
		t.Fatal("got no error")
	}
	h.topic.mu.Lock()
	h.topic.publish = nil
	h.topic.mu.Unlock()
	if err := p.Publish(t.Context(), publishtest.Envelope(honest("bank", "vault"))); err != nil {
		t.Fatal(err)
	}
	if got := h.topic.events(t); len(got) != 2 {
		t.Errorf("got %d events, want the pod's and the one about it", len(got))
	}
}

func TestAnAlertIsItsPods(t *testing.T) {
	h := open(t, tokens{"a": pod("shop", "till")}, nil)
	alert := publishtest.Alert()
	alert.PodName, alert.Event.PodName = "victim", "victim"
	if err := h.sidecar("a").Publish(t.Context(), envelope.SealAlert(alert, envelope.Source{AgentID: "x", Cluster: "prod"}, time.Now())); err != nil {
		t.Fatal(err)
	}
	var got *event.Alert
	for _, m := range h.topic.all() {
		if m.Attributes["ce-type"] != envelope.TypeAlert {
			continue
		}
		var err error
		if got, err = m.Alert(); err != nil {
			t.Fatal(err)
		}
		if a := m.Attributes; a["rule"] != alert.RuleID || a["severity"] != "CRITICAL" || a["agent_id"] != "prod/till" || a["namespace"] != "shop" {
			t.Errorf("got the attributes %v", a)
		}
	}
	if got == nil || got.PodName != "till" || got.PodNamespace != "shop" || got.Event.PodName != "till" || got.ID != alert.ID {
		t.Errorf("got %+v", got)
	}
	if told := h.topic.events(t); len(told) != 1 || told[0].Type != event.AgentIdentityConflict {
		t.Errorf("got %d events about the lie, want one", len(told))
	}
}

// TestManyTricklesBecomeFewMessages has fifty pods of two namespaces send an event each at the same time.
func TestManyTricklesBecomeFewMessages(t *testing.T) {
	known := tokens{}
	for i := range 50 {
		name := string(rune('A' + i))
		known[name] = pod([]string{"shop", "bank"}[i%2], name)
	}
	h := open(t, known, func(c *relay.Config) { c.Seal.Count, c.Seal.After = 25, within })
	var all sync.WaitGroup
	var again atomic.Int64 // on a machine that stalls an answer may come too late
	for name, who := range known {
		all.Go(func() {
			p := h.sidecar(name)
			err := outcome.From(p.Publish(t.Context(), publishtest.Envelope(honest(who.Namespace, name))))
			for end := time.Now().Add(3 * within); err != nil && err.Class == outcome.Retry && time.Now().Before(end); again.Add(1) {
				err = outcome.From(p.Publish(t.Context(), publishtest.Envelope(honest(who.Namespace, name))))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	came := map[string]bool{}
	for _, e := range h.topic.events(t) {
		came[e.PodName] = true
	}
	if len(came) != 50 {
		t.Errorf("got events of %d pods, want 50", len(came))
	}
	if again.Load() > 0 {
		t.Logf("%d came again: the messages are not counted", again.Load())
		return
	}
	got := map[string]string{}
	for _, m := range h.topic.all() {
		got[m.Attributes["namespace"]] += m.Attributes["count"]
	}
	if diff := cmp.Diff(map[string]string{"shop": "25", "bank": "25"}, got); diff != "" {
		t.Errorf("messages by namespace (-want +got):\n%s", diff)
	}
}

func TestUrgentDoesNotWait(t *testing.T) {
	h := open(t, tokens{"a": pod("shop", "till")}, func(c *relay.Config) { c.Seal.After = time.Hour }) // what may wait gets no answer
	urgent := honest("shop", "till")
	urgent.Severity = event.Critical
	if err := h.sidecar("a").Publish(t.Context(), publishtest.Envelope(urgent)); err != nil {
		t.Fatal(err)
	}
}

// TestOnePoisonedSender: Pub/Sub never accepts a message with its events; the others' arrive.
func TestOnePoisonedSender(t *testing.T) {
	known := tokens{"a": pod("shop", "a"), "b": pod("shop", "b"), "poison": pod("shop", "poison")}
	h := open(t, known, func(c *relay.Config) { c.Seal.Count, c.Seal.After = 3, within })
	h.topic.publish = func(_ context.Context, m envelope.Message) error {
		if lines, err := m.Lines(); err != nil || bytes.Contains(lines, []byte(`"pod_name":"poison"`)) {
			return &outcome.Error{Class: outcome.Permanent, Reason: "poison"}
		}
		return nil
	}
	var all sync.WaitGroup
	for name := range known {
		all.Go(func() {
			err := h.sidecar(name).Publish(t.Context(), publishtest.Envelope(honest("shop", name)))
			if want := name == "poison"; want != (err != nil) || want && outcome.From(err).Class != outcome.Permanent {
				t.Errorf("%s: got %v", name, err)
			}
		})
	}
	all.Wait()
	if n := len(h.topic.events(t)); n != 2 {
		t.Errorf("got %d events, want the two others'", n)
	}
}

func TestWhatASenderIsTold(t *testing.T) {
	one := publishtest.Envelope(honest("shop", "till"))
	with := func(change func(m *envelope.Message)) envelope.Message {
		m := publishtest.Envelope(honest("shop", "till"))
		change(&m)
		return m
	}
	var zeros bytes.Buffer
	w, err := zstd.NewWriter(&zeros)
	if err == nil {
		_, err = w.Write(make([]byte, 32<<20))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	many := publishtest.Envelope(honest("shop", "till"))
	many.Attributes["content-encoding"] = "none"
	many.Data = bytes.Repeat([]byte("{}\n"), envelope.MaxEvents+1)
	for _, c := range []struct {
		name, token string
		m           envelope.Message
		pubsub      error
		class       outcome.Class
		want        string
	}{
		{name: "an unknown token", token: "x", m: one, class: outcome.Auth, want: "HTTP 401: nobody knows it"},
		{name: "while tokens cannot be checked", token: "later", m: one, class: outcome.Retry, want: "HTTP 503"},
		{name: "while Pub/Sub is slow", m: one, pubsub: &outcome.Error{Class: outcome.Retry}, class: outcome.Retry, want: "HTTP 429"},
		{name: "while Pub/Sub refuses the relay", m: one, pubsub: &outcome.Error{Class: outcome.Auth}, class: outcome.Retry, want: "HTTP 503"},
		{name: "never by Pub/Sub", m: one, pubsub: &outcome.Error{Class: outcome.Permanent}, class: outcome.Permanent, want: "HTTP 422"},
		{name: "no zstd", m: with(func(m *envelope.Message) { m.Data = []byte("{}") }), class: outcome.Permanent, want: "HTTP 400"},
		{name: "a bomb", m: with(func(m *envelope.Message) { m.Data = zeros.Bytes() }), class: outcome.Permanent, want: "HTTP 413"},
		{name: "too large", m: with(func(m *envelope.Message) { m.Data = make([]byte, 1<<20+1) }), class: outcome.Permanent, want: "HTTP 413"},
		{name: "too many", m: many, class: outcome.Permanent, want: "HTTP 413"},
		{name: "no events", m: with(func(m *envelope.Message) {
			m.Attributes["content-encoding"], m.Data = "", []byte("[]\n1\n")
		}), class: outcome.Permanent, want: "none of the lines"},
		{name: "empty", m: with(func(m *envelope.Message) { m.Data = nil }), class: outcome.Permanent, want: "HTTP 400"},
		{name: "no alert", m: with(func(m *envelope.Message) { m.Attributes["ce-type"] = envelope.TypeAlert }), class: outcome.Permanent, want: "HTTP 400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, tokens{"a": pod("shop", "till")}, nil)
			if c.pubsub != nil {
				h.topic.publish = func(context.Context, envelope.Message) error { return c.pubsub }
			}
			if c.token == "" {
				c.token = "a"
			}
			err := h.sidecar(c.token).Publish(t.Context(), c.m)
			o := outcome.From(err)
			if o == nil || o.Class != c.class || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %v with %q", err, c.class, c.want)
			}
			if wait := o.Class == outcome.Retry; wait != (o.After > 0) {
				t.Errorf("got a pause of %v, want one: %v", o.After, wait)
			}
			if n := len(h.topic.all()); n > 0 {
				t.Errorf("got %d messages, want none", n)
			}
		})
	}
}

func TestBadLinesCostThemselvesOnly(t *testing.T) {
	h := open(t, tokens{"a": pod("shop", "till")}, nil)
	m := publishtest.Envelope(honest("shop", "till"))
	lines, err := m.Lines()
	if err != nil {
		t.Fatal(err)
	}
	m.Data = append([]byte("{]\n\n"), lines...)
	delete(m.Attributes, "content-encoding")
	if err := h.sidecar("a").Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if n := len(h.topic.events(t)); n != 1 {
		t.Errorf("got %d events, want the good one", n)
	}
}

func TestALoudPodIsSlowedDownAlone(t *testing.T) {
	for name, limits := range map[string]relay.PodLimits{
		"events": {Requests: 8, Events: 0.01, Bytes: 1e9}, "bytes": {Requests: 8, Events: 1e6, Bytes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, tokens{"a": pod("shop", "a"), "b": pod("shop", "b")}, func(c *relay.Config) { c.Pod = limits })
			p := h.sidecar("a")
			if err := p.Publish(t.Context(), publishtest.Envelope(honest("shop", "a"))); err != nil {
				t.Fatal(err) // the bucket may be overdrawn once
			}
			o := outcome.From(p.Publish(t.Context(), publishtest.Envelope(honest("shop", "a"))))
			if o == nil || o.Status != http.StatusTooManyRequests || o.After < time.Second {
				t.Errorf("got %v, want to be told to wait", o)
			}
			if err := h.sidecar("b").Publish(t.Context(), publishtest.Envelope(honest("shop", "b"))); err != nil {
				t.Errorf("the other pod: %v", err)
			}
		})
	}
}

// What is refused is work too: who sends nothing else is slowed down like who sends events.
func TestBadMessagesCount(t *testing.T) {
	lines := func(text string) envelope.Message {
		m := publishtest.Envelope(honest("shop", "a"))
		m.Data = []byte(text)
		delete(m.Attributes, "content-encoding")
		return m
	}
	alert := lines("{}")
	alert.Attributes["ce-type"] = envelope.TypeAlert
	broken := publishtest.Envelope(honest("shop", "a"))
	broken.Data = bytes.Repeat([]byte("x"), 100)
	for name, m := range map[string]envelope.Message{
		"no events": lines(strings.Repeat("[]\n", 100)), "too many": lines(strings.Repeat("{}\n", envelope.MaxEvents+1)), "no zstd": broken, "no alert": alert,
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, tokens{"a": pod("shop", "a")}, func(c *relay.Config) { c.Pod = relay.PodLimits{Requests: 8, Events: 0.01, Bytes: 1e9} })
			p := h.sidecar("a")
			if o := outcome.From(p.Publish(t.Context(), m)); o == nil || o.Class != outcome.Permanent {
				t.Fatalf("got %v, want it refused", o)
			}
			if o := outcome.From(p.Publish(t.Context(), m)); o == nil || o.Status != http.StatusTooManyRequests {
				t.Errorf("got %v, want to be told to wait", o)
			}
		})
	}
}

func TestAPodHasSoManyRequests(t *testing.T) {
	reached, release := make(chan struct{}, 2), make(chan struct{})
	h := open(t, tokens{"a": pod("shop", "a")}, func(c *relay.Config) { c.Pod.Requests = 1 })
	h.topic.publish = func(context.Context, envelope.Message) error { reached <- struct{}{}; <-release; return nil }
	first := make(chan error, 1)
	go func() { first <- h.sidecar("a").Publish(t.Context(), publishtest.Envelope(honest("shop", "a"))) }()
	<-reached
	o := outcome.From(h.sidecar("a").Publish(t.Context(), publishtest.Envelope(honest("shop", "a"))))
	if o == nil || o.Status != http.StatusTooManyRequests {
		t.Errorf("got %v, want 429", o)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestWhatIsUnderWayIsAnsweredWhenTheRelayEnds(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	h := open(t, tokens{"a": pod("shop", "a")}, nil)
	h.topic.publish = func(context.Context, envelope.Message) error { close(reached); <-release; return nil }
	first := make(chan error, 1)
	go func() { first <- h.sidecar("a").Publish(t.Context(), publishtest.Envelope(honest("shop", "a"))) }()
	<-reached
	h.stop()
	close(release)
	if err := <-first; err != nil {
		t.Errorf("got %v, want it to be accepted", err)
	}
}

// TestAlertsHaveTheirOwnWay: events that fill all room do not keep an alert.
func TestAlertsHaveTheirOwnWay(t *testing.T) {
	release := make(chan struct{})
	reached := make(chan struct{}, 100)
	known := tokens{"alerting": pod("shop", "alerting")}
	h := open(t, known, func(c *relay.Config) { c.Room = 4 << 10 })
	h.topic.publish = func(_ context.Context, m envelope.Message) error {
		if m.Attributes["ce-type"] == envelope.TypeEvents {
			reached <- struct{}{}
			<-release
		}
		return nil
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		known[name] = pod(name, name)
	}
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		all.Go(func() { _ = h.sidecar(name).Publish(t.Context(), publishtest.Envelope(honest(name, name))) })
	}
	<-reached
	alert := publishtest.Alert()
	alert.Cluster, alert.NodeName, alert.PodName, alert.PodNamespace, alert.Event = "prod", "n1", "alerting", "shop", nil
	if err := h.sidecar("alerting").Publish(t.Context(), envelope.SealAlert(alert, envelope.Source{}, time.Now())); err != nil {
		t.Errorf("the alert: %v", err)
	}
	close(release)
	all.Wait()
}
