package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// The cluster that is measured: sidecars are spread evenly over the namespaces.
const (
	sidecars   = 500
	namespaces = 10
	inFlight   = 4 // messages of a sidecar under way, as PUBLISH_IN_FLIGHT is by default
)

// counting is a Pub/Sub that keeps no message, only how large they were.
type counting struct {
	pubsubpb.UnimplementedPublisherServer
	mu sync.Mutex
	tally
}

// tally is what publishing messages comes to.
type tally struct {
	messages, events int
	bytes            int     // data and attributes
	billed           int     // likewise, see leastBilled
	fill             float64 // sum over messages
}

// leastBilled is what a publish request counts at least (cloud.google.com/pubsub/pricing).
const leastBilled = 1000

func (a *tally) add(data []byte, attributes map[string]string, count, raw int) {
	size := len(data)
	for k, v := range attributes {
		size += len(k) + len(v)
	}
	a.messages++
	a.events += count
	a.bytes += size
	a.billed += max(size, leastBilled)
	a.fill += min(1, max(float64(count)/1000, float64(raw)/(1<<20)))
}

func (s *counting) Publish(_ context.Context, req *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	resp := new(pubsubpb.PublishResponse)
	for _, m := range req.GetMessages() {
		lines, err := envelope.Message{Data: m.GetData(), Attributes: m.GetAttributes()}.Lines()
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(m.GetAttributes()["count"])
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.add(m.GetData(), m.GetAttributes(), n, len(lines))
		s.mu.Unlock()
		resp.MessageIds = append(resp.MessageIds, "1")
	}
	return resp, nil
}

// environment is everything around the relay's process, which is the program itself on one core: real TLS, real Pub/Sub's
// protocol, an API server that attests whom its token names.
type environment struct {
	b       *testing.B
	pubsub  *counting
	url, ca string
	process *exec.Cmd
}

func begin(b *testing.B, environ ...string) *environment {
	b.Helper()
	s := &environment{b: b, pubsub: new(counting)}
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	pubsubpb.RegisterPublisherServer(server, s.pubsub)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	b.Cleanup(func() { server.Stop(); <-served })
	api := httptest.NewServer(http.HandlerFunc(attest))
	b.Cleanup(api.Close)
	cert, key, ca := pair(b)
	s.ca = ca

	addr := filepath.Join(b.TempDir(), "address")
	s.process = exec.Command(os.Args[0]) // ended by a signal, after b.Context()
	s.process.Stderr = os.Stderr
	s.process.Env = append(append(os.Environ(), "APSS_BENCH_API="+api.URL, "APSS_BENCH_ADDRESS="+addr, "GOMAXPROCS=1",
		"PUBSUB_EMULATOR_HOST="+l.Addr().String(), "PUBSUB_PROJECT_ID=p", "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key,
		"RELAY_ADDR=127.0.0.1:0", "HTTP_ADDR=127.0.0.1:0", "POD_EVENTS_PER_SECOND=1000000", "POD_BYTES_PER_SECOND=1073741824", "LOG_LEVEL=ERROR",
		"ROOM_BYTES=536870912", "MAX_CONNECTIONS_PER_ADDRESS=8192"), // all sidecars have the loopback's
		environ...)
	if err := s.process.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = s.process.Process.Signal(syscall.SIGTERM)
		if err := s.process.Wait(); err != nil {
			b.Error(err)
		}
	})
	for {
		if text, err := os.ReadFile(addr); err == nil && len(text) > 0 {
			s.url = "https://" + string(text)
			return s
		}
		select {
		case <-b.Context().Done():
			b.Fatal("the relay did not start")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// attest answers a review with the pod that the token names.
func attest(w http.ResponseWriter, r *http.Request) {
	var review authenticationv1.TokenReview
	if json.NewDecoder(r.Body).Decode(&review) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	name := review.Spec.Token[strings.LastIndexByte(review.Spec.Token, '.')+1:]
	namespace, _, _ := strings.Cut(name, "_")
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
	review.Status = authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: review.Spec.Audiences,
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:" + namespace + ":default", Extra: map[string]authenticationv1.ExtraValue{
			"authentication.kubernetes.io/pod-name": {podName(name)}, "authentication.kubernetes.io/pod-uid": {name},
			"authentication.kubernetes.io/node-name": {"n1"},
		}},
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(review)
}

func podName(name string) string { return strings.ReplaceAll(name, "_", "-") }

// sidecar is an agent's publisher with messages of events that its pod could have had.
type sidecar struct {
	*publish.Relay
	source   envelope.Source
	messages []envelope.Message
}

// must publishes m, however often that takes: so does an agent.
func (c *sidecar) must(ctx context.Context, m envelope.Message) {
	for c.Publish(ctx, m) != nil && ctx.Err() == nil {
	}
}

