package process

import (
	"os/exec"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// TestContainers: an event says where its process runs, asked once and early enough to say it of the end too; of a process
// that could not be asked about, where its parent runs.
func TestContainers(t *testing.T) {
	asked := map[int32]int{}
	var first, unreadable int32
	s, err := New(Config{Self: -1, Container: func(pid int32, start uint64) (*event.Container, bool) {
		asked[pid]++
		if start == 0 {
			t.Errorf("pid %d: asked without its start", pid)
		}
		switch pid {
		case first:
			return &event.Container{ID: "c1"}, true
		case unreadable:
			return nil, false
		}
		return nil, true // the host's
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.open(time.Now()); err != nil {
		t.Fatal(err)
	}
	defer s.close()

	parent := exec.Command("sh", "-c", "sleep 300 & echo $!; wait")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	first = start(t, parent)
	b := make([]byte, 16)
	n, err := out.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	pid, ok := number(trimNewline(b[:n]), 31)
	if !ok {
		t.Fatalf("got %q from the shell, want a pid", b[:n])
	}
	unreadable = int32(pid)

	told := map[int32]bool{}
	deadline := time.Now().Add(30 * time.Second) // the shell's child may wait long for its turn to call execve
	for now := time.Now(); len(told) < 2; now = now.Add(listEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("got execs of %v, want of %d and %d", told, first, unreadable)
		}
		events, _ := s.scan(now)
		for _, e := range events {
			pid := e.Process.PID
			if e.Type != event.ProcessExec || pid != first && pid != unreadable {
				continue
			}
			told[pid] = true
			if e.Container == nil || e.Container.ID != "c1" {
				t.Errorf("exec of %d: got container %v, want c1", pid, e.Container)
			}
		}
	}
	if c := s.Container(first); c == nil || c.ID != "c1" {
		t.Errorf("Container: got %v, want c1", c)
	}
	if c := s.Container(-1); c != nil {
		t.Errorf("Container of nobody: got %v", c)
	}
	_ = exec.Command("kill", "-9", string(trimNewline(b[:n]))).Run()
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if e := find(t, s, event.ProcessExit, first, anyEvent); e.Container == nil || e.Container.ID != "c1" {
		t.Errorf("exit: got container %v, want c1", e.Container)
	}
	if asked[first] != 1 {
		t.Errorf("asked %d times about one process, want once", asked[first])
	}
}
