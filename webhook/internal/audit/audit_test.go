package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/webhook/internal/admission"
	"github.com/apss-sensor/apss/webhook/internal/decide"
)

// shelf is a publisher that answers with errs, one after the other, and then takes everything.
type shelf struct {
	mu       sync.Mutex
	errs     []error
	messages []envelope.Message
	took     int
}

// events are what it took. It must not be called in a bubble of synctest: the decoder of zstd is everyone's.
func (s *shelf) events(t *testing.T) (all []*event.Event) {
	t.Helper()
	for _, m := range s.messages {
		raw, err := m.Events(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range raw {
			e, err := event.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
	}
	return all
}

func (s *shelf) Publish(_ context.Context, m envelope.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return err
	}
	s.messages = append(s.messages, m)
	s.took++
	return nil
}

type count struct{ atomic.Int64 }

func (c *count) Add(n int64) { c.Int64.Add(n) }

func audit(p Publisher, queue int) (a *Audit, dropped, published *count) {
	dropped, published = new(count), new(count)
	return New(Config{
		Cluster: "prod-1", AgentID: "prod-1/apss-webhook-1", Queue: queue, Publisher: p, Dropped: dropped, Published: published,
		Log: slog.New(slog.DiscardHandler),
	}), dropped, published
}

func creation(object string) *admission.Request {
	return &admission.Request{
		UID: "u", Kind: admission.Kind{Kind: "Pod"}, Namespace: "shop", Operation: "CREATE",
		User: admission.User{Name: "jane", Groups: []string{"dev", "system:authenticated"}}, Object: []byte(object),
	}
}

func execution(sub, object string) *admission.Request {
	return &admission.Request{
		UID: "u", Kind: admission.Kind{Kind: "PodExecOptions"}, SubResource: sub, Name: "web-1", Namespace: "shop", Operation: "CONNECT",
		User: admission.User{Name: "jane"}, Object: []byte(object),
	}
}

const risky = `{"metadata":{"generateName":"web-5d4f9c-","labels":{"pod-template-hash":"5d4f9c"},"ownerReferences":[{"kind":"ReplicaSet","name":"web-5d4f9c","controller":true}]},
	"spec":{"hostPID":true,"hostNetwork":true,"serviceAccountName":"web","volumes":[{"name":"a","hostPath":{"path":"/etc/../var"}},{"name":"b","emptyDir":{}}],
	"initContainers":[{"name":"apss-agent","image":"x","securityContext":{"capabilities":{"add":["SYS_PTRACE"]}}}],
	"containers":[{"name":"web","image":"nginx:1","securityContext":{"privileged":true,"capabilities":{"add":["NET_ADMIN","cap_sys_admin"]}}},
	{"name":"side","image":"envoy@sha256:00"}]}}`

func TestEvents(t *testing.T) {
	for _, tt := range []struct {
		name     string
		request  *admission.Request
		decision decide.Decision
		severity event.Severity
		place    string // pod, workload, container
		want     map[string]any
	}{
		{"risky", creation(risky), decide.Decision{Reason: decide.HostPID}, event.Medium, " Deployment/web ", map[string]any{
			"attempted": true, "user": "jane", "groups": []any{"dev", "system:authenticated"}, "decision": "host-pid", "generate_name": "web-5d4f9c-", "service_account": "web",
			"images": []any{"nginx:1", "envoy@sha256:00"}, "images_without_digest": []any{"nginx:1"}, "privileged": []any{"web"},
			"capabilities": []any{"NET_ADMIN", "SYS_ADMIN"}, "host_paths": []any{"/var"}, "host_namespaces": []any{"network", "pid"},
		}},
		{"ordinary", creation(`{"metadata":{"name":"web"},"spec":{"containers":[{"name":"web","image":"a@sha256:1"}]}}`), decide.Decision{Reason: decide.Injected, Tier: decide.Full}, event.Info, "web  ", map[string]any{
			"attempted": true, "user": "jane", "groups": []any{"dev", "system:authenticated"}, "decision": "injected", "tier": "pod-full", "images": []any{"a@sha256:1"},
		}},
		{"of the wrong kind", creation(`{"spec":{"hostPID":true,"containers":7}}`), decide.Decision{Reason: decide.Unreadable}, event.Medium, "  ", map[string]any{
			"attempted": true, "user": "jane", "groups": []any{"dev", "system:authenticated"}, "decision": "unreadable", "unreadable": true, "host_namespaces": []any{"pid"},
		}},
		{"a shell", execution("exec", `{"stdin":true,"tty":true,"container":"web","command":["sh"]}`), decide.Decision{Reason: decide.NotAPod}, event.Medium, "web-1  web", map[string]any{
			"attempted": true, "user": "jane", "how": "exec", "tty": true, "stdin": true, "program": "sh", "arguments": 0.0,
		}},
		{"a command with a secret", execution("exec", `{"command":["mysql","-phunter2"]}`), decide.Decision{Reason: decide.NotAPod}, event.Low, "web-1  ", map[string]any{
			"attempted": true, "user": "jane", "how": "exec", "tty": false, "stdin": false, "program": "mysql", "arguments": 1.0,
		}},
		{"attach", execution("attach", `{"stdin":true}`), decide.Decision{Reason: decide.NotAPod}, event.Medium, "web-1  ", map[string]any{
			"attempted": true, "user": "jane", "how": "attach", "tty": false, "stdin": true,
		}},
	} {
		var s shelf
		a, dropped, published := audit(&s, 16)
		synctest.Test(t, func(t *testing.T) {
			a.queue = make(chan item, 16) // the bubble's
			a.Observe(tt.request, &tt.decision)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { a.Run(ctx, time.Second); close(done) }()
			time.Sleep(sealAfter)
			synctest.Wait()
			stop()
			<-done
		})
		events := s.events(t)
		if len(events) != 1 || dropped.Load() != 0 || published.Load() != 1 {
			t.Fatalf("%s: got %d events, %d dropped, %d published", tt.name, len(events), dropped.Load(), published.Load())
		}
		e := events[0]
		if err := e.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		container := ""
		if e.Container != nil {
			container = e.Container.Name
		}
		if got := e.PodName + " " + e.Workload + " " + container; got != tt.place || e.PodNamespace != "shop" || e.Severity != tt.severity || e.Cluster != "prod-1" {
			t.Errorf("%s: got %q in %q of %s, %s; want %q, %s", tt.name, got, e.PodNamespace, e.Cluster, e.Severity, tt.place, tt.severity)
		}
		if key, _ := e.Metadata["dedupe"].(string); len(key) != 24 {
			t.Errorf("%s: got dedupe %q", tt.name, key)
		}
		delete(e.Metadata, "dedupe")
		if diff := cmp.Diff(tt.want, e.Metadata); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if strings.Contains(fmt.Sprint(e.Metadata), "hunter2") {
			t.Errorf("%s: a secret was told", tt.name)
		}
	}
}

// What a person calls the same has one key, whatever later webhooks made of the pod; what is not has another.
func TestDedupe(t *testing.T) {
	key := func(q *admission.Request) any {
		return describe(&item{request: *q, at: time.Now()}).Metadata["dedupe"]
	}
	first := key(creation(risky))
	again := creation(strings.Replace(risky, `"image":"x"`, `"image":"x","env":[]`, 1))
	again.UID = "another"
	if got := key(again); got != first {
		t.Errorf("called again: got %v want %v", got, first)
	}
	other := creation(risky)
	other.User.Name = "joe"
	for name, q := range map[string]*admission.Request{
		"another user": other, "another image": creation(strings.Replace(risky, "nginx:1", "nginx:2", 1)), "exec": execution("exec", `{}`),
	} {
		if key(q) == first {
			t.Errorf("%s: the same key", name)
		}
	}
	if key(execution("exec", `{"command":["a"]}`)) == key(execution("exec", `{"command":["b"]}`)) {
		t.Error("two programs have the same key")
	}
}

func TestOthersArePassedOver(t *testing.T) {
	a, dropped, _ := audit(Nowhere{}, 4)
	update, group, node := creation(risky), creation(risky), creation(risky)
	update.Operation, group.Kind.Group, node.Kind.Kind = "UPDATE", "x", "Node"
	for _, q := range []*admission.Request{update, group, node, execution("portforward", "{}")} {
		a.Observe(q, &decide.Decision{})
	}
	if len(a.queue) != 0 || dropped.Load() != 0 {
		t.Errorf("got %d in the queue, %d dropped", len(a.queue), dropped.Load())
	}
}

// The queue takes so many and so much, and counts the rest.
func TestTheQueueIsBounded(t *testing.T) {
	a, dropped, _ := audit(Nowhere{}, 16)
	for range 20 {
		a.Observe(creation("{}"), &decide.Decision{})
	}
	if len(a.queue) != 16 || dropped.Load() != 4 {
		t.Errorf("got %d in the queue, %d dropped", len(a.queue), dropped.Load())
	}
	a, dropped, _ = audit(Nowhere{}, 16)
	huge := creation(strings.Repeat(" ", maxBytes/2))
	for range 3 {
		a.Observe(huge, &decide.Decision{})
	}
	if len(a.queue) != 2 || dropped.Load() != 1 || a.bytes.Load() != maxBytes {
		t.Errorf("got %d in the queue, %d dropped, %d bytes", len(a.queue), dropped.Load(), a.bytes.Load())
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	a.Run(ctx, time.Minute)
	if a.bytes.Load() != 0 {
		t.Errorf("%d bytes are left", a.bytes.Load())
	}
}

func TestPublishing(t *testing.T) {
	away := &outcome.Error{Class: outcome.Retry, Reason: "away"}
	for name, tt := range map[string]struct {
		errs                     []error
		dropped, published, took int
	}{
		"at once":        {nil, 0, 250, 3},
		"after a while":  {[]error{away, away, away}, 0, 250, 3},
		"one is refused": {[]error{&outcome.Error{Class: outcome.Permanent}}, 100, 150, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := shelf{errs: tt.errs}
			a, dropped, published := audit(&s, 1000)
			for range 250 {
				a.Tell(&event.Event{Type: event.AgentCoverage, Timestamp: time.Now()})
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { a.Run(ctx, time.Second); close(done) }()
			time.Sleep(time.Minute)
			synctest.Wait()
			stop()
			<-done
			if int(dropped.Load()) != tt.dropped || int(published.Load()) != tt.published || s.took != tt.took {
				t.Errorf("%s: got %d dropped, %d published in %d messages; want %+v", name, dropped.Load(), published.Load(), s.took, tt)
			}
		})
	}
}

// At the end what waits is published, or counted as lost when there is nobody to take it.
func TestTheEnd(t *testing.T) {
	for name, away := range map[string]bool{"there": false, "away": true} {
		synctest.Test(t, func(t *testing.T) {
			var s shelf
			if away {
				for range 100 {
					s.errs = append(s.errs, &outcome.Error{Class: outcome.Retry})
				}
			}
			a, dropped, published := audit(&s, 1000)
			for range 150 {
				a.Tell(&event.Event{Type: event.AgentCoverage, Timestamp: time.Now()})
			}
			ctx, stop := context.WithCancel(t.Context())
			stop()
			begin := time.Now()
			a.Run(ctx, 5*time.Second)
			if took := time.Since(begin); took > 6*time.Second {
				t.Errorf("%s: it ended after %s", name, took)
			}
			want := [2]int64{0, 150}
			if away {
				want = [2]int64{150, 0}
			}
			if got := [2]int64{dropped.Load(), published.Load()}; got != want {
				t.Errorf("%s: got %v dropped and published, want %v", name, got, want)
			}
		})
	}
}

// A real Pub/Sub server gets the envelope of the contract.
func TestPubSub(t *testing.T) {
	server := pstest.NewServer()
	defer server.Close()
	connect := func() *PubSub {
		conn, err := grpc.NewClient(server.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewPubSub(t.Context(), "test", "apss-events", option.WithGRPCConn(conn))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := connect()
	defer p.Close()
	var batch envelope.Batch
	batch.Append(&event.Event{ID: event.NewID(), AgentID: "a", Type: event.AdmissionPod, Timestamp: time.Now()})
	message := batch.Seal(envelope.Source{AgentID: "a", Cluster: "c"}, time.Now())
	var o *outcome.Error
	if err := p.Publish(t.Context(), message); err == nil || !strings.Contains(err.Error(), "EVENTS_TOPIC") {
		t.Errorf("no topic: got %v %v", err, o)
	}
	if _, err := server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/test/topics/apss-events"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	got := server.Messages()
	if len(got) != 1 || got[0].Attributes["ce-type"] != envelope.TypeEvents || got[0].Attributes["cluster"] != "c" {
		t.Fatalf("got %+v", got)
	}
	if raw, err := (envelope.Message{Data: got[0].Data, Attributes: got[0].Attributes}).Events(nil); err != nil || len(raw) != 1 {
		t.Errorf("got %d events: %v", len(raw), err)
	}
}

func TestLines(t *testing.T) {
	var b strings.Builder
	a, _, _ := audit(Lines{&b}, 4)
	a.Tell(&event.Event{Type: event.AgentCoverage, Timestamp: time.Now()})
	a.Tell(&event.Event{Type: event.AgentCoverage, Timestamp: time.Now()})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	a.Run(ctx, time.Minute)
	if strings.Count(b.String(), "\n") != 2 || !json.Valid([]byte(strings.Split(b.String(), "\n")[0])) {
		t.Errorf("got %q", b.String())
	}
}

// Whatever a pod's author writes, the event is valid and small.
func FuzzDescribe(f *testing.F) {
	f.Add(risky, false)
	f.Add(`{"command":["sh"],"tty":true}`, true)
	f.Add(`{"spec":{"containers":[{"image":"\u0000\ud800"}]}}`, false)
	f.Fuzz(func(t *testing.T, object string, exec bool) {
		q := creation(object)
		if exec {
			q = execution("exec", object)
		}
		e := describe(&item{at: time.Now(), request: *q})
		e.ID, e.AgentID = event.NewID(), "a"
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		const most = 8 * (maxList + 1) * (maxString + 16) * 6 // six bytes for one that has to be escaped
		b := e.AppendJSON(nil)
		if _, err := event.Decode(b); err != nil || len(b) > most {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	for _, size := range []int{2 << 10, 400 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			a, _, _ := audit(Nowhere{}, 1)
			q, d := creation(strings.Repeat(" ", size)), &decide.Decision{}
			b.ReportAllocs()
			for b.Loop() {
				a.Observe(q, d)
				a.bytes.Add(-int64(len((<-a.queue).request.Object)))
			}
		})
	}
}
