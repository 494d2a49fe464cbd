package process

import (
	"context"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/process/connector"
	"github.com/apss-sensor/apss/shared/event"
)

// maxRecords bounds what waits for a scan, which comes within gather.
const maxRecords = 1 << 14

// record is one announcement, with what was read of the program at once.
type record struct {
	connector.Event
	program *details // of an exec; nil when the process was gone
}

// announced is the mechanism of the process connector. Its goroutine shares nothing with scans but the short list of
// records, so that no scan keeps it from reading a process that lives for a millisecond.
type announced struct {
	conn *connector.Conn
	read *reader
	at   *busy

	mu      sync.Mutex
	records []record
	lost    uint64
}

func dialConnector(c Config, b *blocked, at *busy) (*announced, error) {
	if filepath.Clean(c.Proc) != "/proc" {
		return nil, errOtherProc
	}
	conn, err := connector.Dial()
	if err != nil {
		return nil, err
	}
	read, err := newReader(c.Proc)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	read.cut, read.env, read.blocked = c.Redact, c.Env, b
	return &announced{conn: conn, read: read, at: at}, nil
}

func (a *announced) close() {
	_ = a.conn.Close()
	a.read.close()
}

func (a *announced) busy() *busy { return a.at }

func (a *announced) every(time.Duration) time.Duration { return listEvery }

// run keeps a thread for itself, before others where that is allowed: what it does not read within some hundred
// microseconds is gone, and it sleeps when nothing starts.
func (a *announced) run(ctx context.Context, wake func()) error {
	runtime.LockOSThread()                          // and never unlocked: the thread, with its priority, ends here
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20) // of this thread, setpriority(2); needs CAP_SYS_NICE
	woken := make(chan struct{})
	unwake := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = a.conn.Wake()
	})
	defer func() {
		if !unwake() {
			<-woken // the connection is closed after this
		}
	}()
	for ctx.Err() == nil {
		e, lost, err := a.conn.Receive()
		if err != nil {
			return err
		}
		if e.Kind == connector.None && lost == 0 || e.Kind == connector.Exit && e.Thread() {
			continue
		}
		if a.note(e, lost) {
			wake()
		}
	}
	return nil
}

// note reads what is announced and keeps it. It reports whether there was nothing before since the last scan.
func (a *announced) note(e connector.Event, lost uint64) bool {
	r := record{Event: e}
	if e.Kind == connector.Exec {
		a.at.begin(e.TGID)
		if d, err := a.read.readProgram(e.TGID); err == nil {
			r.program = &d
		}
		a.at.end()
	}
	return a.keep(r, lost)
}

func (a *announced) keep(r record, lost uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost += lost
	switch {
	case r.Kind == connector.None:
	case len(a.records) == maxRecords:
		a.lost++
	default:
		a.records = append(a.records, r)
		return len(a.records) == 1
	}
	return lost > 0
}

func (a *announced) take(s *Sensor, now time.Time) (list, all bool) {
	s.announced = true
	a.mu.Lock()
	records, lost := a.records, a.lost
	a.records, a.lost = nil, 0
	a.mu.Unlock()
	s.stats.Created += lost
	s.stats.Lost += lost
	keepOwn(records)
	for _, r := range records {
		switch r.Kind {
		case connector.Fork:
			s.announceFork(r.Event, now)
		case connector.Exec:
			s.announceExec(r, now)
		case connector.Exit:
			s.announceExit(r.Event)
		case connector.None: // is not kept
		}
	}
	return lost > 0, lost > 0
}

// keepOwn takes from an exec what was read so late that it belongs to the next one of the same process.
func keepOwn(records []record) {
	next := make(map[int32]uint64)
	for i := len(records) - 1; i >= 0; i-- {
		r := &records[i]
		if r.Kind != connector.Exec || r.program == nil || r.program.stat.stack == 0 {
			continue
		}
		if next[r.TGID] == r.program.stat.stack {
			r.program = nil
			continue
		}
		next[r.TGID] = r.program.stat.stack
	}
}

// startAt returns when in clock ticks since boot a process started that forked at t. The kernel takes its start a little
// earlier, so that it may be a tick too late.
func (s *Sensor) startAt(t time.Time) uint64 {
	return uint64(max(0, t.Sub(s.boot)) * ticks / time.Second)
}

