package process

import (
	"syscall"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

const (
	// linger is how long a process that ended still names its children and answers [Sensor.Process].
	linger = 10 * time.Second
	// maxAncestors bounds the ancestors of an event, the parent not counted.
	maxAncestors = 8
	// maxAncestorRunes bounds the command line of each.
	maxAncestorRunes = 256
	// maxDetailed is how many processes are kept with their command lines, about 1 KiB each.
	maxDetailed = 16384
	// ticks per second of the times in stat: USER_HZ, which is 100 on every architecture that Go runs on, time(7).
	ticks = 100
)

// entry is one process in the tree.
type entry struct {
	image
	start   uint64
	process *event.Process   // nil for a kernel thread; handed out by Recent alone, and not changed after an exec
	asked   *event.Process   // what a fork was when it was asked for; nil when it was not
	where   *event.Container // nil until asked for, and for a process of the host
	born    time.Time        // when it was seen first
	gone    time.Time        // when it was seen no more
	list    uint64           // the list that it was in last
	forked  bool             // has not called execve
	own     bool             // the agent, or started by it
	emitted bool             // had an exec event
	counted bool             // is accounted for
	tallied bool             // is among the forks or the captured programs
	guessed bool             // start is that of the fork's announcement
	read    time.Time        // when the program was read, or announced
	looked  bool             // it was read by a look
	threads bool             // it may have more than one
	// baseline says that it was there when the sensor started.
	baseline bool
	settled  bool // it is where it will stay
	status   *syscall.WaitStatus
	// held is a new process whose arguments were not there yet: its event waits for them.
	held *details
}

// changed reports whether st shows another program than the entry, as far as stat alone can tell.
func (e *entry) changed(st stat) bool {
	if e.stack != 0 && st.stack != 0 {
		return e.stack != st.stack
	}
	return e.comm != st.comm
}

// is reports whether the entry is the process that started at that tick.
func (e *entry) is(start uint64) bool {
	return e.start == start || e.guessed && e.start == start+1
}

// source is why a pid is looked at.
type source int

const (
	baseline source = iota // it runs at start: no event
	passed                 // the cursor passed it
	listed                 // it is in the list, or known
)

// look reads pid as far as needed and notes what happened. It reports whether something with that pid was there.
func (s *Sensor) look(pid int32, now time.Time, why source) bool {
	e := s.tree[pid]
	if e == nil || !e.gone.IsZero() && why != listed {
		return s.lookFirst(pid, now, why)
	}
	st, err := s.read.statOf(pid)
	if d, found := s.read.early[pid]; found {
		st, err = d.stat, nil
	}
	switch {
	case err != nil:
		// One that was read as a parent in this scan and ended since was seen all the same.
		return e.born.Equal(now)
	case e.is(st.start):
		s.lookAgain(pid, e, st, now)
		return true
	}
	if e.gone.IsZero() {
		s.exit(e, now) // its pid belongs to another process now
	}
	return s.lookFirst(pid, now, why)
}

// lookFirst takes a process into the tree.
func (s *Sensor) lookFirst(pid int32, now time.Time, why source) bool {
	d, err := s.inspect(pid)
	if err != nil {
		return false
	}
	if d.stat.thread {
		s.stats.Threads++
		s.accounted++
		return true
	}
	if e := s.tree[pid]; e != nil && e.is(d.stat.start) {
		return true // it ended and is not reaped yet
	}
	e := &entry{
		image: d.stat.image, start: d.stat.start, born: now, read: now, looked: true, threads: d.stat.threads > 1,
		forked: d.stat.forked(), list: s.stats.Lists,
	}
	if d.stat.kernel() {
		s.tree[pid] = e
		s.stats.Excluded++
		return true
	}
	s.known(d.stat.ppid, now, why)
	e.process = s.describe(pid, d)
	parent := s.tree[d.stat.ppid]
	// As the first process of a namespace the agent inherits orphans of others; it starts none itself there.
	e.own = pid == s.config.Self || parent != nil && parent.own && s.config.Self != 1
	s.tree[pid] = e
	s.trim(e)
	switch {
	case why == baseline:
		e.tallied, e.baseline = true, true // it was created before anything was counted, or nearly so: see account
	case e.own:
		s.stats.Excluded++
		s.saw(d, now)
	case e.forked:
		s.tallyFork(e)
		s.fresh = append(s.fresh, pid)
	case d.starting():
		d.cmdlineRead = false
		e.process.Capture = event.CapturePartial
		e.forked, e.held = true, &d
		s.fresh = append(s.fresh, pid)
	default:
		s.exec(e, d, "", now)
	}
	return true
}

// known reads a parent that is not in the tree yet: it is newer than the last scan too.
func (s *Sensor) known(ppid int32, now time.Time, why source) {
	if e := s.tree[ppid]; ppid <= 0 || e != nil && e.gone.IsZero() || s.depth == maxAncestors {
		return
	}
	s.depth++
	s.look(ppid, now, why)
	s.depth--
}

// account counts a pid that the kernel handed out and that was looked at, once.
func (s *Sensor) account(pid int32) {
	if e := s.tree[pid]; e != nil && !e.counted {
		e.counted = true
		s.accounted++
		if e.baseline { // it began between the first look at the cursor and the first list
			s.stats.Excluded++
		}
	}
}

// lookAgain notices what became of a process in the tree.
func (s *Sensor) lookAgain(pid int32, e *entry, st stat, now time.Time) {
	if e.process == nil || e.own || !e.gone.IsZero() {
		return
	}
	if st.dead() {
		s.exit(e, now)
		return
	}
	if st.forked() || !e.forked && !e.changed(st) {
		return
	}
	d, err := s.inspect(pid)
	settled := now.Sub(e.born) >= forkAge
	if err != nil || !e.is(d.stat.start) || d.stat.dead() || d.starting() && !settled {
		return // the next scan sees what it is
	}
	before := e.process
	same := d.joined == before.Cmdline
	blind := e.stack == 0 || d.stat.stack == 0
	if !e.forked && same && (blind || !settled && d.exe == before.Exe) {
		e.image = d.stat.image // it renamed itself, or execve had not placed its stack when it was seen
		return
	}
	previous := ""
	if !e.forked {
		previous = before.Exe
	}
	e.image, e.forked, e.asked, e.held, e.read, e.looked = d.stat.image, false, nil, nil, now, true
	p := s.describe(pid, d)
	// It may have been given to another parent since; who started it stays true.
	p.PPID, p.Parent, p.Ancestors = before.PPID, before.Parent, before.Ancestors
	e.process = p
	s.trim(e)
	s.exec(e, d, previous, now)
}

// trim drops what only children need when there are too many processes.
func (s *Sensor) trim(e *entry) {
	if len(s.tree) > maxDetailed {
		s.stats.Trimmed++
		p := *e.process
		p.Cmdline, p.Args, p.Cwd = "", nil, ""
		e.process = &p
	}
}

// tallyFork counts a process that runs no program of its own, once.
func (s *Sensor) tallyFork(e *entry) {
	if !e.tallied && e.process != nil && !e.own {
		e.tallied = true
		s.stats.Forks++
	}
}

// exec makes the event of a program's start.
func (s *Sensor) exec(e *entry, d details, previous string, now time.Time) {
	if e.tallied {
		s.stats.Twice++
	}
	e.tallied = true
	switch e.process.Capture {
	case event.CaptureFull:
		s.stats.Full++
	case event.CapturePartial:
		s.stats.Partial++
	default:
		s.stats.ByName++
	}
	if d.denied {
		s.sayDenied(e.process.PID)
	}
	s.stats.Redacted += uint64(d.redacted)
	e.emitted = true
	s.saw(d, now)
	p := e.process.Clone()
	p.Cmdline, p.Args = d.joined, d.args // which the tree may have trimmed
	s.remember(e, now)
	s.events = append(s.events, &event.Event{
		Type: event.ProcessExec, Timestamp: now, Container: s.container(e), Process: p, Metadata: metadata(d, previous),
	})
}

// exit makes the event of the end of a process that had one of its start.
func (s *Sensor) exit(e *entry, now time.Time) {
	e.gone = now
	if e.process != nil {
		s.blocked.forget(e.process.PID)
	}
	if e.held != nil {
		s.exec(e, *e.held, "", now)
		e.held = nil
	}
	if e.forked && e.counted && !s.announced {
		s.accounted-- // it may have run a program since it was seen
		if e.tallied {
			s.stats.Twice++
		}
	}
	if !e.emitted {
		return
	}
	s.stats.Exits++
	s.events = append(s.events, &event.Event{
		Type: event.ProcessExit, Timestamp: now, Container: s.container(e), Process: e.process.Clone(), Metadata: ending(e.status),
	})
}

// container returns where e runs, asked once; of a process that is gone already, where its parent does.
func (s *Sensor) container(e *entry) *event.Container {
	if e.where != nil || e.process == nil || s.config.Container == nil {
		return e.where
	}
	where, known := s.config.Container(e.process.PID, e.start)
	e.where = where
	if !known {
		if parent := s.tree[e.process.PPID]; parent != nil && parent != e {
			e.where = parent.where
		}
	}
	return e.where
}

// Container returns the container that pid runs in, nil for the host's processes and for those that are not known. The
// result is shared: it must not be changed.
func (s *Sensor) Container(pid int32) *event.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.tree[pid]; e != nil {
		return s.container(e)
	}
	return nil
}

