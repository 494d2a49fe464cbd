package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const childDir = "SPOOL_TEST_CHILD_DIR"

// TestMain is also the child that TestKill kills: it appends records and confirms each third of what it gets back,
// and says "a 7" once 7 is appended and "c 6" once 6 is confirmed, for ever.
func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := Open(Config{Dir: dir, MaxBytes: 64 << 20, SegmentBytes: 64 << 10, Fresh: 2, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if err := s.Append(payload(i, 1000+i%3000), 1); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("a", i)
		r, err := s.Next(context.Background())
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		if i%3 == 0 {
			s.Confirm(r)
			fmt.Println("c", number(r))
		}
	}
}

// TestKill kills a process that uses a spool with SIGKILL in the middle of its work, and holds what is found then
// against what the process had said.
func TestKill(t *testing.T) {
	for _, lines := range []int{1, 50, 500, 2000} {
		t.Run(fmt.Sprintf("after_%d_lines", lines), func(t *testing.T) {
			c := config(t, func(c *Config) { c.MaxBytes = 64 << 20 })
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childDir+"="+c.Dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			appended, confirmed := map[string]bool{}, map[string]bool{}
			said := 0
			for lines, scanner := lines, bufio.NewScanner(out); scanner.Scan(); {
				verb, n, _ := strings.Cut(scanner.Text(), " ")
				switch verb {
				case "a":
					appended[n] = true
				case "c":
					confirmed[n] = true
				default:
					t.Fatal(scanner.Text())
				}
				if said++; said == lines {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended with %v, want killed", err)
			}
			s := open(t, c)
			found := map[string]bool{}
			for _, n := range due(t, s, none) {
				if found[n] {
					t.Errorf("%s is there twice", n)
				}
				found[n] = true
			}
			for n := range appended {
				if !found[n] && !confirmed[n] {
					// Confirmed, and killed before it could say so: only the last of all.
					if len(appended)%3 == 1 && n == fmt.Sprint(len(appended)-1) {
						continue
					}
					t.Errorf("%s was acknowledged and is lost", n)
				}
			}
			for n := range confirmed {
				if found[n] {
					t.Errorf("%s was confirmed and comes again", n)
				}
			}
			if extra := len(found) + len(confirmed) - len(appended); extra > 1 {
				t.Errorf("%d more records than were said, want at most the one in the making", extra)
			}
			if len(found) == 0 && lines > 1 {
				t.Error("nothing was found: the test tests nothing")
			}
		})
	}
}

// TestDiskFull fills a file system of 256 KiB, and then makes room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v; this test needs root with CAP_SYS_ADMIN", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	said := new(counter)
	c := config(t, func(c *Config) {
		c.Dir, c.MaxBytes, c.Logger = dir+"/spool", 64<<20, slog.New(slog.NewTextHandler(said, nil))
	})
	s := open(t, c)
	n := 0
	var err error
	for ; n < 1000 && err == nil; n++ {
		err = s.Append(payload(n, 5000), 1)
	}
	n-- // was refused
	if !errors.Is(err, unix.ENOSPC) || !errors.Is(s.Err(), unix.ENOSPC) {
		t.Fatalf("a full disk: Append says %v, Err says %v, want ENOSPC of both", err, s.Err())
	}
	for range 50 {
		if err := s.Append(payload(n, 5000), 1); err == nil {
			t.Fatal("accepted though the disk is full")
		}
	}
	if got := said.Load(); got != 1 {
		t.Errorf("said %d times that the disk is full, want once a minute", got)
	}
	if got := s.Stats().Failures; got != 51 {
		t.Errorf("failures: got %d, want 51", got)
	}
	got := due(t, s, all) // which removes segments and so makes room
	put(t, s, n, 2, 5000)
	if err := s.Err(); err != nil {
		t.Errorf("after room was made: %v", err)
	}
	got = append(got, due(t, s, all)...)
	if diff := cmp.Diff(numbers(0, n+2), got); diff != "" {
		t.Errorf("handed out (-want +got):\n%s", diff)
	}
	s.Close()
	s = open(t, c)
	if st := s.Stats(); st.Torn != 0 || st.Corrupt != 0 {
		t.Errorf("got %+v, want no trace of the failed writes", st)
	}
}

// counter counts the lines of a log.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) { c.Add(1); return len(p), nil }
