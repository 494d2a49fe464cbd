package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// TestMain makes the test binary the program itself when it is started as a child.
func TestMain(m *testing.M) {
	if os.Getenv("APSS_TEST_PROGRAM") != "" {
		os.Exit(profiled(os.Getenv("APSS_TEST_PROFILE"), func() int { return command(nil, os.Environ(), os.Stdout, os.Stderr) }))
	}
	os.Exit(m.Run())
}

// profiled calls f, with a CPU profile in file when one is named.
func profiled(file string, f func() int) int {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		panic(err)
	}
	defer out.Close()
	if err := pprof.StartCPUProfile(out); err != nil {
		panic(err)
	}
	defer pprof.StopCPUProfile()
	return f()
}

// patience is how long a test waits for what must come. It is met on failure only.
const patience = 30 * time.Second

// process is the program in a process of its own.
type process struct {
	*exec.Cmd
	url string
	mu  sync.Mutex
	log bytes.Buffer
	eof chan struct{}
}

// start runs the program against a receiver and waits until it serves.
func start(tb testing.TB, receiver string, env ...string) *process {
	tb.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		address := l.Addr().String()
		_ = l.Close()
		_, port, _ := net.SplitHostPort(address)
		p := spawn(tb, append([]string{
			"PORT=" + port, "PUBSUB_PROJECT_ID=p", "PUBSUB_EMULATOR_HOST=127.0.0.1:1",
			"SWEET_SECURITY_ENDPOINT=" + receiver, "SWEET_SECURITY_API_KEY=the-key",
		}, env...))
		p.url = "http://" + address
		if !strings.Contains(p.logged(), syscall.EADDRINUSE.Error()) {
			return p
		}
	}
	tb.Fatal("others always take the port before the program does")
	return nil
}

// spawn runs the program with env and nothing else, and waits until it serves or ends.
func spawn(tb testing.TB, env []string) *process {
	tb.Helper()
	p := &process{Cmd: exec.Command(os.Args[0]), eof: make(chan struct{})}
	p.Env = append([]string{"APSS_TEST_PROGRAM=1"}, env...)
	stderr, err := p.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = p.Process.Kill() })
	serving := make(chan struct{})
	go func() {
		defer close(p.eof)
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			fmt.Fprintln(&p.log, lines.Text())
			p.mu.Unlock()
			if strings.Contains(lines.Text(), `"serving"`) {
				close(serving)
			}
		}
	}()
	select {
	case <-serving:
	case <-p.eof:
	case <-time.After(patience):
		tb.Fatal("the program does not serve")
	}
	return p
}

// end waits for the program and returns its exit code and log.
func (p *process) end(tb testing.TB) (int, string) {
	tb.Helper()
	select {
	case <-p.eof:
	case <-time.After(patience):
		tb.Fatalf("the program does not end; its log:\n%s", p.logged())
	}
	_ = p.Wait()
	return p.ProcessState.ExitCode(), p.logged()
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// pushBody is a push request with n events.
func pushBody(tb testing.TB, messageID string, n int, seed uint64) []byte {
	tb.Helper()
	var b envelope.Batch
	for _, e := range eventtest.Many(n, seed) {
		b.Append(e)
	}
	m := b.Seal(envelope.Source{AgentID: "c1/n1", Cluster: "c1"}, eventtest.Time())
	body, err := json.Marshal(map[string]any{
		"subscription": "projects/p/subscriptions/s",
		"message": map[string]any{
			"data": base64.StdEncoding.EncodeToString(m.Data), "attributes": m.Attributes, "messageId": messageID,
			"message_id": messageID, "publishTime": "2026-11-22T10:00:00.123Z", "publish_time": "2026-11-22T10:00:00.123Z",
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

func post(url string, body []byte) (int, error) {
	r, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return r.StatusCode, err
}

// gate is a receiver that answers when it is opened.
func gate(t *testing.T) (url string, reached <-chan struct{}, open func()) {
	t.Helper()
	in, out := make(chan struct{}, 10), make(chan struct{})
	open = sync.OnceFunc(func() { close(out) })
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		in <- struct{}{}
		select {
		case <-out:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(open)
	return server.URL, in, open
}

// TestDrain: after SIGTERM what is in hand is delivered and answered, and the program ends well.
func TestDrain(t *testing.T) {
	receiver, reached, open := gate(t)
	p := start(t, receiver)
	statuses := make(chan int, 2)
	push := func(id string) {
		status, err := post(p.url+"/events/sweetsecurity", pushBody(t, id, 10, 1))
		if err != nil {
			t.Error(err)
		}
		statuses <- status
	}
	go push("1")
	<-reached // the first push is with the receiver
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	open()
	if status := <-statuses; status != http.StatusNoContent {
		t.Errorf("got %d, want what was in hand to be delivered", status)
	}
	if code, log := p.end(t); code != 0 {
		t.Errorf("got exit code %d, want 0; log:\n%s", code, log)
	}
}

// TestDrainWithoutReceiver: what cannot be delivered in the time that Cloud Run gives is refused, not dropped. A machine
// that stalls may take a second of that time from the program, but not always.
func TestDrainWithoutReceiver(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the grace time, 7 s; run without -short")
	}
	err := errors.New("not tried")
	for try := 0; try < 3 && err != nil; try++ {
		err = drainWithoutReceiver(t)
	}
	if err != nil {
		t.Error(err)
	}
}

func drainWithoutReceiver(t *testing.T) error {
	t.Helper()
	receiver, reached, open := gate(t)
	defer open()
	p := start(t, receiver)
	answered := make(chan error, 1)
	go func() {
		got, err := post(p.url+"/events/sweetsecurity", pushBody(t, "1", 10, 1))
		if err == nil && got != http.StatusServiceUnavailable {
			err = fmt.Errorf("got %d, want 503", got)
		}
		answered <- err
	}()
	<-reached
	begin := time.Now()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := <-answered
	if code, log := p.end(t); code != 0 {
		err = errors.Join(err, fmt.Errorf("got exit code %d, want 0; log:\n%s", code, log))
	}
	if took := time.Since(begin); took > 10*time.Second {
		err = errors.Join(err, fmt.Errorf("it took %v, Cloud Run kills after 10 s", took))
	}
	return err
}

// TestWrongSettings: everything wrong is said at once, and nothing is started.
func TestWrongSettings(t *testing.T) {
	p := spawn(t, []string{"PORT=0", "FORWARD_LINGER=1h", "FORWARD_LINGERS=1s", "SWEET_SECURITY_ENDPOINT=http://sweet.example",
		"SWEET_SECURITY_API_KEY=vault://hunter2"})
	code, log := p.end(t)
	if code != 2 {
		t.Errorf("got exit code %d, want 2", code)
	}
	for _, want := range []string{"PORT", "FORWARD_LINGER ", "FORWARD_LINGERS", "SWEET_SECURITY_ENDPOINT", "SWEET_SECURITY_API_KEY", "PUBSUB_PROJECT_ID"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not name %s:\n%s", want, log)
		}
	}
	if strings.Contains(log, "hunter2") {
		t.Errorf("the log tells the secret:\n%s", log)
	}
}
