package process

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/process/opens"
)

const (
	// maxAtOnce bounds the pids that are read at a wake-up; a scan reads the others.
	maxAtOnce = 64
	// maxOpens bounds what waits for a scan, and what a scan waits to decide on.
	maxOpens = 4096
	// proofWait is how long an open waits for the loader's that proves it: execve opens both within microseconds.
	proofWait = 20 * time.Millisecond
	// peekEvery is how often a fork that is about to call execve is looked at.
	peekEvery = time.Millisecond
	// syncEvery is how often the mount namespaces in view are listed; a new process's is looked at when it is seen.
	// Where no process began since, it is done in every sixth turn.
	syncEvery     = 10 * time.Second
	syncQuietEach = 6
)

// opened is the mechanism of executables being opened. Its goroutine reads the newest pids when that happens.
type opened struct {
	watch  *opens.Watcher
	read   *reader
	at     *busy
	loadID int
	stop   int // an eventfd(2), which ends a wait
	cursor int32
	max    int32
	forks  []forked
	recent []openedAt
	synced time.Time
	until  int32 // the cursor then

	mu       sync.Mutex
	programs map[int32]details // by pid, read at a wake-up
	opens    []openedAt
	lost     uint64
	stats    opens.Stats
}

// forked is a fork that has not called execve when it was seen.
type forked struct {
	pid   int32
	since time.Time
}

// openedAt is an executable that was opened.
type openedAt struct {
	*opens.Open
	at time.Time
}

