// Package redistest runs the real Redis server of the machine for tests: in memory only, for one test.
package redistest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// program is Redis' own, as Debian and others name it.
const program = "redis-server"

// Server is a Redis server that listens on a socket of its own.
type Server struct {
	Socket string
	tb     testing.TB
	args   []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs a server, with arguments besides, until the test ends. Where there is no redis-server the test is skipped.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	if _, err := exec.LookPath(program); err != nil {
		tb.Skipf("SKIPPED: there is no %s here; apt-get install %s to run the tests on a real Redis", program, program)
	}
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // tb.TempDir's names may be too long for a socket's (108 bytes, unix(7))
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{Socket: filepath.Join(dir, "s"), tb: tb}
	s.args = append([]string{"--port", "0", "--unixsocket", s.Socket, "--dir", dir, "--save", "", "--appendonly", "no"}, args...)
	tb.Cleanup(func() {
		s.Kill()
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	s.Start()
	return s
}

// Start runs the server again after Kill.
func (s *Server) Start() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	// It outlives the test's context, until its cleanup.
	cmd := exec.CommandContext(context.Background(), program, s.args...) //nolint:gosec // arguments are the test's own
	out, err := os.OpenFile(s.Socket+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	s.cmd, s.exited = cmd, exited
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := new(net.Dialer).DialContext(s.tb.Context(), "unix", s.Socket)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-exited:
			deadline = time.Time{}
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(s.Socket + ".log")
			s.tb.Fatalf("the server does not come up: %v\n%s", err, log)
		}
	}
}

// Kill ends the server at once, with what it had in memory.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}
