package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// testWithin bounds how long a test event is tried: a relay's certificate may take a minute to come.
const testWithin = 2 * time.Minute

// sendTest publishes one marked event, as the agent would, and prints when it is confirmed. What keeps it from being
// confirmed is printed as it happens.
func sendTest(ctx context.Context, environ []string, stdout, stderr io.Writer) (err error) {
	s, err := load(environ)
	if err != nil {
		return fmt.Errorf("%w:\n%w", errSettings, err)
	}
	ctx, cancel := context.WithTimeout(ctx, testWithin)
	defer cancel()
	p, err := newPublisher(ctx, s, stdout, &net.Dialer{}, os.ReadFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	place := identity.New(s.AgentID, s.Cluster, s.Node, s.Pod, s.Namespace, "test")
	e := &event.Event{
		ID: event.NewID(), AgentID: place.AgentID, Type: event.IntegrationTest, Severity: event.Info, Timestamp: time.Now().UTC(),
		Cluster: s.Cluster, NodeName: place.Node, PodName: place.Pod, PodNamespace: place.Namespace,
		Metadata: map[string]any{"test": true, "sent_by": "apss-agent test", "version": version},
	}
	var batch envelope.Batch
	batch.Append(e)
	message := batch.Seal(place.Source(), time.Now())
	to := cmp.Or(map[string]string{"relay": s.Relay, "pubsub": "topic " + s.PubSubProject + "/" + s.EventsTopic}[s.Publisher], s.Publisher)
	fmt.Fprintf(stdout, "sending event %s to %s\n", e.ID, to)
	for began, pause := time.Now(), time.Second; ; pause = min(2*pause, 10*time.Second) {
		err := p.Publish(ctx, message)
		if err == nil {
			_, err = fmt.Fprintf(stdout, "confirmed after %v\n", time.Since(began).Round(time.Millisecond))
			return err
		}
		if o := outcome.From(err); o.Class == outcome.Permanent {
			return fmt.Errorf("the event is refused: %w", err)
		}
		fmt.Fprintln(stderr, "not confirmed yet:", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("the event was not confirmed within %v: %w", testWithin, err)
		}
	}
}