// announceFork takes a process into the tree that is its parent's image, or counts a thread.
func (s *Sensor) announceFork(fork connector.Event, now time.Time) {
	s.stats.Created++
	if fork.Thread() {
		s.stats.Threads++
		s.accounted++
		if e := s.tree[fork.TGID]; e != nil {
			e.threads = true
		}
		return
	}
	start := s.startAt(fork.At)
	if old := s.tree[fork.PID]; old != nil {
		if old.start == start || old.start+1 == start {
			s.account(fork.PID) // a look was faster
			return
		}
		if old.gone.IsZero() {
			s.exit(old, fork.At)
		}
	}
	s.known(fork.Parent, now, listed)
	parent := s.tree[fork.Parent]
	e := &entry{start: start, guessed: true, born: now, read: fork.At, forked: true, list: s.stats.Lists}
	e.own = fork.PID == s.config.Self || parent != nil && parent.own && s.config.Self != 1
	if parent == nil || parent.process != nil { // else it is a kernel thread's
		e.process = s.describe(fork.PID, details{
			stat: stat{ppid: fork.Parent, start: start}, login: event.UnknownID, session: event.UnknownID,
		})
		if parent != nil {
			// What it runs is its parent's until it calls execve.
			e.process.Exe, e.process.Cmdline, e.process.Args = parent.process.Exe, parent.process.Cmdline, parent.process.Args
		}
	}
	if e.own || e.process == nil {
		s.stats.Excluded++
	}
	s.tree[fork.PID] = e
	s.account(fork.PID)
}

// announceExec makes the event of an announced program, with as much as could be read of it.
func (s *Sensor) announceExec(r record, now time.Time) {
	pid, d := r.TGID, r.program
	e := s.tree[pid]
	if d != nil && d.stat.start == 0 { // it was reaped while it was read
		d.stat = stat{start: s.startAt(r.At)}
		if e != nil {
			d.stat.start = e.start
			if e.process != nil {
				d.stat.ppid = e.process.PPID
			}
		}
	}
	if e != nil && (!e.gone.IsZero() || d != nil && !e.is(d.stat.start)) {
		if e.gone.IsZero() {
			s.exit(e, r.At)
		}
		e = nil // another process's pid
	}
	if e == nil { // its fork was lost
		e = &entry{start: s.startAt(r.At), guessed: true, born: now, forked: true}
		var ppid int32
		if d != nil {
			ppid, e.start = d.stat.ppid, d.stat.start
			s.known(ppid, now, listed)
		}
		parent := s.tree[ppid]
		e.own = pid == s.config.Self || parent != nil && parent.own && s.config.Self != 1
		s.tree[pid] = e
		s.account(pid)
	}
	if !e.forked && (e.read.After(r.At) || e.looked && d != nil && e.stack != 0 && e.stack == d.stat.stack) {
		return // a look was faster
	}
	before, previous := e.process, ""
	if before != nil && !e.forked {
		previous = before.Exe
	}
	if d == nil {
		d = &details{stat: stat{start: e.start}, login: event.UnknownID, session: event.UnknownID}
		if before != nil {
			d.stat.ppid = before.PPID
		}
	} else if e.guessed {
		e.start, e.guessed = d.stat.start, false
	}
	e.image, e.forked, e.asked, e.held, e.read, e.looked = d.stat.image, false, nil, nil, r.At, false
	p := s.describe(pid, *d)
	if before != nil { // who started it stays true
		p.PPID, p.Parent, p.Ancestors = before.PPID, before.Parent, before.Ancestors
	}
	e.process = p
	s.trim(e)
	if !e.own {
		s.exec(e, *d, previous, r.At)
	}
}

// announceExit ends a process, unless other threads of it live on.
func (s *Sensor) announceExit(exit connector.Event) {
	e := s.tree[exit.PID]
	if e == nil || !e.gone.IsZero() {
		return
	}
	status := syscall.WaitStatus(exit.Status)
	e.status = &status
	if e.threads {
		// When a thread calls execve the others end, the first one too, and the process goes on (execve(2)).
		st, err := s.read.statOf(exit.PID)
		if err == nil && e.is(st.start) && (st.threads > 1 || !st.dead()) {
			return // a list notices its end
		}
	}
	if e.forked {
		s.tallyFork(e)
	}
	s.exit(e, exit.At)
}
