package cgroup

import (
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFile bounds what is read of a file. A cgroup file of a container deep in 13 hierarchies has 4 KiB, a
	// container's mountinfo 10 to 20 KiB.
	maxFile = 64 << 10
	// maxProcesses bounds the processes that are remembered, twice: see generations.
	maxProcesses = 4096
	// maxContainers bounds the containers that are remembered, likewise. GKE allows 256 pods on a node.
	maxContainers = 2048
	// hostTTL is how long a process is believed to be the host's: a runtime starts a container's first process outside
	// and moves it in.
	hostTTL = 2 * time.Second
	// mountTries is how many processes of a container are looked at for its name: some have mounts of their own.
	mountTries = 8
)

// Reader reads where processes run. It remembers, so that a process costs its read once and a container's mounts are
// looked at once. Its methods may be called concurrently.
type Reader struct {
	proc string
	seen func(Container)
	bufs sync.Pool // *[maxFile]byte

	mu         sync.Mutex
	processes  generations[process, verdict]
	containers generations[string, *sighting]
}

type process struct {
	pid   int32
	start uint64
}

type verdict struct {
	c     Container
	until time.Time // zero: for good
}

type sighting struct {
	c     Container
	tries int
}

// NewReader returns a reader of the procfs at proc. Seen, when not nil, is called with each container when it is met,
// and again when its name becomes known; it must not call the reader.
func NewReader(proc string, seen func(Container)) *Reader {
	if seen == nil {
		seen = func(Container) {}
	}
	r := &Reader{
		proc: proc, seen: seen,
		processes: generations[process, verdict]{size: maxProcesses}, containers: generations[string, *sighting]{size: maxContainers},
	}
	r.bufs.New = func() any { return new([maxFile]byte) }
	return r
}

// Of returns the container of the process pid, zero for the host's. Start is anything that tells the pid's processes
// apart, for instance the start time in clock ticks; 0 is not remembered. It is false when the process could not be
// read: it is gone, or hidden.
func (r *Reader) Of(pid int32, start uint64) (Container, bool) {
	key := process{pid, start}
	r.mu.Lock()
	v, ok := r.processes.get(key)
	r.mu.Unlock()
	if ok && start != 0 && (v.until.IsZero() || time.Now().Before(v.until)) {
		return v.c, true
	}

	buf := r.bufs.Get().(*[maxFile]byte)
	defer r.bufs.Put(buf)
	file, ok := r.read(buf, pid, "/cgroup")
	if !ok {
		return Container{}, false
	}
	p := parse(file)
	c := p.container()
	switch {
	case p.id != nil:
		c = r.name(c, buf, pid)
	case p.pod != nil || hidden(file):
		if mounts, ok := r.read(buf, pid, "/mountinfo"); ok {
			m := ParseMounts(mounts)
			if c.PodUID == "" || c.PodUID == m.PodUID {
				c = m
			}
		}
	}
	v = verdict{c: c}
	if c.ID == "" {
		v.until = time.Now().Add(hostTTL)
	}
	r.mu.Lock()
	r.processes.put(key, v)
	r.mu.Unlock()
	return c, true
}

// name adds to c what the mounts of pid or of an earlier process of the container tell.
func (r *Reader) name(c Container, buf *[maxFile]byte, pid int32) Container {
	r.mu.Lock()
	s, met := r.containers.get(c.ID)
	if !met {
		s = &sighting{c: c}
		r.containers.put(c.ID, s)
	}
	known, look := s.c, s.c.Name == "" && s.tries < mountTries
	if look {
		s.tries++
	}
	r.mu.Unlock()
	if !look {
		return known
	}
	if mounts, ok := r.read(buf, pid, "/mountinfo"); ok {
		m := ParseMounts(mounts)
		if known.PodUID == "" {
			known.PodUID = m.PodUID
		}
		if known.PodUID == m.PodUID {
			known.Name = m.Name
		}
	}
	r.mu.Lock()
	news := !met || s.c.Name != known.Name
	s.c = known
	r.mu.Unlock()
	if news {
		r.seen(known)
	}
	return known
}

// hidden says that the last line, cgroup v2's where there is one, is of the root: a cgroup namespace shows its own so.
func hidden(file []byte) bool {
	return len(file) >= 2 && string(file[len(file)-2:]) == "/\n"
}

// read reads the first maxFile bytes of a process's file into buf.
func (r *Reader) read(buf *[maxFile]byte, pid int32, name string) ([]byte, bool) {
	fd, err := open(r.proc + "/" + strconv.Itoa(int(pid)) + name)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil { // ESRCH: gone since the open
			return nil, false
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], n > 0
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// generations is a map of at most twice size entries that forgets what was not used longest ago, roughly: when the young
// are too many, the old go and the young are old.
type generations[K comparable, V any] struct {
	size       int
	young, old map[K]V
}

func (g *generations[K, V]) get(k K) (V, bool) {
	if v, ok := g.young[k]; ok {
		return v, true
	}
	v, ok := g.old[k]
	if ok {
		g.put(k, v)
	}
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	if g.young == nil || len(g.young) >= g.size {
		g.old, g.young = g.young, make(map[K]V)
	}
	g.young[k] = v
}
