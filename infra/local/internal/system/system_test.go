package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/apss-sensor/apss/infra/local/internal/ledger"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// TestMain makes this test binary the two programs, with the least that the system asks of them.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch filepath.Base(os.Args[0]) {
	case "apss-agent":
		err = agent(ctx)
	case "apss-functions":
		err = functions(ctx)
	case "apssctl":
		fmt.Println(strings.Join(os.Args[1:], " "), "at", os.Getenv("APSS_URL"), os.Getenv("PUBSUB_PROJECT_ID"))
		os.Exit(3)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// agent publishes an envelope for each line in its state's file "events".
func agent(ctx context.Context) error {
	conn, err := grpc.NewClient(os.Getenv("PUBSUB_EMULATOR_HOST"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	orders, err := os.ReadFile(filepath.Join(os.Getenv("STATE_DIR"), "orders"))
	if err != nil {
		return err
	}
	sensed := 0
	for line := range strings.Lines(string(orders)) {
		path := strings.TrimSpace(line)
		if path == "die" {
			return fmt.Errorf("the agent dies, as ordered")
		}
		var b envelope.Batch
		b.Append(&event.Event{ID: event.NewID(), Type: event.FileModify, Timestamp: time.Now(), File: &event.File{Path: path}})
		m := b.Seal(envelope.Source{AgentID: "local/n", Cluster: "local"}, time.Now())
		req := &pubsubpb.PublishRequest{Topic: "projects/" + os.Getenv("PUBSUB_PROJECT_ID") + "/topics/" + os.Getenv("EVENTS_TOPIC"),
			Messages: []*pubsubpb.PubsubMessage{{Data: m.Data, Attributes: m.Attributes}}}
		if _, err := pubsubpb.NewPublisherClient(conn).Publish(ctx, req); err != nil {
			return err
		}
		sensed++
	}
	return serve(ctx, os.Getenv("HTTP_ADDR"), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprintf(w, "# HELP x\napss_agent_events_total{type=\"a } b\",severity=\"INFO\"} %d\napss_agent_events_total{type=\"b\"} 1 1700000000\n", sensed)
		}
	})
}

// functions passes each push on as one batch.
func functions(ctx context.Context) error {
	return serve(ctx, "127.0.0.1:"+os.Getenv("PORT"), func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			return
		}
		status, err := forward(r)
		if err != nil {
			fmt.Println(err)
			status = http.StatusServiceUnavailable
		}
		w.WriteHeader(status)
	})
}

func forward(r *http.Request) (int, error) {
	p, err := envelope.ReadPush(r)
	if err != nil {
		return 0, err
	}
	events, err := p.Events(nil)
	if err != nil {
		return 0, err
	}
	var parts [][]byte
	for _, e := range events {
		parts = append(parts, e)
	}
	body := append(append([]byte(`{"events":[`), bytes.Join(parts, []byte(","))...), `]}`...)
	var document []struct {
		Name     string `json:"name"`
		Endpoint string `json:"endpoint"`
		Key      string `json:"api_key"`
	}
	if err := json.Unmarshal([]byte(os.Getenv("APSS_INTEGRATIONS")), &document); err != nil {
		return 0, err
	}
	sweet := document[0]
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, sweet.Endpoint+"/api/v1/events/batch", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+sweet.Key)
	resp, err := new(http.Client).Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func serve(ctx context.Context, addr string, h http.HandlerFunc) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	<-ctx.Done()
	defer serving.Wait()
	return s.Close()
}