func watchOpens(c Config, b *blocked, at *busy) (*opened, error) {
	watch, err := opens.New(c.Proc)
	if err != nil {
		return nil, err
	}
	o := &opened{watch: watch, at: at, loadID: -1, stop: -1, programs: make(map[int32]details)}
	if o.read, err = newReader(c.Proc); err != nil {
		_ = watch.Close()
		return nil, err
	}
	o.read.cut, o.read.env, o.read.blocked = c.Redact, c.Env, b
	watch.Before = func(pid int32) bool {
		at.begin(pid)
		return !b.has(pid)
	}
	defer at.end()
	if o.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		o.loadID, err = unix.Open(filepath.Join(c.Proc, "loadavg"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		err = o.sync(time.Now())
	}
	if st := watch.Stats(); err == nil && st.Watches == 0 {
		err = fmt.Errorf("no folder of executables may be watched: %d processes' are hidden; %s", st.Hidden, st.Reason)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	o.cursor, _ = cursorOf(o.loadID)
	o.max = o.read.pidMax()
	return o, nil
}

func (o *opened) close() {
	_ = o.watch.Close()
	o.read.close()
	for _, fd := range [...]int{o.loadID, o.stop} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (o *opened) busy() *busy { return o.at }

// every is rarer than polling alone would be: what starts nearly always opens something that is watched.
func (o *opened) every(interval time.Duration) time.Duration {
	return max(interval, 100*time.Millisecond)
}

// sync watches what is in view.
func (o *opened) sync(now time.Time) error {
	var pids []int32
	if _, err := o.read.list(func(pid int32) { pids = append(pids, pid) }); err != nil {
		return err
	}
	o.watch.Sync(pids)
	o.at.end()
	o.synced, o.until = now, o.cursor
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats = o.watch.Stats()
	return nil
}

func (o *opened) run(ctx context.Context, wake func()) error {
	runtime.LockOSThread() // and never unlocked: the thread, with its priority, ends here
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 50_000, 0, 0, 0) // of this thread, the kernel's default: a fork is looked at when it is due
	ended := make(chan struct{})
	unstop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_, _ = unix.Write(o.stop, binary.NativeEndian.AppendUint64(nil, 1))
	})
	defer func() {
		if !unstop() {
			<-ended // the descriptor is closed after this
		}
	}()
	waiting := []unix.PollFd{{Fd: int32(o.watch.FD()), Events: unix.POLLIN}, {Fd: int32(o.stop), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		wait := syncEvery // scans read the cursor: to be woken for nothing costs a tenth of a millisecond
		if len(o.recent) > 0 {
			wait = proofWait
		}
		if len(o.forks) > 0 {
			wait = peekEvery
		}
		timeout := unix.NsecToTimespec(wait.Nanoseconds())
		n, err := unix.Ppoll(waiting, &timeout, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for inotify: %w", err)
		}
		now := time.Now()
		running := n == 0
		if n > 0 {
			if running, err = o.readOpens(now); err != nil {
				return err
			}
		}
		if found, handed := o.look(now, running), o.handOver(now); found || handed {
			wake()
		}
		if since := now.Sub(o.synced); since >= syncEvery && o.cursor != o.until || since >= syncQuietEach*syncEvery {
			if err := o.sync(now); err != nil {
				return err
			}
		}
	}
	return nil
}

// readOpens takes what was opened and reports whether a program runs already: its loader asked for its cache. When only
// the program or its loader was opened, execve is still at work, and a look would come too early.
func (o *opened) readOpens(now time.Time) (running bool, err error) {
	all, overflow, err := o.watch.Read()
	for _, open := range all {
		running = running || open.Kind == opens.Cache
		if open.Kind != opens.Program {
			continue
		}
		if len(o.recent) == maxOpens {
			overflow = true
			break
		}
		o.recent = append(o.recent, openedAt{open, now})
	}
	if overflow {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.lost++
	}
	return running || overflow, err
}

// look reads the pids that are new and the forks that may have called execve since, newest first, unless it is too
// early for them. It reports whether there is something for a scan.
func (o *opened) look(now time.Time, running bool) bool {
	found := false
	if running {
		found = o.lookAtForks(now)
	}
	cur, ok := cursorOf(o.loadID)
	if !ok || cur == o.cursor {
		return found
	}
	left := maxAtOnce
	for pid := range (span{prev: o.cursor, cur: cur, max: o.max}).newestFirst() {
		read, gone := false, false
		if running {
			read, gone = o.readNow(pid)
		}
		if !read && !gone && len(o.forks) < maxAtOnce {
			o.forks = append(o.forks, forked{pid, now})
		}
		if left--; left == 0 {
			break
		}
	}
	o.cursor = cur
	return true
}

// lookAtForks reads the forks that have called execve since.
func (o *opened) lookAtForks(now time.Time) bool {
	found := false
	o.forks = slices.DeleteFunc(o.forks, func(f forked) bool {
		read, gone := o.readNow(f.pid)
		found = found || read
		return read || gone || now.Sub(f.since) >= forkAge
	})
	return found
}

// readNow reads a pid and keeps what it runs, unless it runs nothing of its own yet.
func (o *opened) readNow(pid int32) (read, gone bool) {
	// The kernel takes the mark of a fork off after the new program's memory is in place: what is read after that is the
	// program's.
	st, err := o.read.statOf(pid)
	if err != nil || st.thread || st.kernel() || st.dead() {
		return false, true
	}
	if st.forked() {
		return false, false
	}
	o.at.begin(pid)
	defer o.at.end()
	d, err := o.read.readProgram(pid)
	if err != nil || d.stat.start != st.start {
		return false, true
	}
	if d.starting() {
		return false, false
	}
	o.watch.See(pid)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.programs) < maxOpens {
		o.programs[pid] = d
	}
	return true, false
}

// handOver gives the scans what has waited for its proof.
func (o *opened) handOver(now time.Time) bool {
	n := 0
	for n < len(o.recent) && now.Sub(o.recent[n].at) >= proofWait {
		n++
	}
	if n == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	room := min(n, maxOpens-len(o.opens))
	o.lost += uint64(n - room)
	o.opens = append(o.opens, o.recent[:room]...)
	o.recent = slices.Delete(o.recent, 0, n)
	return true
}

func (o *opened) take(s *Sensor, now time.Time) (list, all bool) {
	o.mu.Lock()
	programs, opens, lost, stats := o.programs, o.opens, o.lost, o.stats
	o.programs, o.opens, o.lost = make(map[int32]details), nil, 0
	o.mu.Unlock()
	s.stats.Lost += lost
	s.stats.Namespaces, s.stats.Watches, s.stats.WatchesRefused, s.stats.Hidden = stats.Namespaces, stats.Watches, stats.Refused, stats.Hidden
	s.read.early = programs
	list, all = s.passCursor(now)
	for pid := range programs { // of those that earlier scans knew as forks
		s.look(pid, now, passed)
	}
	s.read.early = nil
	return list, s.unseen.add(opens, now) || all || lost > 0
}
