package tier

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// initialPIDNamespace is the inode of the machine's first pid namespace: PROC_PID_INIT_INO in the kernel's
// include/linux/proc_ns.h.
const initialPIDNamespace = 0xEFFFFFFC

// maxTried bounds how many processes are tried: those with the lowest and the highest pids.
const maxTried = 512

// Look tries what may be read under proc, a mount of procfs.
func Look(proc string) (View, error) {
	v := View{UID: os.Geteuid()}
	status, err := os.ReadFile(filepath.Join(proc, "self/status"))
	if err != nil {
		return v, fmt.Errorf("looking at the agent's own process: %w; mount procfs", err)
	}
	v.Capabilities = capabilities(string(status))
	self, err := os.Readlink(filepath.Join(proc, "self")) // in the pid namespace of the mount
	if err != nil {
		return v, fmt.Errorf("looking at the agent's own process: %w", err)
	}
	var ns unix.Stat_t
	if unix.Stat(filepath.Join(proc, "self/ns/pid"), &ns) == nil && ns.Ino == initialPIDNamespace {
		v.HostPID = true
	} else if s, err := readStat(filepath.Join(proc, "2")); err == nil && s.kernel() {
		v.HostPID = true // kthreadd: another namespace than our own is mounted, the machine's
	}
	pids, err := Processes(proc)
	if err != nil {
		return v, err
	}
	if extra := len(pids) - maxTried; extra > 0 {
		pids = slices.Delete(pids, maxTried/2, maxTried/2+extra)
	}
	home, _ := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	for _, pid := range pids {
		name := strconv.Itoa(int(pid))
		if name == self {
			continue
		}
		p, ok := v.try(filepath.Join(proc, name))
		if !ok {
			continue
		}
		v.add(p)
		// Containers have cgroups of their own, and without a shared namespace the agent is its container's first process.
		v.Shared = v.Shared || !v.HostPID && self != "1" && p.cgroup != "" && p.cgroup != string(home)
	}
	return v, nil
}

// Processes returns the pids in view that are no threads of the kernel, in order.
func Processes(proc string) ([]int32, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var pids []int32
	for _, name := range names {
		pid, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			continue
		}
		if s, err := readStat(filepath.Join(proc, name)); err == nil && !s.kernel() {
			pids = append(pids, int32(pid))
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// try looks at one process. One that is gone or dead counts for nothing.
func (v *View) try(dir string) (p process, ok bool) {
	stat, err := readStat(dir)
	if err != nil || stat.dead() {
		return p, false
	}
	var owner, inside unix.Stat_t
	if unix.Stat(dir, &owner) != nil || unix.Lstat(filepath.Join(dir, "exe"), &inside) != nil {
		return p, false
	}
	p.sameUID = int(owner.Uid) == v.UID
	p.hides = owner.Uid != inside.Uid // root owns what is in the folder of a process that is not dumpable: proc(5)
	_, p.cmdline = os.ReadFile(filepath.Join(dir, "cmdline"))
	_, p.exe = os.Readlink(filepath.Join(dir, "exe"))
	_, p.root = os.Stat(filepath.Join(dir, "root") + "/")
	p.fd = files(filepath.Join(dir, "fd"))
	if cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup")); err == nil {
		p.cgroup = string(cgroup)
	}
	return p, !gone(p.cmdline)
}

// files lists the open files and reads what the first one is: some processes allow the one and not the other.
func files(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1)
		if len(names) == 0 {
			if errors.Is(err, fs.ErrPermission) {
				return err
			}
			return nil // none is open
		}
		if _, err := os.Readlink(filepath.Join(dir, names[0])); !gone(err) {
			return err
		}
	}
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// stat is what matters of /proc/PID/stat.
type stat struct {
	state string
	flags uint64
}

// kernel reports the flag PF_KTHREAD (include/linux/sched.h).
func (s stat) kernel() bool { return s.flags&0x00200000 != 0 }

func (s stat) dead() bool { return s.state == "Z" || s.state == "X" }

// readStat reads fields 3 and 9 of proc_pid_stat(5).
func readStat(dir string) (s stat, err error) {
	line, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return s, err
	}
	fields := strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:])) // the name may hold anything
	const flags = 9 - 3                                                                 // the first field after the name is the third
	if len(fields) <= flags {
		return s, fmt.Errorf("reading %s/stat: it is too short", dir)
	}
	s.state = fields[0]
	s.flags, err = strconv.ParseUint(fields[flags], 10, 64)
	return s, err
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
