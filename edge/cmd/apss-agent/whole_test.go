package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/edge/internal/redact"
	"github.com/apss-sensor/apss/edge/internal/source/file"
	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/shared/event"
)

// patience is how long a test waits for what must come. It is met on failure only.
const patience = 30 * time.Second

// whole are all sensors at work on the real kernel.
type whole struct {
	*sensors
	events chan *event.Event
}

// startWhole runs the sensors of s until their baselines stand.
func startWhole(t *testing.T, environ ...string) *whole {
	t.Helper()
	s, err := load(append([]string{"PUBLISHER=stdout", "STATE_DIR=" + t.TempDir(), "SPOOL_DIR=" + t.TempDir()}, environ...))
	if err != nil {
		t.Fatal(err)
	}
	x, err := newSensors(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := &whole{x, make(chan *event.Event, 1<<16)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	emit := func(e *event.Event) {
		select {
		case w.events <- e:
		case <-ctx.Done():
		}
	}
	sources := x.sources(pods.NewOwn(pods.Own{Name: "p", Namespace: "n"}, slog.New(slog.DiscardHandler)), func() any { return nil })
	for _, source := range sources {
		wg.Go(func() {
			if err := source.Run(ctx, emit, func(context.Context) error { return nil }); err != nil {
				t.Errorf("%s: %v", source.Name, err)
			}
		})
	}
	for _, source := range sources {
		w.wait(t, source.Name+" is ready", func() bool { return source.Ready == nil || source.Ready() == nil })
	}
	return w
}

// until returns the events up to the one that is wanted, that one last.
func (w *whole) until(t *testing.T, what string, wanted func(*event.Event) bool) []*event.Event {
	t.Helper()
	var got []*event.Event
	for deadline := time.After(patience); ; {
		select {
		case e := <-w.events:
			got = append(got, e)
			if wanted(e) {
				return got
			}
		case <-deadline:
			t.Fatalf("%s: no such event among %d", what, len(got))
		}
	}
}

// startPair runs a process sensor, to which what the test starts is none of the agent's, and a file sensor that asks it.
func startPair(t *testing.T, container func(int32, uint64) (*event.Container, bool), c file.Config) *whole {
	t.Helper()
	processes, err := process.New(process.Config{Self: 1 << 30, Container: container})
	if err != nil {
		t.Fatal(err)
	}
	views := make(chan []file.Root)
	c.Roots = func(context.Context) <-chan []file.Root { return views }
	c.Recent, c.Redact = recent("/", processes, func() string { return "" }), redact.Redactor{}.Text
	c.Logger = slog.New(slog.DiscardHandler)
	files, err := file.New(c)
	if err != nil {
		t.Fatal(err)
	}
	w := &whole{&sensors{files: files, processes: processes}, make(chan *event.Event, 1<<16)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	sealed := func(context.Context) error { return nil }
	wg.Go(func() { _ = processes.Run(ctx, func(*event.Event) {}, sealed) })
	wg.Go(func() { _ = files.Run(ctx, func(e *event.Event) { w.events <- e }, sealed) })
	wg.Go(func() { follow(ctx, "/proc", processes.Inhabitants, views) })
	w.wait(t, "the sensors are ready, and know what is in the files", func() bool {
		st := files.Stats()
		return processes.Watching() == nil && files.Watching() == nil && st.Watches > 0 && st.Unhashed == 0
	})
	return w
}

// wait waits for what makes no event.
func (w *whole) wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: never", what)
		}
	}
}

// Who writes a file for a moment only is a candidate, and what is written is shown, without credentials. On a busy machine
// some are over before anything of them could be read: then nobody is named, and the deed is done again.
func TestShortWritersAreNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "settings")
	if err := os.WriteFile(path, []byte("a = 0\npassword = hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), "source")
	w := startPair(t, nil, file.Config{Paths: []string{dir}, ReadPaths: []string{}})
	for _, test := range []struct{ line, writer string }{
		{"echo c >> " + path, "sh"}, {"exec cp " + source + " " + path, "cp"}, {"exec sed -i s/^a/aa/ " + path, "sed"},
	} {
		var writers []event.Writer
		for try, deadline := 0, time.Now().Add(patience); time.Now().Before(deadline); try++ {
			text := fmt.Sprintf("a = %d\npassword = hunter%d\n", try, try)
			if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", test.line)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v, %s", test.line, err, out)
			}
			got := w.until(t, test.line, func(e *event.Event) bool { return e.File.Path == path })
			f := got[len(got)-1].File
			if strings.Contains(f.Diff, "hunter") || !strings.HasPrefix(f.Diff, "---") {
				t.Errorf("%s: got the diff %q; want one, without the password", test.line, f.Diff)
			}
			writers = slices.DeleteFunc(f.Writers, func(w event.Writer) bool { return w.PID != int32(cmd.Process.Pid) })
			if len(writers) > 0 {
				break
			}
		}
		if len(writers) != 1 || writers[0].Confidence < 0.3 || writers[0].Confidence > 0.9 {
			t.Errorf("%s: got writers %+v, want the process among them, by no certainty", test.line, writers)
		}
	}
}

