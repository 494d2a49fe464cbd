package deadletter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/apss-sensor/apss/shared/envelope"
)

// newPublisher returns a publisher to a topic of an embedded Pub/Sub.
func newPublisher(t *testing.T, topic string) (*Publisher, *pstest.Server) {
	t.Helper()
	server := pstest.NewServer()
	t.Cleanup(func() { _ = server.Close() })
	client, err := pubsub.NewClient(t.Context(), "p", option.WithEndpoint(server.Addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/dead"}); err != nil {
		t.Fatal(err)
	}
	p := New(client, topic, time.Second)
	p.now = func() time.Time { return time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC) }
	return p, server
}

func TestPublish(t *testing.T) {
	p, server := newPublisher(t, "dead")
	err := p.Publish(t.Context(), Letter{
		Message: envelope.Message{Data: []byte("\x00data\xff"), Attributes: map[string]string{
			"ce-type": "apss.events.v1", "content-encoding": "zstd", "cluster": "c1", "apss-reason": "an older one",
			"googclient_traceparent": "00-1-2-3",
		}},
		Integration: "sweetsecurity", Topic: "events", Subscription: "projects/p/subscriptions/s", MessageID: "17", DeliveryAttempt: 2,
		Status: 422, Reason: "422: bad\npid\x1b[2J",
	})
	if err != nil {
		t.Fatal(err)
	}
	messages := server.Messages()
	if len(messages) != 1 {
		t.Fatalf("got %d messages, want 1", len(messages))
	}
	if got, want := string(messages[0].Data), "\x00data\xff"; got != want {
		t.Errorf("got data %q, want %q", got, want)
	}
	want := map[string]string{
		"ce-type": "apss.events.v1", "content-encoding": "zstd", "cluster": "c1",
		"apss-reason": "422: bad pid [2J", "apss-integration": "sweetsecurity", "apss-topic": "events", "apss-subscription": "projects/p/subscriptions/s",
		"apss-message-id": "17", "apss-delivery-attempt": "2", "apss-receiver-status": "422", "apss-time": "2026-11-22T10:00:00Z",
	}
	if diff := cmp.Diff(want, messages[0].Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestPublishFails(t *testing.T) {
	t.Run("no topic", func(t *testing.T) {
		p, _ := newPublisher(t, "missing")
		if err := p.Publish(t.Context(), Letter{}); err == nil {
			t.Error("got nil, want an error: nothing is confirmed")
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		p, server := newPublisher(t, "dead")
		_ = server.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := p.Publish(ctx, Letter{Message: envelope.Message{Data: []byte("x")}}); err == nil {
			t.Error("got nil, want an error: nothing is confirmed")
		}
	})
}

// A message that is as large as they come must not be refused with what is added to it.
func TestTheLargestMessageFits(t *testing.T) {
	const attributes = 30
	data := bytes.Repeat([]byte("x"), maxMessage-attributes)
	got := Letter{Message: envelope.Message{Data: data, Attributes: map[string]string{"ce-type": "apss.events.v1"}}, Reason: strings.Repeat("r", 5000)}.message(time.Now())
	request := proto.Size(&pubsubpb.PublishRequest{Messages: []*pubsubpb.PubsubMessage{got}})
	if request > maxMessage || len(got.GetData()) < maxMessage-5000 {
		t.Errorf("got a request of %d bytes with %d of data, want at most %d, and most of the data", request, len(got.GetData()), maxMessage)
	}
	if size := got.GetAttributes()["apss-data-bytes"]; size != strconv.Itoa(len(data)) {
		t.Errorf("got apss-data-bytes %q, want %d", size, len(data))
	}
	if m := (Letter{Message: envelope.Message{Data: []byte("x")}}).message(time.Now()); string(m.GetData()) != "x" || m.GetAttributes()["apss-data-bytes"] != "" {
		t.Errorf("got %v, want a small one whole", m)
	}
}

// A service that does not answer must not hold what its caller gave up: on SIGTERM there are ten seconds.
func TestPublishEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	client, err := pubsub.NewClient(t.Context(), "p", option.WithEndpoint(l.Addr().String()), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := New(client, "dead", time.Minute).Publish(ctx, Letter{Message: envelope.Message{Data: []byte("x")}})
		done <- errors.Join(err, client.Close())
	}()
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("got nil, want an error: nothing is confirmed")
		}
	case <-time.After(30 * time.Second):
		t.Error("it still waits")
	}
}

// TestAttributesFit: whatever is in a letter, Pub/Sub takes its attributes.
func TestAttributesFit(t *testing.T) {
	theirs := map[string]string{"ce-type": "apss.events.v1", "ce-id": "1", "content-type": "x"}
	for i := len(theirs); i < maxAttributes; i++ {
		theirs[fmt.Sprintf("a%03d", i)] = strings.Repeat("v", maxValue)
	}
	got := Letter{
		Message: envelope.Message{Attributes: theirs}, Reason: strings.Repeat("é", 5000), Subscription: strings.Repeat("s", 5000),
		Integration: "\xff\xfe", Status: 1, DeliveryAttempt: 1,
	}.attributes(time.Now())
	if want := maxAttributes - 1; len(got) != want { // one is for the size of data that is cut
		t.Errorf("got %d attributes, want %d", len(got), want)
	}
	for k, v := range got {
		if len(v) > maxValue || !utf8.ValidString(v) {
			t.Errorf("%s has %d bytes, valid UTF-8: %t", k, len(v), utf8.ValidString(v))
		}
	}
	for _, k := range []string{"ce-type", "ce-id", "content-type", "apss-reason"} {
		if _, ok := got[k]; !ok {
			t.Errorf("%s is missing", k)
		}
	}
	if got["apss-attributes-dropped"] != "9" {
		t.Errorf("got apss-attributes-dropped %q, want 9: the seven of ours, this one, and the size of data", got["apss-attributes-dropped"])
	}
}
