package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMountinfo bounds what is read of a list of mounts; a line has some 150 bytes. What is beyond is found by a rescan.
	maxMountinfo = 4 << 20
	// mountPause is how long a list of mounts is left alone after it was read: a container takes some twenty steps to set up.
	mountPause = 100 * time.Millisecond
	// falseAlarms is how many changes in a row may be none before they are believed to mean nothing (gVisor).
	falseAlarms = 600
)

// mountTable is what is mounted where, by mount id. The kernel gives an id again at once, so more than it must agree.
type mountTable map[string]mount

type mount struct {
	what  string // device and folder of it
	point string
}

// readMounts reads the list of mounts in f from its start.
func readMounts(f *os.File) (mountTable, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxMountinfo))
	if err != nil {
		return nil, err
	}
	return parseMounts(b), nil
}

// parseMounts takes id, device, folder and mount point of proc_pid_mountinfo(5): the first and the third to the fifth
// field. What is cut off is left out.
func parseMounts(b []byte) mountTable {
	t := make(mountTable, bytes.Count(b, []byte{'\n'}))
	for line := range bytes.Lines(b) {
		words := bytes.SplitN(line, []byte{' '}, 6)
		if len(words) < 6 || len(words[4]) == 0 || words[4][0] != '/' || line[len(line)-1] != '\n' {
			continue
		}
		t[string(words[0])] = mount{string(words[2]) + " " + string(words[3]), unescape(words[4])}
	}
	return t
}

// unescape undoes the kernel's "\ooo" for space, tab, newline and backslash (fs/proc_namespace.c, mangle).
func unescape(b []byte) string {
	if !bytes.ContainsRune(b, '\\') {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && isOctal(b[i+1:i+4]) {
			out = append(out, (b[i+1]-'0')<<6|(b[i+2]-'0')<<3|(b[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, b[i])
	}
	return string(out)
}

func isOctal(b []byte) bool {
	return b[0] <= '3' && !slices.ContainsFunc(b, func(c byte) bool { return c < '0' || c > '7' })
}

// moved returns the points at which t and before differ.
func (t mountTable) moved(before mountTable) []string {
	points := make(map[string]struct{})
	for _, pair := range [...][2]mountTable{{t, before}, {before, t}} {
		for id, m := range pair[0] {
			if pair[1][id] != m {
				points[m.point] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(points))
}

// mounts waits for changes to what is mounted in the sensor's own mount namespace: inotify tells nothing when a file
// system is mounted over a watched folder, nor when one is taken away that is mounted elsewhere too.
type mounts struct {
	list   *os.File
	table  mountTable
	alarm  int // an eventfd that ends the wait
	points chan []string
}

// openMounts reads what is mounted. It is to be called before anything is looked at.
func openMounts(proc string) (*mounts, error) {
	path := filepath.Join(proc, "self/mountinfo")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) // os.Open would give it to the runtime's poller, which takes the events
	if err != nil {
		return nil, fmt.Errorf("opening the list of mounts: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	m := &mounts{list: f, points: make(chan []string)}
	if m.table, err = readMounts(f); err == nil {
		m.alarm, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the list of mounts: %w", err), f.Close())
	}
	return m, nil
}

// changes is where the points come from; nil, from which nothing comes, when there are no mounts to be seen.
func (m *mounts) changes() <-chan []string {
	if m == nil {
		return nil
	}
	return m.points
}

// run gives to points where the mounts change, until ctx ends. The list of mounts has a priority event when they did
// since it was polled last (proc_pid_mounts(5)).
func (m *mounts) run(ctx context.Context) error {
	defer func() { _, _ = m.list.Close(), unix.Close(m.alarm) }() // nothing was written to them
	rung := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(rung)
		_, _ = unix.Write(m.alarm, binary.NativeEndian.AppendUint64(nil, 1)) // it has room for that
	})
	defer func() {
		if !stop() {
			<-rung
		}
	}()
	for nothing := 0; ctx.Err() == nil; {
		fds := []unix.PollFd{{Fd: int32(m.list.Fd()), Events: unix.POLLPRI}, {Fd: int32(m.alarm), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for a change of mounts: %w", err)
		}
		if fds[0].Revents == 0 {
			continue
		}
		now, err := readMounts(m.list)
		if err != nil {
			return fmt.Errorf("reading the list of mounts: %w", err)
		}
		points := now.moved(m.table)
		m.table = now
		if nothing++; len(points) > 0 {
			nothing = 0
			select {
			case m.points <- points:
			case <-ctx.Done():
			}
		} else if nothing > falseAlarms {
			return errors.New("waiting for a change of mounts: the kernel tells of changes that are none")
		}
		pause := time.NewTimer(mountPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// remounted looks at what is at and below points, and at the watched paths that lead through them.
func (s *Sensor) remounted(b *batch, v *view, points []string, c cause) {
	s.counters.change(func(t *Stats) { t.Remounts++ })
	through := func(r *root) bool {
		return slices.ContainsFunc(r.trail, func(t trail) bool {
			return slices.ContainsFunc(points, func(p string) bool { return within(join(t.dir, t.name), p) })
		})
	}
	for _, r := range slices.Clone(s.roots) {
		if r.view != v {
			continue
		}
		if through(r) {
			s.refresh(b, r, c)
			continue
		}
		place := r.node.place()
		for _, p := range points {
			if n := r.node; within(p, place) && p != place {
				for name := range components(strings.TrimPrefix(p, place)) {
					if n = n.child(name); n == nil {
						break
					}
				}
				if n != nil {
					s.again(b, n, c)
				}
			}
		}
	}
	for _, p := range s.patterns {
		if p.view == v && through(p) {
			s.expand(b, p, c)
		}
	}
	s.adopt(b, c)
	s.reads.regatherNow()
}

// remountedIn looks for changes to what is mounted in the containers. Their lists are not kept open to wait for them: that
// would hold a container's file systems mounted when it has ended.
func (s *Sensor) remountedIn(b *batch, c cause) {
	for _, v := range slices.Clone(s.views) {
		process, ok := strings.CutSuffix(v.root, "/root")
		if v.container == "" || !ok {
			continue
		}
		f, err := os.Open(process + "/mountinfo")
		if err != nil {
			continue // its process is gone, or what it is not to be seen
		}
		now, err := readMounts(f)
		_ = f.Close() // nothing was written to it
		if err != nil || v.gone() {
			continue
		}
		if points := now.moved(v.mounts); v.mounts != nil && len(points) > 0 {
			for i, p := range points {
				points[i] = filepath.Join(v.root, p)
			}
			s.remounted(b, v, points, c)
		}
		v.mounts = now
		s.counters.change(func(t *Stats) { t.MountLists++ })
	}
}
