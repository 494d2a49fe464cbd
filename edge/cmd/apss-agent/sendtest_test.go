package main

import (
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// TestSendTest: the marked event is on the topic when it is said to be confirmed.
func TestSendTest(t *testing.T) {
	server := pstest.NewServer()
	defer server.Close()
	if _, err := server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/apss-events"}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PUBSUB_EMULATOR_HOST", server.Addr)
	var out, errs strings.Builder
	err := sendTest(t.Context(), []string{"PUBSUB_PROJECT_ID=p", "CLUSTER_NAME=c", "NODE_NAME=n", "PUBSUB_EMULATOR_HOST=" + server.Addr}, &out, &errs)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &errs)
	}
	messages := server.Messages()
	if len(messages) != 1 {
		t.Fatalf("got %d messages, want 1", len(messages))
	}
	events, err := (&envelope.Message{Data: messages[0].Data, Attributes: messages[0].Attributes}).Events(nil)
	if err != nil || len(events) != 1 {
		t.Fatalf("got %d events, %v", len(events), err)
	}
	e, err := event.Decode(events[0])
	if err != nil || e.Type != event.IntegrationTest || e.AgentID != "c/n" || !strings.Contains(out.String(), e.ID) || !strings.Contains(out.String(), "confirmed after") {
		t.Errorf("got event %+v, %v, and said %q", e, err, out.String())
	}
}

func TestSendTestSaysWhatIsWrong(t *testing.T) {
	var out strings.Builder
	if got := command([]string{"test"}, []string{"PUBLISHER=relay"}, &out, &out); got != exitUsage || !strings.Contains(out.String(), "CONTROLLER_ENDPOINT") {
		t.Errorf("got exit code %d and %q, want the setting named", got, out.String())
	}
}
