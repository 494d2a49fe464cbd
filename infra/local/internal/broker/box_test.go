package broker_test

import (
	"fmt"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

// TestKeep: what is pulled is the puller's until it is given back or done with, as at the service.
func TestKeep(t *testing.T) {
	b := start(t, broker.Options{})
	for range 2 { // the second is the first
		if err := b.Keep(t.Context(), "dead", "box"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if err := b.Publish(t.Context(), b.TopicName("dead"), dispatch.Message{Data: fmt.Append(nil, i), Attributes: map[string]string{"i": fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := grpc.NewClient(b.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client, name := pubsubpb.NewSubscriberClient(conn), b.SubscriptionName("box")
	pull := func(most int32) (data string, acks []string) {
		t.Helper()
		r, err := client.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: name, MaxMessages: most})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.GetReceivedMessages() {
			data += string(m.GetMessage().GetData())
			acks = append(acks, m.GetAckId())
			if m.GetMessage().GetMessageId() == "" || !m.GetMessage().GetPublishTime().IsValid() || m.GetMessage().GetAttributes()["i"] != string(m.GetMessage().GetData()) {
				t.Errorf("got %v, want all that a message has", m)
			}
		}
		return data, acks
	}
	modify := func(seconds int32, acks ...string) {
		t.Helper()
		if _, err := client.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: acks, AckDeadlineSeconds: seconds}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want, got string) {
		t.Helper()
		if got != want {
			t.Errorf("got the messages %q, want %q", got, want)
		}
	}
	first, acks := pull(2)
	want("01", first)
	rest, _ := pull(100)
	want("2", rest)
	none, _ := pull(100)
	want("", none)
	modify(0, acks...)
	again, newer := pull(100)
	want("01", again)
	modify(0, acks...) // of a pull that is over
	none, _ = pull(100)
	want("", none)
	if _, err := client.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: newer[:1]}); err != nil {
		t.Fatal(err)
	}
	modify(600, newer...)
	modify(0, newer...)
	left, _ := pull(100)
	want("1", left)
}
