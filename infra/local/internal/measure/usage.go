package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process took so far, and holds now.
type usage struct {
	cpu      time.Duration
	resident int64 // bytes
	anon     int64 // bytes of it that are the process's own
	file     int64 // bytes of it that are of files, the program's first of all: the kernel takes them back when it is short
}

// ticks of a second in /proc/PID/stat: USER_HZ, 100 on every architecture that Go knows (proc_pid_stat(5), sysconf(3)).
const ticks = 100

func readUsage(pid int) (usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return usage{}, fmt.Errorf("measuring the agent: %w", err)
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return usage{}, fmt.Errorf("measuring the agent: %w", err)
	}
	return parseUsage(stat, status)
}

// parseUsage reads utime and stime, the 14th and 15th field of stat, and the resident sets of status. The second field, a name in
// parentheses, may hold anything.
func parseUsage(stat, status []byte) (u usage, err error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return u, errors.New("reading stat: it has no name")
	}
	fields := strings.Fields(string(stat[end+1:])) // from the third on
	if len(fields) < 13 {
		return u, errors.New("reading stat: it is too short")
	}
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, fmt.Errorf("reading stat: %w", err)
		}
		u.cpu += time.Duration(n) * time.Second / ticks
	}
	sizes := map[string]*int64{"VmRSS": &u.resident, "RssAnon": &u.anon, "RssFile": &u.file}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		size := sizes[name]
		if size == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return u, fmt.Errorf("reading status: %w", err)
		}
		*size = kib << 10
		delete(sizes, name)
	}
	for name := range sizes {
		return u, fmt.Errorf("reading status: it has no %s", name)
	}
	return u, nil
}
