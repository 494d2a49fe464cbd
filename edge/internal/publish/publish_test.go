package publish_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/publish/publishtest"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// lines is a terminal.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func TestStdoutConformance(t *testing.T) {
	publishtest.Run(t, func(t *testing.T) publishtest.Harness {
		t.Helper()
		var l lines
		return publishtest.Harness{Publisher: publish.NewStdout(&l), Received: func() (got []event.Raw) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for line := range bytes.Lines(l.buf.Bytes()) {
				got = append(got, event.Raw(bytes.TrimSuffix(line, []byte("\n"))))
			}
			return got
		}}
	})
}

func TestABrokenPipeIsGoneForGood(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	err = publish.NewStdout(w).Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
	if !errors.Is(err, publish.ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
}

const project = "test"

// service is a Pub/Sub server with the two topics.
func service(t *testing.T, topics ...string) *pstest.Server {
	t.Helper()
	s := pstest.NewServer()
	t.Cleanup(func() { s.Close() })
	for _, id := range topics {
		if _, err := s.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/" + project + "/topics/" + id}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func client(t *testing.T, addr string) *publish.PubSub {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := publish.NewPubSub(t.Context(), publish.PubSubConfig{
		Project: project, EventsTopic: "events", AlertsTopic: "alerts",
		Options: []option.ClientOption{option.WithGRPCConn(conn)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestPubSubConformance(t *testing.T) {
	publishtest.Run(t, func(t *testing.T) publishtest.Harness {
		t.Helper()
		s := service(t, "events", "alerts")
		return publishtest.Harness{Publisher: client(t, s.Addr), Received: func() (got []event.Raw) {
			for _, m := range s.Messages() {
				message := envelope.Message{Data: m.Data, Attributes: m.Attributes}
				switch m.Topic {
				case "projects/test/topics/events":
					events, err := message.Events(nil)
					if err != nil {
						t.Error(err)
					}
					got = append(got, events...)
				case "projects/test/topics/alerts":
					got = append(got, m.Data)
				}
			}
			return got
		}}
	})
}

func TestPubSubMissingTopicSaysWhatToDo(t *testing.T) {
	p := client(t, service(t, "alerts").Addr)
	err := p.Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
	o := outcome.From(err)
	if o == nil || o.Class != outcome.Retry || !strings.Contains(o.Reason, "EVENTS_TOPIC") || !strings.Contains(o.Reason, "projects/test/topics/events") {
		t.Errorf("got %v, want a retry that names the topic and the setting", err)
	}
}

// Every publish is answered with one status.
func TestPubSubVerdicts(t *testing.T) {
	for _, c := range []struct {
		code  codes.Code
		class outcome.Class
		says  string
	}{
		{codes.PermissionDenied, outcome.Auth, "roles/pubsub.publisher"},
		{codes.Unauthenticated, outcome.Auth, "Workload Identity"},
		{codes.InvalidArgument, outcome.Permanent, "content"},
		{codes.FailedPrecondition, outcome.Retry, ""},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			g := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(c.code, "no") }))
			var serving sync.WaitGroup
			serving.Go(func() { _ = g.Serve(l) })
			t.Cleanup(func() { g.Stop(); serving.Wait() })
			err = client(t, l.Addr().String()).Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
			if o := outcome.From(err); o == nil || o.Class != c.class || !strings.Contains(o.Reason, c.says) || status.Code(o.Err) != c.code {
				t.Errorf("got %v, want class %s that says %q", err, c.class, c.says)
			}
		})
	}
}

// A service that does not answer must not keep the agent from ending once nobody waits for the answer.
func TestPubSubCloseWaitsForNothingThatWasGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, ended := make(chan struct{}, 1), make(chan struct{})
	g := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		asked <- struct{}{}
		<-ended // whatever the client does
		return status.Error(codes.Internal, "too late")
	}))
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() { close(ended); g.Stop(); serving.Wait() })
	p := client(t, l.Addr().String())
	ctx, giveUp := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- p.Publish(ctx, publishtest.Envelope(publishtest.Event("x"))) }()
	<-asked
	giveUp()
	if o := outcome.From(<-result); o == nil || o.Class != outcome.Retry || !errors.Is(o, context.Canceled) {
		t.Errorf("got %v, want a retry that tells of the cancellation", o)
	}
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Close still waits")
	}
}

func TestPubSubLimitsAreRefusedBeforeTheyAreSent(t *testing.T) {
	p := client(t, "127.0.0.1:1") // nobody listens: what is not refused at once would hang
	message := func(change func(*envelope.Message)) envelope.Message {
		m := publishtest.Envelope(publishtest.Event("x"))
		change(&m)
		return m
	}
	for name, m := range map[string]envelope.Message{
		"data":  message(func(m *envelope.Message) { m.Data = make([]byte, 10_000_000) }),
		"value": message(func(m *envelope.Message) { m.Attributes["rule"] = strings.Repeat("x", 1025) }),
		"text":  message(func(m *envelope.Message) { m.Attributes["rule"] = "\xff" }),
		"name":  message(func(m *envelope.Message) { m.Attributes[strings.Repeat("x", 257)] = "" }),
		"number": message(func(m *envelope.Message) {
			for i := range 101 {
				m.Attributes[strings.Repeat("x", i+1)] = ""
			}
		}),
	} {
		if o := outcome.From(p.Publish(t.Context(), m)); o == nil || o.Class != outcome.Permanent {
			t.Errorf("%s: got %v, want a permanent outcome", name, o)
		}
	}
}
