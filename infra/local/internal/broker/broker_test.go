package broker_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

func start(tb testing.TB, o broker.Options) *broker.Broker {
	tb.Helper()
	o.Project, o.Topics = "p", []string{"events", "dead"}
	b, err := broker.Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func subscribe(tb testing.TB, b *broker.Broker, topic string) broker.Source {
	tb.Helper()
	s, err := b.Subscribe(tb.Context(), topic, "s")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// receive waits for n messages and returns their data.
func receive(tb testing.TB, s broker.Source, n int) []string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	var all []string
	for len(all) < n {
		messages, err := s.Receive(ctx, 3)
		if err != nil {
			tb.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		if len(messages) > 3 {
			tb.Fatalf("got %d messages, want 3 at most", len(messages))
		}
		for _, m := range messages {
			all = append(all, string(m.Data))
			if err := s.Done(ctx, m.Lease); err != nil {
				tb.Error(err)
			}
		}
	}
	return all
}

func publish(tb testing.TB, b *broker.Broker, topic, data string) error {
	tb.Helper()
	return b.Publish(tb.Context(), b.TopicName(topic), dispatch.Message{Data: []byte(data)})
}

func TestEverySubscriptionGetsEveryMessage(t *testing.T) {
	b := start(t, broker.Options{})
	one, two := subscribe(t, b, "events"), subscribe(t, b, "events")
	for i := range 10 {
		if err := publish(t, b, "events", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := one.Backlog(); got != 10 {
		t.Errorf("got a backlog of %d, want 10", got)
	}
	for _, s := range []broker.Source{one, two} {
		if got, want := strings.Join(receive(t, s, 10), ""), "0123456789"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := one.Backlog(); got != 0 {
		t.Errorf("got a backlog of %d at the end, want 0", got)
	}
}

func TestWhatIsRefused(t *testing.T) {
	b := start(t, broker.Options{MaxBytes: 100})
	s := subscribe(t, b, "events")
	tests := []struct {
		topic, data string
		want        codes.Code
	}{
		{"events", "", codes.InvalidArgument},
		{"nothing", "x", codes.NotFound},
		{"events", strings.Repeat("x", 60), codes.OK},
		{"events", strings.Repeat("x", 60), codes.ResourceExhausted},
		{"events", strings.Repeat("x", 40), codes.OK},
	}
	for _, tt := range tests {
		if err := publish(t, b, tt.topic, tt.data); status.Code(err) != tt.want {
			t.Errorf("publishing %d bytes to %s: got %v, want %v", len(tt.data), tt.topic, err, tt.want)
		}
	}
	receive(t, s, 2)
	if err := publish(t, b, "events", strings.Repeat("x", 100)); err != nil {
		t.Errorf("got %v after everything was done, want room again", err)
	}
}

func TestOutage(t *testing.T) {
	b := start(t, broker.Options{})
	s := subscribe(t, b, "events")
	if !b.SetOutage(true) {
		t.Fatal("got no outage")
	}
	if err := publish(t, b, "events", "x"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v during the outage, want %v", err, codes.Unavailable)
	}
	b.SetRefusal(status.New(codes.PermissionDenied, "User not authorized to perform this action."))
	if err := publish(t, b, "events", "x"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want %v", err, codes.PermissionDenied)
	}
	b.SetOutage(false)
	if err := publish(t, b, "events", "y"); err != nil {
		t.Error(err)
	}
	if got := receive(t, s, 1); got[0] != "y" {
		t.Errorf("got %q, want only what was published after the outage", got)
	}
}

// TestClientsMaySubscribe: what speaks the protocol gets messages too, and so many of them that pstest is cleared on
// the way; the queue of this package loses none.
func TestClientsMaySubscribe(t *testing.T) {
	const rounds, each = 11, 1_000
	b := start(t, broker.Options{})
	s := subscribe(t, b, "dead")
	conn, err := grpc.NewClient(b.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := pubsubpb.NewSubscriberClient(conn)
	_, err = client.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: "projects/p/subscriptions/mine", Topic: "projects/p/topics/dead", AckDeadlineSeconds: 10})
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		req := &pubsubpb.PublishRequest{Topic: "projects/p/topics/dead"}
		for range each {
			req.Messages = append(req.Messages, &pubsubpb.PubsubMessage{Data: []byte("letter")})
		}
		if _, err := pubsubpb.NewPublisherClient(conn).Publish(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := client.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: "projects/p/subscriptions/mine", MaxMessages: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetReceivedMessages(); len(got) != 1 || string(got[0].GetMessage().GetData()) != "letter" {
		t.Errorf("got %v, want a letter", got)
	}
	receive(t, s, rounds*each)
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	b, err := broker.Start(t.Context(), broker.Options{Project: "p", Addr: l.Addr().String()})
	if err == nil {
		t.Fatal("got no error", b.Close(t.Context()))
	}
	for _, part := range []string{"starting Pub/Sub on " + l.Addr().String(), "address already in use"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %q, want %q in it", err, part)
		}
	}
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	b := start(t, broker.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := subscribe(t, b, "events").Receive(ctx, 1); err == nil {
		t.Error("got no error")
	}
}

// BenchmarkMemory publishes envelopes of 4,500 bytes, about 100 events each, and takes them: what stays on the heap
// after b.N of them must not grow with b.N.
func BenchmarkMemory(b *testing.B) {
	br := start(b, broker.Options{})
	s := subscribe(b, br, "events")
	data := make([]byte, 4_500)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		if err := br.Publish(b.Context(), br.TopicName("events"), dispatch.Message{Data: data}); err != nil {
			b.Fatal(err)
		}
		messages, err := s.Receive(b.Context(), 100)
		if err != nil {
			b.Fatal(err)
		}
		for _, m := range messages {
			if err := s.Done(b.Context(), m.Lease); err != nil {
				b.Fatal(err)
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024, "KiB-kept")
}