// What the agent does itself makes no events: its connections, those that it accepts, its look-ups, its reads.
func TestTheAgentSeesNothingOfItself(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "token")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("token", filepath.Join(dir, "link")); err != nil { // as the kubelet does
		t.Fatal(err)
	}
	w := startWhole(t, "WATCH_PATHS="+dir, "READ_PATHS="+secret)
	other := newStranger(t, false)

	port, err := strconv.Atoi(other.do(t, "listen"))
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	names, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	dial := w.dialer()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial.DialContext(ctx, network, names.LocalAddr().String())
	}}
	for range 20 {
		c, err := dial.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if b, err := w.files.ReadFile(filepath.Join(dir, "link")); err != nil || string(b) != "x" {
			t.Fatalf("reading our own: %q, %v", b, err)
		}
	}
	lookup, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _ = resolver.LookupHost(lookup, "example.com.") // nobody answers

	other.do(t, "read "+secret)
	other.do(t, "dial "+address)
	nameserver := uint16(names.LocalAddr().(*net.UDPAddr).Port)
	dials := func(e *event.Event) bool {
		return e.Type == event.NetworkConnect && e.Network.Direction == "outbound" && int(e.Network.DstPort) == port
	}
	reads, connections, lookups := 0, 0, 0
	w.until(t, "a stranger's read and connection", func(e *event.Event) bool {
		switch {
		case e.File != nil && e.File.Path == secret:
			reads++
		case dials(e):
			connections++
		case e.Network != nil && e.Network.DstPort == nameserver:
			lookups++
		}
		return reads > 0 && connections > 0
	})
	if reads != 1 || connections != 1 || lookups != 0 {
		t.Errorf("got %d reads, %d connections and %d look-ups; want the stranger's one read and one connection", reads, connections, lookups)
	}
	if st := w.files.Stats(); st.Opens != 1 {
		t.Errorf("the file sensor counted %d opens by others, want 1", st.Opens)
	}
}

// The files of a container that has a mount namespace and a root file system of its own are seen as it sees them.
func TestFilesOfAContainer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a mount namespace needs root: run the tests as root")
	}
	first, second := newStranger(t, true), newStranger(t, true)
	first.do(t, "write /etc/passwd")
	second.do(t, "write /etc/passwd")
	names := map[int32]string{first.pid: "one", second.pid: "two"}
	w := startPair(t, func(pid int32, _ uint64) (*event.Container, bool) {
		if names[pid] == "" {
			return nil, true
		}
		return &event.Container{ID: names[pid]}, true
	}, file.Config{Root: t.TempDir(), Paths: []string{"/etc/passwd", "/home/*/.ssh"}, ReadPaths: []string{"/etc/shadow"}})
	w.watches(t, 2)

	second.do(t, "append /etc/passwd")
	got := w.until(t, "a change in the second container", func(e *event.Event) bool { return e.Type == event.FileModify })
	e := got[len(got)-1]
	if len(got) != 1 || e.File.Path != "/etc/passwd" || e.Container == nil || e.Container.ID != "two" || !strings.Contains(e.File.Diff, "+eve::0:0") {
		t.Errorf("got %d events, the last %+v of container %+v; want the second container's /etc/passwd, with a diff", len(got), e.File, e.Container)
	}
	first.do(t, "write /home/late/.ssh/authorized_keys")               // a home that was not there
	got = w.until(t, "keys of a new home", func(e *event.Event) bool { // which may be seen before it is written
		return e.File.Path == "/home/late/.ssh/authorized_keys" && e.File.Size == int64(len(written))
	})
	if e := got[len(got)-1]; e.Container == nil || e.Container.ID != "one" {
		t.Errorf("got keys in %+v, want container one", e.Container)
	}
	second.end()
	w.watches(t, 1)
	if len(w.events) > 0 {
		t.Errorf("got %+v when a container ended, want nothing", (<-w.events).File)
	}
}

// watches waits until that many containers are watched.
func (w *whole) watches(t *testing.T, containers int) {
	t.Helper()
	w.wait(t, "containers are watched", func() bool {
		st := w.files.Stats()
		return st.Roots == containers && st.Unhashed == 0
	})
}
