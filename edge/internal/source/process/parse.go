package process

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// stat is what a scan needs of /proc/PID/stat, proc_pid_stat(5).
type stat struct {
	image
	state byte
	ppid  int32
	flags uint64
	// start is in clock ticks since boot. With the pid it identifies a process.
	start uint64
	// threads is how many threads the process has.
	threads uint64
	// thread is true for what has a pid and is no process: a thread that leads no group sends no signal at its end
	// (exit_signal -1, kernel/fork.c).
	thread bool
}

// image identifies the program that a process runs, as far as it may be read: execve gives it a new stack and, as a
// rule, a new name.
type image struct {
	comm [16]byte // TASK_COMM_LEN, prctl(2) PR_SET_NAME
	// stack is 0 for those who may not trace the process.
	stack uint64
}

func (i image) name() string { return string(bytes.TrimRight(i.comm[:], "\x00")) }

// Bits of the kernel's include/linux/sched.h, in field 9 of stat; the same since Linux 2.6.
const (
	flagForkNoExec   = 0x00000040 // PF_FORKNOEXEC: forked, has not called execve
	flagKernelThread = 0x00200000 // PF_KTHREAD
)

func (s stat) forked() bool { return s.flags&flagForkNoExec != 0 }
func (s stat) kernel() bool { return s.flags&flagKernelThread != 0 }
func (s stat) dead() bool   { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

var errStat = errors.New("reading stat: it is not as proc_pid_stat(5) says")

func parseStat(b []byte) (stat, error) {
	var s stat
	// The name may hold parentheses and spaces; nothing after it does.
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return s, errStat
	}
	copy(s.comm[:], b[from+1:to])
	rest := b[to+1:]
	for field := 3; field <= 38; field++ {
		rest = bytes.TrimLeft(rest, " \n")
		if len(rest) == 0 {
			if field > 22 { // older or other kernels may stop before exit_signal
				break
			}
			return stat{}, errStat
		}
		end := bytes.IndexAny(rest, " \n")
		if end < 0 {
			end = len(rest)
		}
		var ok bool
		switch word := rest[:end]; field {
		case 3:
			s.state, ok = word[0], len(word) == 1
		case 4:
			var n uint64
			n, ok = number(word, 31)
			s.ppid = int32(n)
		case 9:
			s.flags, ok = number(word, 64)
		case 20:
			s.threads, ok = number(word, 31)
		case 22:
			s.start, ok = number(word, 64)
		case 28:
			s.stack, ok = number(word, 64)
		case 38:
			s.thread, ok = string(word) == "-1", true
		default:
			ok = true
		}
		if !ok {
			return stat{}, errStat
		}
		rest = rest[end:]
	}
	return s, nil
}

// number parses decimal digits of a number below 1<<bits.
func number(b []byte, bits int) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b), 10, bits)
	return n, err == nil
}

// credentials is what a process may do.
type credentials struct {
	// User ids. The effective one counts for permissions: proc_pid_status(5), credentials(7).
	real, effective uint32
}

func parseStatus(b []byte) (credentials, bool) {
	for line := range bytes.Lines(b) {
		value, found := bytes.CutPrefix(line, []byte("Uid:"))
		if !found {
			continue
		}
		words := bytes.Fields(value)
		if len(words) < 2 {
			break
		}
		r, ok1 := number(words[0], 32)
		e, ok2 := number(words[1], 32)
		return credentials{real: uint32(r), effective: uint32(e)}, ok1 && ok2
	}
	return credentials{}, false
}

// splitCmdline splits what /proc/PID/cmdline holds. Trailing NULs are what a process leaves that rewrites its title.
func splitCmdline(b []byte) []string {
	s := strings.TrimRight(string(b), "\x00")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\x00")
}

// parseCursor returns the newest pid, the last field of /proc/loadavg, proc_loadavg(5).
func parseCursor(b []byte) (int32, bool) {
	b = bytes.TrimRight(b, " \n")
	n, ok := number(b[bytes.LastIndexByte(b, ' ')+1:], 31)
	return int32(n), ok
}

// parsePasswd returns the names of the user ids of a passwd(5) file; the first line of an id counts, as in getpwuid(3).
func parsePasswd(b []byte) map[uint32]string {
	users := make(map[uint32]string)
	for line := range bytes.Lines(b) {
		words := bytes.SplitN(line, []byte(":"), 4)
		if len(words) < 4 || len(words[0]) == 0 || words[0][0] == '#' {
			continue
		}
		id, ok := number(words[2], 32)
		if !ok {
			continue
		}
		if _, known := users[uint32(id)]; !known {
			users[uint32(id)] = string(words[0])
		}
	}
	return users
}
