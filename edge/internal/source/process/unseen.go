package process

import (
	"path"
	"slices"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

const (
	// grace is how long an open waits, at least, for the process that it belongs to. Then, not more often than listEvery,
	// all processes are looked at once more: what still accounts for no open has ended.
	grace = 200 * time.Millisecond
	// early is how much earlier than its open a program may have been read: both are noticed by different goroutines.
	early = 100 * time.Millisecond
)

// unseen tells which opens of executables were programs that ended before they could be read.
//
// Each program that was captured accounts for one open of its executable. Of the opens that are left, one is such a
// program when its loader was opened after it, because reading a file does not do that. One without that proof may be a
// static program or a file that is read; it counts only while the cursor passed more pids than were captured and proved
// in the same time, and its event says that this is all the evidence there is.
type unseen struct {
	opens    []openedAt
	captured []captured
	decided  time.Time
	// What was missed at most the last times that there was nothing to decide. The older counts: a pid is passed before
	// its open is handed over.
	missed, nextMissed uint64
	turned             time.Time
}

// captured is a program that was read. Where its executable is hidden its name is known.
type captured struct {
	exe, comm, script string
	at                time.Time
}

// add takes new opens and reports whether the time has come to decide on some.
func (u *unseen) add(opens []openedAt, now time.Time) bool {
	u.opens = append(u.opens, opens...)
	u.match()
	u.captured = slices.DeleteFunc(u.captured, func(c captured) bool { return now.Sub(c.at) >= time.Second })
	return len(u.opens) > 0 && now.Sub(u.opens[0].at) >= grace && now.Sub(u.decided) >= listEvery
}

// see notes a program that was read.
func (u *unseen) see(c captured) {
	if len(u.captured) == maxOpens {
		u.captured = slices.Delete(u.captured, 0, 1)
	}
	u.captured = append(u.captured, c)
}

// match removes the opens that captured programs account for.
func (u *unseen) match() {
	u.opens = slices.DeleteFunc(u.opens, func(o openedAt) bool {
		i := slices.IndexFunc(u.captured, func(c captured) bool { return c.accounts(o) })
		if i < 0 {
			return false
		}
		if u.captured[i].script == o.Path && u.captured[i].exe != o.Path {
			u.captured[i].script = "" // its interpreter was opened too
			return true
		}
		u.captured = slices.Delete(u.captured, i, i+1)
		return true
	})
}

func (c captured) accounts(o openedAt) bool {
	if c.at.Before(o.at.Add(-early)) {
		return false
	}
	if c.exe != "" {
		return c.exe == o.Path || c.script == o.Path
	}
	const longest = 15 // TASK_COMM_LEN
	name := path.Base(o.Path)
	return c.comm != "" && c.comm == name[:min(len(name), longest)]
}

// decide returns the opens that were programs nobody saw, of those that have waited. Missed is how many pids the cursor
// passed, at most, that nothing accounts for.
func (u *unseen) decide(missed uint64, now time.Time) []openedAt {
	u.match()
	budget := missed - min(missed, u.missed)
	u.decided = now
	var programs []openedAt
	waited := func(o openedAt) bool { return now.Sub(o.at) >= grace }
	for _, o := range u.opens {
		if waited(o) && o.Proved {
			programs = append(programs, o)
			budget -= min(budget, 1)
		}
	}
	for _, o := range u.opens {
		if waited(o) && !o.Proved && budget > 0 {
			programs = append(programs, o)
			budget--
		}
	}
	u.opens = slices.DeleteFunc(u.opens, waited)
	return programs
}

// settle notes what was missed while there is nothing to decide.
func (u *unseen) settle(missed uint64, now time.Time) {
	if len(u.opens) == 0 && now.Sub(u.turned) >= grace {
		u.missed, u.nextMissed, u.turned = u.nextMissed, missed, now
	}
}

// saw notes a program for the opens that it accounts for.
func (s *Sensor) saw(d details, now time.Time) {
	if s.using == Opens {
		s.unseen.see(captured{exe: d.exe, comm: d.stat.name(), script: d.script, at: now})
	}
}

// nameUnseen makes events of the programs of which only the executable's name is known, after a look into all
// processes.
func (s *Sensor) nameUnseen(now time.Time, all bool) {
	missed := s.stats.Created - min(s.stats.Created, s.accounted)
	if all {
		for _, o := range s.unseen.decide(missed, now) {
			evidence := "loader"
			if !o.Proved {
				evidence = "pid"
			}
			if missed > 0 { // else a process that was known ran one program more
				missed--
				s.accounted++
			} else {
				s.stats.Twice++
			}
			s.stats.ByName++
			var where *event.Container
			if view := s.tree[o.View]; view != nil {
				where = s.container(view)
			}
			s.events = append(s.events, &event.Event{
				Type: event.ProcessExec, Timestamp: o.at, Container: where,
				Process: &event.Process{
					Exe: o.Path, UID: event.UnknownID, LoginUID: event.UnknownID, SessionID: event.UnknownID, Capture: event.CaptureName,
				},
				Metadata: map[string]any{"evidence": evidence, "seen_through_pid": int64(o.View)},
			})
		}
	}
	s.unseen.settle(missed, now)
}