// ending tells how a process ended, nil when that is not known.
func ending(status *syscall.WaitStatus) map[string]any {
	switch {
	case status == nil:
		return nil
	case status.Signaled():
		return map[string]any{"exit_signal": int64(status.Signal())}
	}
	return map[string]any{"exit_code": int64(status.ExitStatus())}
}

// metadata holds what an event's process has no field for; nil when there is nothing.
func metadata(d details, previous string) map[string]any {
	m := make(map[string]any)
	if d.truncated {
		m["cmdline_truncated"] = true
	}
	if d.held {
		m["cmdline_held_up"] = true
	}
	if d.redacted > 0 {
		m["redacted"] = d.redacted
	}
	if d.script != "" {
		m["script"] = d.script
	}
	if len(d.env) > 0 {
		m["env"] = d.env
	}
	if d.stdioSocket {
		m["stdio_socket"] = true
	}
	if d.credRead && d.cred.real != d.cred.effective {
		m["real_uid"] = int64(d.cred.real)
	}
	if d.exe == "" && d.stat.comm != [16]byte{} {
		m["comm"] = d.stat.name()
	}
	if previous != "" {
		m["previous_exe"] = previous
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// describe makes the record of a process.
func (s *Sensor) describe(pid int32, d details) *event.Process {
	p := &event.Process{
		PID: pid, PPID: d.stat.ppid,
		Exe: d.exe, ExeDeleted: d.exeDeleted,
		Cmdline: d.joined, Args: d.args, Cwd: d.cwd,
		UID: event.UnknownID, LoginUID: d.login, SessionID: d.session,
		StartTime: s.boot.Add(time.Duration(d.stat.start) * time.Second / ticks).UTC(),
		Capture:   event.CapturePartial,
	}
	if d.credRead {
		p.UID = d.cred.effective
		p.User = s.users.name(p.UID)
	}
	if d.credRead && d.cmdlineRead && !d.truncated && d.exe != "" {
		p.Capture = event.CaptureFull
	}
	if p.PPID == 0 {
		return p
	}
	p.Parent = &event.Ancestor{PID: p.PPID}
	parent := s.tree[p.PPID]
	if parent == nil || parent.process == nil || parent.start > d.stat.start {
		return p
	}
	*p.Parent = ancestor(parent.process)
	if parent.process.Parent != nil {
		p.Ancestors = make([]event.Ancestor, 0, 1+len(parent.process.Ancestors))
		p.Ancestors = append(append(p.Ancestors, *parent.process.Parent), parent.process.Ancestors...)
		p.Ancestors = p.Ancestors[:min(len(p.Ancestors), maxAncestors)]
	}
	return p
}

func ancestor(p *event.Process) event.Ancestor {
	return event.Ancestor{PID: p.PID, Exe: p.Exe, Cmdline: firstRunes(p.Cmdline, maxAncestorRunes)}
}
