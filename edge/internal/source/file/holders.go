package file

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

const (
	// maxDescriptors is how many open files one search looks at, and maxSearch how long it takes at most.
	maxDescriptors = 20_000
	maxSearch      = 25 * time.Millisecond
	// searchRate is the part of a core that searches take in the long run, and searchBurst what they may take at once, in
	// microseconds. Changes that come faster are looked into together, and the shortest-lived of their writers missed.
	searchRate  = 30_000
	searchBurst = 100_000
	// recentRate and recentBurst are the same for what Config.Recent knows: a search costs more by far, and what it spends
	// must not keep the names of the short-lived away.
	recentRate  = 10_000
	recentBurst = 50_000
	// newest is how many of the last pids are looked at before all others: who just began will end first.
	newest = 8
)

// holder is a process that has a file open.
type holder struct {
	pid    int32
	exe    string
	writes bool // open for writing
}

// search finds the processes that have files open, in /proc/PID/fd. Safe for concurrent use.
type search struct {
	proc   string
	self   int32 // is never found
	budget *budget
	most   time.Duration // that one takes
}

func newSearch(proc string) *search {
	s := &search{proc: proc, budget: newBudget(searchRate, searchBurst), most: maxSearch}
	if self, err := os.Readlink(proc + "/self"); err == nil { // proc may be of another pid namespace than ours
		if pid, err := strconv.ParseInt(self, 10, 32); err == nil {
			s.self = int32(pid)
		}
	}
	return s
}

// budget bounds the time that is spent on one kind of work. Safe for concurrent use.
type budget struct {
	rate  float64 // microseconds a second
	most  int     // at once
	limit *rate.Limiter
}

func newBudget(perSecond, burst int) *budget {
	return &budget{float64(perSecond), burst, rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// wait returns how long there is nothing left to spend.
func (b *budget) wait() time.Duration {
	if t := b.limit.Tokens(); t <= 0 {
		return time.Duration((1 - t) / b.rate * float64(time.Second))
	}
	return 0
}

// spend takes the time since start, on a busy machine what it was waited for too.
func (b *budget) spend(start time.Time) {
	now := time.Now()
	b.limit.ReserveN(now, min(int(now.Sub(start).Microseconds())+1, b.most))
}

func (s *search) wait() time.Duration { return s.budget.wait() }

func (s *search) spend(start time.Time) { s.budget.spend(start) }

// holders returns who has one of targets open, the newest process first. Processes whose files may not be listed, and
// those beyond the bounds, are not among them.
func (s *search) holders(targets map[id]struct{}) map[id][]holder {
	start := time.Now()
	defer s.spend(start)
	found := make(map[id][]holder)
	left := maxDescriptors
	seen := make(map[int32]bool, newest)
	last := s.lastPID()
	for pid := last; pid > max(0, last-newest); pid-- {
		seen[pid] = true
		s.look(pid, targets, found, &left)
	}
	pids := s.pids()
	for _, pid := range pids {
		if left <= 0 || time.Since(start) > s.most {
			break
		}
		if !seen[pid] {
			s.look(pid, targets, found, &left)
		}
	}
	return found
}

// lastPID returns the newest pid, the last field of /proc/loadavg (proc_loadavg(5)), 0 if it cannot be read.
func (s *search) lastPID() int32 {
	text, err := os.ReadFile(s.proc + "/loadavg")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		return 0
	}
	pid, err := strconv.ParseInt(fields[len(fields)-1], 10, 32)
	if err != nil {
		return 0
	}
	return int32(pid)
}

// pids returns all processes, the highest pid first.
func (s *search) pids() []int32 {
	names, err := readNames(s.proc)
	if err != nil {
		return nil
	}
	pids := make([]int32, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.ParseInt(name, 10, 32); err == nil && pid > 0 {
			pids = append(pids, int32(pid))
		}
	}
	slices.SortFunc(pids, func(a, b int32) int { return int(b) - int(a) })
	return pids
}

// look adds pid to found for each of targets that it has open. It speaks to the kernel without package os, whose files
// cost several times as much to open.
func (s *search) look(pid int32, targets map[id]struct{}, found map[id][]holder, left *int) {
	if pid == s.self {
		return
	}
	process := fmt.Sprintf("%s/%d", s.proc, pid)
	dir, err := retry(func() (int, error) {
		return unix.Open(process+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return
	}
	defer unix.Close(dir)
	buf := make([]byte, 4<<10)
	for *left > 0 {
		n, err := retry(func() (int, error) { return unix.ReadDirent(dir, buf) })
		if err != nil || n <= 0 { // the end, or the process ended
			return
		}
		_, _, descriptors := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range descriptors {
			*left--
			of, ok := descriptor(dir, name)
			if _, wanted := targets[of]; !ok || !wanted {
				continue
			}
			i := slices.IndexFunc(found[of], func(h holder) bool { return h.pid == pid })
			if i < 0 {
				i = len(found[of])
				exe, _ := os.Readlink(process + "/exe") // without it the pid is still worth telling
				found[of] = append(found[of], holder{pid: pid, exe: exe})
			}
			found[of][i].writes = found[of][i].writes || writable(dir, name)
		}
	}
}

// descriptor returns which regular file the descriptor name in the folder dir stands for. Nothing is asked of a network
// file system for it.
func descriptor(dir int, name string) (of id, ok bool) {
	var x unix.Statx_t
	if err := unix.Statx(dir, name, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, &x); err != nil {
		return id{}, false
	}
	return id{dev: unix.Mkdev(x.Dev_major, x.Dev_minor), ino: x.Ino}, x.Mode&unix.S_IFMT == unix.S_IFREG
}

// writable reports whether one can write through the descriptor: the mode of the link tells that, proc_pid_fd(5).
func writable(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&0o200 != 0
}

// packageManagers are the programs that change a system's files as their work.
var packageManagers = map[string]bool{
	"dpkg": true, "dpkg-deb": true, "apt": true, "apt-get": true, "unattended-upgrade": true, "rpm": true, "dnf": true,
	"dnf5": true, "yum": true, "microdnf": true, "tdnf": true, "zypper": true, "apk": true, "pacman": true,
}

// isPackageManager reports whether a command line is that of a package manager or of the script of one.
func isPackageManager(exe string, args []string) bool {
	if packageManagers[filepath.Base(exe)] {
		return true
	}
	for _, arg := range args[:min(2, len(args))] {
		if packageManagers[filepath.Base(arg)] {
			return true
		}
	}
	return false
}
