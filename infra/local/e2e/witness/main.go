// Command witness is what the end-to-end tests run in pods beside the agent: an application to be seen, and an eye that
// tells what may really be read, by code that shares nothing with the agent's.
//
//	witness app [MARK [FILE]]       live; with a mark, run "witness mark MARK" twice a second, and write it to a file
//	witness mark MARK               live for a moment
//	nginx obey HOST:PORT            be a web server that was broken into, and do what somebody there says; see obey.go
//	cat FILE..., sh -c COMMAND      read the files; live for a second
//	sh -i                           live until the input ends
//	witness hold ANYTHING           live for a second
//	witness stay ANYTHING           live for five
//	witness nothing                 end at once
//	witness look                    print, as JSON, what of each process in view may be read
//	witness after N COMMAND...      wait until N applications are in view, then become COMMAND
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is what may be read of one process.
type Process struct {
	PID     int    `json:"pid"`
	UID     uint32 `json:"uid"`
	Cmdline string `json:"cmdline"` // arguments joined by spaces; empty when it may not be read
	Exe     string `json:"exe"`     // empty when it may not be read
	Root    bool   `json:"root"`
	Files   bool   `json:"files"`
	Mine    bool   `json:"mine"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case filepath.Base(os.Args[0]) == "cat":
		return cat(ctx, args)
	case len(args) == 1 && args[0] == "-i":
		return shell(ctx)
	case len(args) == 1 && args[0] == "nothing":
		return nil
	case len(args) == 2 && (args[0] == "hold" || args[0] == "-c"):
		pause(ctx, lives)
		return nil
	case len(args) == 2 && args[0] == "stay":
		pause(ctx, stays)
		return nil
	case len(args) == 2 && args[0] == "obey":
		return obey(ctx, args[1])
	case len(args) >= 1 && len(args) <= 3 && args[0] == "app":
		return app(ctx, args[1:])
	case len(args) == 2 && args[0] == "mark":
		pause(ctx, 100*time.Millisecond)
		return nil
	case len(args) == 1 && args[0] == "look":
		return json.NewEncoder(os.Stdout).Encode(look())
	case len(args) > 2 && args[0] == "after":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		for apps() < n && ctx.Err() == nil {
			pause(ctx, 50*time.Millisecond)
		}
		return syscall.Exec(args[2], args[2:], os.Environ()) //nolint:gosec // it is what its caller asks for
	}
	return fmt.Errorf("no such use: %q", args)
}

func app(ctx context.Context, mark []string) error {
	for n := 0; ctx.Err() == nil; n++ {
		pause(ctx, 500*time.Millisecond)
		if len(mark) == 0 {
			continue
		}
		if len(mark) > 1 {
			if err := os.WriteFile(mark[1], fmt.Appendf(nil, "%s %d\n", mark[0], n), 0o600); err != nil { //nolint:gosec // the file that the test names
				return err
			}
		}
		err := exec.CommandContext(ctx, "/proc/self/exe", "mark", mark[0]).Run() //nolint:gosec // ourselves
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func apps() (n int) {
	for _, p := range look() {
		if strings.Contains(p.Cmdline, "/witness app") {
			n++
		}
	}
	return n
}

func look() (all []Process) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			continue // it ended
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		p := Process{PID: pid, UID: info.Sys().(*syscall.Stat_t).Uid, Mine: pid == os.Getpid()}
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		p.Cmdline = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		p.Exe, _ = os.Readlink(dir + "/exe")
		_, err = os.ReadDir(dir + "/root/")
		p.Root = !errors.Is(err, os.ErrPermission)
		_, err = os.ReadDir(dir + "/fd")
		p.Files = err == nil
		all = append(all, p)
	}
	return all
}
