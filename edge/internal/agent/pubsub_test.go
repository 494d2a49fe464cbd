package agent

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// TestPubSubOutage takes the agent through a Pub/Sub that has no topics, then has them, then is gone, then is back.
func TestPubSubOutage(t *testing.T) {
	server := pstest.NewServer()
	var mu sync.Mutex
	up := true
	conn, err := grpc.NewClient("passthrough:pubsub", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if !up {
				return nil, net.ErrClosed
			}
			return new(net.Dialer).DialContext(ctx, "tcp", server.Addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := publish.NewPubSub(t.Context(), publish.PubSubConfig{Project: "p", EventsTopic: "events", AlertsTopic: "alerts",
		Options: []option.ClientOption{option.WithGRPCConn(conn)}})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, t.TempDir(), &receiver{}, func(c *Config) { c.Publisher, c.Drain = p, time.Minute })
	topics := func(s *pstest.Server) {
		for _, id := range []string{"events", "alerts"} {
			if _, err := s.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/" + id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	received := func(s *pstest.Server) (got []string) {
		for _, m := range s.Messages() {
			message := envelope.Message{Data: m.Data, Attributes: m.Attributes}
			if m.Topic == "projects/p/topics/alerts" {
				a, err := message.Alert()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, a.RuleID)
				continue
			}
			raws, err := message.Events(nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range raws {
				if e, err := event.Decode(raw); err != nil {
					t.Fatal(err)
				} else if e.Process != nil {
					got = append(got, e.Process.Cmdline)
				}
			}
		}
		slices.Sort(got)
		return slices.Compact(got) // a message whose answer came too late comes twice
	}

	r.say(event.Low, 0, 250)
	r.alert("A")
	await(t, func() bool { return r.events.publishing() != nil && r.alerts.publishing() != nil }) // no such topics
	topics(server)
	await(t, func() bool { // the heartbeat is one more
		return r.events.counts.confirmedItems.Load() == 251 && r.alerts.counts.confirmedItems.Load() == 1
	})
	first := received(server)
	if diff := cmp.Diff(append(sequence(0, 250), "A"), first); diff != "" {
		t.Errorf("after the topics were made (-want +got):\n%s", diff)
	}

	mu.Lock()
	up = false
	mu.Unlock()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	r.say(event.High, 250, 250)
	r.alert("B")
	await(t, func() bool { return r.events.spool.Stats().Events >= 250 && r.alerts.spool.Stats().Events == 1 })
	mu.Lock()
	server = pstest.NewServer()
	up = true
	mu.Unlock()
	defer server.Close()
	topics(server)
	if err := r.end(); err != nil { // drains
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(sequence(250, 250), "B"), received(server)); diff != "" {
		t.Errorf("after the outage (-want +got):\n%s", diff)
	}
}

// await waits for what real programs do in real time.
func await(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it did not happen within 30 s")
		}
	}
}