// config has the programs in place; orders are the agent's.
func config(t *testing.T, orders ...string) system.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := system.Defaults()
	c.Bin, c.Dir = t.TempDir(), t.TempDir()
	c.MinBackoff, c.MaxBackoff = 10*time.Millisecond, 10*time.Millisecond
	for _, name := range []string{"apss-agent", "apss-functions", "apssctl"} {
		if err := os.Symlink(self, c.Program(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.StateDir(), "orders"), []byte(strings.Join(orders, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

type sights struct {
	mu                         sync.Mutex
	published, delivered, dead int
}

func (s *sights) watcher() system.Watcher {
	count := func(n *int) func(event.Raw, time.Time) {
		return func(event.Raw, time.Time) { s.mu.Lock(); *n++; s.mu.Unlock() }
	}
	return system.Watcher{Published: count(&s.published), Delivered: count(&s.delivered),
		Dead: func(event.Raw, string) { s.mu.Lock(); s.dead++; s.mu.Unlock() }}
}

// settled waits until so many events were seen to be published, and have come to their ends.
func settled(t *testing.T, s *system.System, published int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for s.Ledger.Totals().Published < published && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	if err := s.Settled(ctx, 200*time.Millisecond); err != nil {
		t.Error(err)
	}
}

func TestWayOfAnEvent(t *testing.T) {
	var seen sights
	s, err := system.Start(t.Context(), config(t, "/a", "/b", "/c"), seen.watcher())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled(t, s, 3)
	counts, err := s.AgentCounts(t.Context())
	if want := (system.AgentCounts{Sensed: 4}); counts != want || err != nil {
		t.Errorf("got the agent's counts %+v, %v; want %+v", counts, err, want)
	}
	if out, _, code, err := s.Control(t.Context(), "dlq", "list"); out != "dlq list at http://"+s.Addresses().Functions+" apss-local\n" || code != 3 || err != nil {
		t.Errorf("got %q, exit code %d, %v of apssctl", out, code, err)
	}
	if text, err := os.ReadFile(s.Config.ControlFile()); !strings.Contains(string(text), "export APSS_ADMIN_TOKEN="+s.Addresses().Token+"\n") || err != nil {
		t.Errorf("got %q, %v; want what apssctl needs", text, err)
	}
	if arrivals, _, _ := s.Feed.Recent(); len(arrivals) != 3 {
		t.Errorf("got %d arrivals, want 3", len(arrivals))
	}
	s.KillAgent()
	if err := s.StartAgent(t.Context()); err != nil {
		t.Error(err)
	}
	settled(t, s, 6)
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	want := ledger.Totals{Published: 6, Delivered: 6}
	if diff := cmp.Diff(want, s.Ledger.Totals()); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	if seen.published != 6 || seen.delivered != 6 || seen.dead != 0 {
		t.Errorf("got %d published, %d delivered, %d dead; want 6, 6, 0", seen.published, seen.delivered, seen.dead)
	}
	select {
	case err := <-s.Trouble():
		t.Errorf("got trouble: %v", err)
	default:
	}
}

func TestWhatNobodyAcknowledgesIsADeadLetter(t *testing.T) {
	c := config(t, "/a")
	c.MaxAttempts = 5
	var seen sights
	s, err := system.Start(t.Context(), c, seen.watcher())
	if err != nil {
		t.Fatal(err)
	}
	s.Receiver(system.SweetSecurity).Switches.Set(standin.Faults{Status: 500})
	if err := s.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled(t, s, 1)
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	want := ledger.Totals{Published: 1, Dead: 1}
	if diff := cmp.Diff(want, s.Ledger.Totals()); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	if _, _, reason := s.Feed.Recent(); reason != "not acknowledged in 5 attempts" {
		t.Errorf("got the reason %q", reason)
	}
}

func TestProgramsThatEnd(t *testing.T) {
	s, err := system.Start(t.Context(), config(t, "/a", "die"), system.Watcher{})
	if err != nil {
		t.Fatal(err)
	}
	err = s.StartAgent(t.Context())
	if err == nil || !strings.Contains(err.Error(), "apss-agent (pid ") || !strings.Contains(err.Error(), "dies, as ordered") {
		t.Errorf("got %v, want the agent's last words", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}

	s, err = system.Start(t.Context(), config(t, "/a"), system.Watcher{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.Agent().PID(), syscall.SIGKILL); err != nil { // behind the system's back
		t.Fatal(err)
	}
	select {
	case err := <-s.Trouble():
		if !strings.Contains(err.Error(), "signal: killed") {
			t.Errorf("got %v, want how it ended", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("got no trouble from a program that was killed")
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := system.Defaults()
	c.Bin, c.Dir, c.Watch = t.TempDir(), file, []string{"/a,b"}
	c.PubSubPort, c.SweetPort, c.Emulator = l.Addr().(*net.TCPAddr).Port, 70000, "127.0.0.1:1"
	c.AckDeadline, c.MaxAttempts, c.Filter = time.Second, 3, "x"
	err = c.Validate()
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"ack deadline 1s", "3 delivery attempts", `filter "x"`, "-pubsub-port: ", "address already in use",
		"-sweet-port " + strconv.Itoa(c.SweetPort), "PUBSUB_EMULATOR_HOST set", "apss-agent is not there: run make build",
		"apss-functions is not there", "apssctl is not there", `"/a,b": must have no comma`, "-dir: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got no %q in %q", want, err)
		}
	}
}
