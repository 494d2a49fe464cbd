// Package tier finds out what an agent may see where it runs.
//
// [Look] tries what the sensors do, on the processes in view, and [View.Tier] names the result with one of four words
// that rules, heartbeats and people share. Nothing is taken from settings: an agent that was told it is a node's agent
// and may not read a process says so.
//
// A tier takes both the right and the proof. The right is what the kernel asks for (ptrace(2), "Ptrace access mode
// checking"): a capability that is effective, or the same user. The proof is that most of the processes it is good for
// could be read; a few that hide from everybody (a security module, another user namespace, the first process of some
// virtual machines) do not change the tier and are named in [View.Reasons]. What was readable without the right (all
// that runs now happens to be the agent's user) proves nothing about the next process.
//
// Look reads /proc only and changes nothing. What it finds is of that moment: processes come and go.
package tier

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tier is how much an agent sees.
type Tier string

// The tiers, most first.
const (
	Node    Tier = "node"         // every process, file and socket of the node
	PodFull Tier = "pod-full"     // everything of the pod
	SameUID Tier = "pod-same-uid" // everything of the pod's processes that run as the agent's user
	Limited Tier = "pod-limited"  // command lines, the pod's sockets, shared volumes
)

// Access is what of other processes could be read: of how many it was tried, and of how many it was refused.
type Access struct {
	Tried   int `json:"tried"`
	Refused int `json:"refused"`
	// Err is the first refusal.
	Err error `json:"-"`
}

// String returns for instance "12 of 40 (permission denied)".
func (a Access) String() string {
	s := fmt.Sprintf("%d of %d", a.Tried-a.Refused, a.Tried)
	if a.Err != nil {
		s += " (" + a.Err.Error() + ")"
	}
	return s
}

// proven reports whether more could be read than was refused.
func (a Access) proven() bool { return a.Tried-a.Refused > a.Refused }

// View is what Look found.
type View struct {
	UID          int      `json:"uid"`
	Capabilities []string `json:"capabilities"` // effective ones that matter to the sensors
	HostPID      bool     `json:"host_pid"`     // the machine's processes are in view
	Shared       bool     `json:"shared"`       // processes of another container are
	Others       int      `json:"others"`       // processes in view besides the agent's own and the kernel's threads
	// What was read of the others, by file of /proc/PID.
	Cmdline Access `json:"cmdline"`
	Exe     Access `json:"exe"`
	Root    Access `json:"root"`
	FD      Access `json:"fd"`
	// SameUID is Exe for those that run as the agent's user, but those that Hide: they allow only root to look
	// (prctl(2), PR_SET_DUMPABLE).
	SameUID Access `json:"exe_same_uid"`
	Hide    int    `json:"hide"`
}

// can reports whether one of these capabilities is effective.
func (v View) can(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(v.Capabilities, name) })
}

// full reports the right to read everything of every process, and its proof. Files of another user's /proc/PID/fd take
// more than SYS_PTRACE.
func (v View) full() bool {
	return v.can("SYS_PTRACE") && v.can("DAC_OVERRIDE", "DAC_READ_SEARCH") && v.Exe.proven() && v.Root.proven() && v.FD.proven()
}

// Tier decides which tier v is. A process of the agent's user with more capabilities than the agent's cannot be read
// either (cap_ptrace_access_check in the kernel's security/commoncap.c), so that only a view without such is SameUID.
func (v View) Tier() Tier {
	switch {
	case v.HostPID && v.full():
		return Node
	case v.HostPID, v.Shared:
		if v.full() {
			return PodFull
		}
		if v.SameUID.Tried > 0 && v.SameUID.Refused == 0 {
			return SameUID
		}
	}
	return Limited
}

// Reasons say, for a person, what v does not see and what would help; nil when nothing is out of sight.
func (v View) Reasons() []string {
	var r []string
	say := func(format string, args ...any) { r = append(r, fmt.Sprintf(format, args...)) }
	if !v.HostPID {
		say("not a node's agent: the processes in view are not the machine's (hostPID)")
		if !v.Shared {
			say("no process of another container in view: the pod does not share its process namespace (shareProcessNamespace)")
			return r
		}
	}
	switch {
	case v.full():
		for _, a := range []struct {
			what string
			Access
		}{{"executables", v.Exe}, {"open files", v.FD}} {
			if a.Refused > 0 {
				say("%s readable of %v: the others hide from every agent", a.what, a.Access)
				break
			}
		}
	case !v.can("SYS_PTRACE"):
		say("executables readable of %v: run as root with CAP_SYS_PTRACE and CAP_DAC_OVERRIDE, or as the application's user", v.Exe)
		if v.SameUID.Refused > 0 {
			say("of the own user's processes, %d of %d are out of sight: they have capabilities that the agent lacks",
				v.SameUID.Refused, v.SameUID.Tried)
		}
		if v.Hide > 0 {
			say("%d of the own user's processes hide from all but root (not dumpable)", v.Hide)
		}
	case !v.can("DAC_OVERRIDE", "DAC_READ_SEARCH"):
		say("open files readable of %v: CAP_SYS_PTRACE is there, CAP_DAC_OVERRIDE is needed too", v.FD)
	default:
		say("executables readable of %v, open files of %v, in spite of CAP_SYS_PTRACE: another user namespace, or a security module",
			v.Exe, v.FD)
	}
	return r
}

// process is what was read of one process.
type process struct {
	sameUID, hides         bool
	cgroup                 string
	cmdline, exe, root, fd error
}

// add counts a process.
func (v *View) add(p process) {
	v.Others++
	v.Cmdline.note(p.cmdline)
	v.Exe.note(p.exe)
	v.Root.note(p.root)
	v.FD.note(p.fd)
	switch {
	case !p.sameUID:
	case p.hides && p.exe != nil:
		v.Hide++
	default:
		v.SameUID.note(p.exe)
	}
}

func (a *Access) note(err error) {
	if gone(err) {
		return
	}
	a.Tried++
	if err == nil {
		return
	}
	a.Refused++
	if a.Err == nil {
		var errno unix.Errno
		if errors.As(err, &errno) { // without the path: it is one of many
			err = errno
		}
		a.Err = err
	}
}

// String is for a log line.
func (v View) String() string {
	return strings.Join(append([]string{string(v.Tier())}, v.Reasons()...), "; ")
}
