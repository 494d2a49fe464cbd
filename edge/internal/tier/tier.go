// Package tier finds out what an agent may see where it runs.
//
// [Look] tries what the sensors do, on the processes in view, and [View.Tier] names the result with one of four words
// that rules, heartbeats and people share. Nothing is taken from settings: an agent that was told it is a node's agent
// and may not read a process says so.
//
// Look reads /proc only and changes nothing. What it finds is of that moment: processes come and go.
package tier

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
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
	Tried, Refused int
	// Err is the first refusal.
	Err error
}

// String returns for instance "12 of 40 (permission denied)".
func (a Access) String() string {
	s := fmt.Sprintf("%d of %d", a.Tried-a.Refused, a.Tried)
	if a.Err != nil {
		s += " (" + a.Err.Error() + ")"
	}
	return s
}

// full reports whether there was something and at most one in ten was refused: single processes forbid even root to look
// (prctl(2) PR_SET_DUMPABLE, other security modules). [View.Reasons] names those all the same.
func (a Access) full() bool { return a.Tried > 0 && a.Refused*10 <= a.Tried }

// View is what Look found.
type View struct {
	UID          int
	Capabilities []string // effective ones that matter to the sensors
	HostPID      bool     // the pid namespace in view is the machine's first one
	Others       int      // processes in view besides the agent's own and the kernel's threads
	// What was read of the others, by file of /proc/PID.
	Cmdline, Exe, Root, FD Access
	// ExeSameUID is Exe for those that run as the agent's user.
	ExeSameUID Access
}

// Tier decides which tier v is.
func (v View) Tier() Tier {
	switch {
	case v.HostPID && v.Exe.full():
		return Node
	case !v.HostPID && v.Exe.full() && v.Root.full() && v.FD.full() && v.UID == 0:
		return PodFull
	case v.ExeSameUID.full():
		return SameUID
	}
	return Limited
}

// Reasons say, for a person, what v does not see and what would help; nil when nothing is out of sight.
func (v View) Reasons() []string {
	var r []string
	if !v.HostPID {
		r = append(r, "not a node's agent: the pid namespace in view is not the machine's (hostPID)")
	}
	if v.Others == 0 {
		return append(r, "no process of another container in view: the pod does not share its process namespace (shareProcessNamespace)")
	}
	if v.Exe.Refused > 0 {
		r = append(r, fmt.Sprintf("executables readable of %v: run as root with CAP_SYS_PTRACE, or as the application's user", v.Exe))
	} else if v.FD.Refused > 0 {
		r = append(r, fmt.Sprintf("open files readable of %v: root needs CAP_DAC_OVERRIDE too", v.FD))
	}
	return r
}

// initialPIDNamespace is the inode of the machine's first pid namespace: PROC_PID_INIT_INO in the kernel's
// include/linux/proc_ns.h.
const initialPIDNamespace = 0xEFFFFFFC

// maxTried bounds how many processes are tried.
const maxTried = 512

// Look tries what may be read under proc, a mount of procfs.
func Look(proc string) (View, error) {
	v := View{UID: os.Geteuid()}
	status, err := os.ReadFile(filepath.Join(proc, "self/status"))
	if err != nil {
		return v, fmt.Errorf("looking at the agent's own process: %w; mount procfs", err)
	}
	v.Capabilities = capabilities(string(status))
	var ns unix.Stat_t
	if err := unix.Stat(filepath.Join(proc, "self/ns/pid"), &ns); err == nil {
		v.HostPID = ns.Ino == initialPIDNamespace
	}
	names, err := os.ReadDir(proc)
	if err != nil {
		return v, fmt.Errorf("listing processes: %w", err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, d := range names {
		if pid := d.Name(); pid[0] >= '0' && pid[0] <= '9' && pid != self && v.Others < maxTried {
			v.try(filepath.Join(proc, pid))
		}
	}
	return v, nil
}

// try looks at one process. One that is gone, or a thread of the kernel, counts for nothing.
func (v *View) try(dir string) {
	cmdline, errCmdline := os.ReadFile(filepath.Join(dir, "cmdline"))
	_, errExe := os.Readlink(filepath.Join(dir, "exe"))
	if gone(errCmdline) || gone(errExe) { // a kernel thread's exe does not exist to those who may look
		return
	}
	if len(cmdline) == 0 && errCmdline == nil && kernelThread(dir) {
		return
	}
	var owner unix.Stat_t
	if unix.Stat(dir, &owner) != nil {
		return
	}
	v.Others++
	v.Cmdline.note(errCmdline)
	v.Exe.note(errExe)
	if int(owner.Uid) == v.UID {
		v.ExeSameUID.note(errExe)
	}
	_, err := os.Stat(filepath.Join(dir, "root") + "/")
	v.Root.note(err)
	_, err = os.ReadDir(filepath.Join(dir, "fd"))
	v.FD.note(err)
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

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// kernelThread reports the flag PF_KTHREAD (include/linux/sched.h) of /proc/PID/stat, proc_pid_stat(5) field 9.
func kernelThread(dir string) bool {
	const pfKthread = 0x00200000
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const flags = 9 - 3 // the first field after the name is the third
	if len(fields) <= flags {
		return false
	}
	f, err := strconv.ParseUint(fields[flags], 10, 64)
	return err == nil && f&pfKthread != 0
}

// capabilities lists, of the effective ones in a status file, those that matter here.
func capabilities(status string) []string {
	known := []struct {
		bit  uint
		name string
	}{
		{unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE"}, {unix.CAP_DAC_READ_SEARCH, "DAC_READ_SEARCH"}, {unix.CAP_NET_ADMIN, "NET_ADMIN"},
		{unix.CAP_SYS_PTRACE, "SYS_PTRACE"}, {unix.CAP_SYS_ADMIN, "SYS_ADMIN"},
	}
	for line := range strings.Lines(status) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return nil
		}
		var names []string
		for _, k := range known {
			if bits&(1<<k.bit) != 0 {
				names = append(names, k.name)
			}
		}
		return names
	}
	return nil
}