// sidecars returns them all, each with so many messages of so many events. What happens in a namespace is of one kind: its
// pods share one source of events.
func (s *environment) sidecars(messages, events int) []*sidecar {
	all := make([]*sidecar, sidecars)
	var happens [namespaces][]*event.Event
	for i := range happens {
		happens[i] = eventtest.Many(messages*events*sidecars/namespaces, uint64(i))
	}
	for i := range all {
		name := fmt.Sprintf("ns%d_pod%d", i%namespaces, i)
		c := &sidecar{source: envelope.Source{AgentID: "local/" + podName(name), Cluster: "local"}}
		var err error
		c.Relay, err = publish.NewRelay(publish.RelayConfig{
			Endpoint: s.url, CA: s.ca, TokenFile: "token", ReadFile: func(string) ([]byte, error) { return []byte(podToken(name)), nil },
		})
		if err != nil {
			s.b.Fatal(err)
		}
		s.b.Cleanup(func() { _ = c.Close() })
		var b envelope.Batch
		for j := range messages * events {
			e := happens[i%namespaces][j*sidecars/namespaces+i/namespaces]
			e.AgentID, e.Cluster, e.NodeName = c.source.AgentID, "local", "n1"
			e.PodName, e.PodNamespace, e.Severity = podName(name), fmt.Sprintf("ns%d", i%namespaces), event.Low
			b.Append(e)
			if (j+1)%events == 0 {
				c.messages = append(c.messages, b.Seal(c.source, time.Now()))
			}
		}
		all[i] = c
	}
	return all
}

// cpu returns the time that the relay's process has had.
func (s *environment) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	if err != nil {
		s.b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // utime and stime are numbers 14 and 15 of proc_pid_stat(5), the state is number 3
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ
}

// BenchmarkIngest has all sidecars send messages of 20 events, what 100 events a second are in 200 ms, as fast as one core
// takes them. Figures are of the CPU time of the relay's process alone, authentication done before. At 50,000 events a second
// each namespace fills a message in 200 ms, which the default of SEAL_AFTER gives it twice over; here it is 5 s, so that a
// machine that others use too, and that is slower for it, measures the same.
func BenchmarkIngest(b *testing.B) {
	const messages, events = 20, 20
	s := begin(b, "SEAL_AFTER=5s")
	all := s.sidecars(messages+inFlight, events)
	send := func(from, to int) {
		var senders sync.WaitGroup
		for _, c := range all {
			jobs := make(chan envelope.Message, to-from)
			for _, m := range c.messages[from:to] {
				jobs <- m
			}
			close(jobs)
			for range min(inFlight, to-from) {
				senders.Go(func() {
					for m := range jobs {
						c.must(b.Context(), m)
					}
				})
			}
		}
		senders.Wait()
	}
	send(0, inFlight) // opens all connections
	for b.Loop() {
		before := s.cpu()
		s.pubsub.mu.Lock()
		s.pubsub.tally = tally{}
		s.pubsub.mu.Unlock()
		send(inFlight, messages+inFlight)
		spent := s.cpu() - before
		got := &s.pubsub.tally
		if want := sidecars * messages * events; got.events < want {
			b.Fatalf("got %d events at Pub/Sub, want %d", got.events, want)
		}
		b.ReportMetric(float64(sidecars*messages*events)/spent.Seconds(), "events/cpu-s")
		b.ReportMetric(100*got.fill/float64(got.messages), "%full")
		b.ReportMetric(float64(got.bytes)/float64(got.events), "B/event")
	}
}

// BenchmarkTrickle has all sidecars send one event a second for some seconds, each a message, as an agent's 200 ms make it,
// and compares what reaches Pub/Sub with what the sidecars would have published themselves.
func BenchmarkTrickle(b *testing.B) {
	const seconds = 5
	for name, apart := range map[string]string{"by-namespace": "*", "shared": off} {
		b.Run(name, func(b *testing.B) {
			s := begin(b, "SEAL_NAMESPACES="+apart)
			all := s.sidecars(seconds+1, 1)
			var first sync.WaitGroup
			for _, c := range all {
				first.Go(func() { c.must(b.Context(), c.messages[0]) })
			}
			first.Wait()
			s.pubsub.tally = tally{}
			for b.Loop() {
				var alone tally
				var senders sync.WaitGroup
				for i, c := range all {
					for _, m := range c.messages[1:] {
						alone.add(m.Data, m.Attributes, 1, 0)
					}
					senders.Go(func() {
						wait := time.NewTimer(time.Duration(i) * time.Second / sidecars)
						for _, m := range c.messages[1:] {
							<-wait.C
							wait.Reset(time.Second)
							c.must(b.Context(), m)
						}
					})
				}
				senders.Wait()
				got := &s.pubsub.tally
				each := func(sum int, of *tally) float64 { return float64(sum) / float64(of.events) }
				b.ReportMetric(each(alone.bytes, &alone), "alone-B/event")
				b.ReportMetric(each(got.bytes, got), "relay-B/event")
				b.ReportMetric(each(alone.bytes, &alone)/each(got.bytes, got), "x-fewer-bytes")
				b.ReportMetric(each(alone.billed, &alone)/each(got.billed, got), "x-fewer-billed")
				b.ReportMetric(float64(got.events)/float64(got.messages), "events/message")
				s.pubsub.tally = tally{}
			}
		})
	}
}
