package network

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/netns"
	"github.com/apss-sensor/apss/shared/event"
)

// pod is a process in a network namespace of its own.
type pod struct {
	tb  testing.TB
	cmd *exec.Cmd
	pid int32
}

// newPod starts one, or skips where that is not permitted.
func newPod(tb testing.TB) *pod {
	tb.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	err := cmd.Start()
	if errors.Is(err, unix.EPERM) {
		tb.Skipf("making a network namespace: %v; run as root", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	p := &pod{tb, cmd, int32(cmd.Process.Pid)}
	tb.Cleanup(p.die)
	p.inside(netns.LoopbackUp)
	return p
}

func (p *pod) die() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func (p *pod) inside(f func() error) {
	p.tb.Helper()
	if err := netns.Enter("/proc/"+strconv.Itoa(int(p.pid))+"/ns/net", f); err != nil {
		p.tb.Fatal(err)
	}
}

// listen listens in the pod.
func (p *pod) listen() (net.Listener, uint16) {
	p.tb.Helper()
	var l net.Listener
	p.inside(func() (err error) {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	p.tb.Cleanup(func() { l.Close() })
	return l, uint16(l.Addr().(*net.TCPAddr).Port)
}

// in returns the watched namespace of the pod.
func (p *pod) in(s *Sensor) *namespace {
	p.tb.Helper()
	for _, n := range s.spaces {
		if n.pid == p.pid {
			return n
		}
	}
	p.tb.Fatalf("the namespace of %d is not among %d", p.pid, len(s.spaces))
	return nil
}

func TestRealNamespaces(t *testing.T) {
	old := newPod(t)
	_, before := old.listen()
	s := watch(t, byDiag, Config{Namespaces: 256})
	if n := old.in(s); n.notices == nil {
		t.Skipf("network namespaces may not be entered: %s; run with CAP_SYS_ADMIN", s.Stats().Refused)
	}
	p := newPod(t)
	l, port := p.listen()
	// The namespace is new and so is what is in it; the process that has the socket is this one.
	e := find(t, s, "listen in the pod", func(e *event.Event) bool {
		if e.Network.DstPort == before {
			t.Errorf("%s %+v was there before", e.Type, e.Network)
		}
		return is(event.NetworkListen, listening, port)(e)
	})
	if e.Process == nil || e.Metadata["process_inferred"] == true {
		t.Errorf("got process %+v, %v; want the one that listens", e.Process, e.Metadata)
	}
	var from uint16
	p.inside(func() error {
		from = shortConnection(t, l).Port()
		return nil
	})
	e = find(t, s, "short connection in the pod", is(event.NetworkClose, outbound, port))
	if e.Network.SrcPort != from || e.Network.BytesSent != 7 || e.Process == nil || e.Process.PID != p.pid || e.Metadata["process_inferred"] != true {
		t.Errorf("got %+v of %+v, %v; want 7 bytes from port %d, and the pod's process inferred", e.Network, e.Process, e.Metadata, from)
	}
	if got := s.Stats(); got.NamespacesByProc != 0 || got.Refused != "" {
		t.Errorf("got %+v, want all by sock_diag", got)
	}
	// The last process of the namespace goes, and with it what was there.
	n := p.in(s)
	p.die()
	find(t, s, "end of listening in the pod", is(event.NetworkClose, listening, port))
	if !n.gone || n.notices != nil {
		t.Error("the namespace is held")
	}
	old.in(s)
}

// Where namespaces may not be entered, /proc/PID/net shows them.
func TestRealNamespacesByProc(t *testing.T) {
	p := newPod(t)
	s, err := New(Config{Self: -1, Namespaces: 256})
	if err != nil {
		t.Fatal(err)
	}
	s.enter = func(string, func() error) error { return fmt.Errorf("entering: %w", unix.EPERM) }
	if err := s.open(time.Now()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	l, port := p.listen()
	find(t, s, "listen in the pod", is(event.NetworkListen, listening, port))
	p.inside(func() error {
		shortConnection(t, l)
		return nil
	})
	e := find(t, s, "short connection in the pod", is(event.NetworkClose, outbound, port))
	if e.Network.State != "TIME_WAIT" || e.Process == nil || e.Process.PID != p.pid {
		t.Errorf("got %+v of %+v, want TIME_WAIT and the pod's process", e.Network, e.Process)
	}
	if got := s.Stats(); got.NamespacesByProc != got.Namespaces-1 || got.Refused == "" || got.Listing != byDiag {
		t.Errorf("got %+v, want all but our own by /proc, and why", got)
	}
}

// A namespace is seen through another of its processes when the first goes; beyond the bound none is.
func TestRealNamespacesMove(t *testing.T) {
	p := newPod(t)
	s := watch(t, byDiag, Config{Namespaces: 256})
	n := p.in(s)
	var second *exec.Cmd
	p.inside(func() error {
		second = exec.Command("sleep", "600")
		return second.Start()
	})
	t.Cleanup(func() {
		_ = second.Process.Kill()
		_ = second.Wait()
	})
	s.poll(time.Now())
	p.die()
	s.poll(time.Now().Add(surveyEvery))
	if n.gone || n.pid != int32(second.Process.Pid) {
		t.Errorf("seen through %d, gone %t; want %d", n.pid, n.gone, second.Process.Pid)
	}
	crowded := watch(t, byDiag, Config{Namespaces: 2})
	newPod(t)
	crowded.poll(time.Now())
	if got := crowded.Stats(); got.Namespaces != 2 || got.NamespacesLeftOut == 0 {
		t.Errorf("got %d namespaces and %d left out, want 2 and some", got.Namespaces, got.NamespacesLeftOut)
	}
}

func TestSurveyDue(t *testing.T) {
	for _, tt := range []struct {
		since time.Duration
		quiet bool
		want  bool
	}{
		{surveyEvery - 1, false, false},
		{surveyEvery, false, true},
		{surveyEvery, true, false},
		{6*surveyEvery - 1, true, false},
		{6 * surveyEvery, true, true},
	} {
		if got := surveyDue(tt.since, tt.quiet); got != tt.want {
			t.Errorf("surveyDue(%v, %t): got %t, want %t", tt.since, tt.quiet, got, tt.want)
		}
	}
}

// A pid that is in another namespace by now is not taken for the one that was meant.
func TestRealNamespaceOfAnother(t *testing.T) {
	p := newPod(t)
	s := watch(t, byDiag, Config{Namespaces: 256})
	other := s.newNamespace(p.in(s).id+1, p.pid, s.netOf(p.pid))
	if err := s.inside(other, func() error { return nil }); err == nil {
		t.Error("got no error")
	}
}
