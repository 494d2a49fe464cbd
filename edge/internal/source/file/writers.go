package file

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// How much each kind of evidence says, from what inotify leaves open: it never names who did it. Each process is told
// with the best of its evidence.
const (
	openAlone      = 0.9 // it had the file open, to write for a change, when the kernel told of it, and no other had
	openAmong      = 0.6 // the same, with others
	namedAtOnce    = 0.5 // it began in the second before, and its command line names the path
	named          = 0.4 // it began in the minute before, and its command line names the path
	namedInFolder  = 0.3 // it began in the second before, and its command line has the file's name or its folder
	managesPackage = 0.3 // a package manager that began in the minute before, for what such install
	worksInFolder  = 0.2 // it began in the second before, in the file's folder
	// elsewhere is the most for one of a container when the file is the host's, or the agent's own: the two may share a
	// volume, and a path says little then. The other way round it says nothing.
	elsewhere = 0.2
)

const (
	maxWriters = 5
	maxRecent  = 256 // processes that are considered of those that began lately
	maxAsked   = 1024
	maxFound   = 4096
	// keepFound is how long an answer waits for its event: longer than any path is let settle.
	keepFound = 10 * time.Second
	// slack allows for the grain of a start time, a clock tick of 10 ms (sysconf(_SC_CLK_TCK)), and of the boot time.
	slack = 50 * time.Millisecond
)

// writers finds out who has a file open as soon as the kernel tells that it changes, beside the sensor's own look,
// which comes when the file is at rest and the writer gone. Safe for concurrent use.
type writers struct {
	search *search
	recent *budget // for asking who began lately and weighing it
	count  func(dropped, searches int)
	wake   chan struct{}

	mu    sync.Mutex
	asked map[string]struct{}
	found map[id]finding
}

type finding struct {
	holders []holder
	at      time.Time
}

func newWriters(s *search, count func(dropped, searches int)) *writers {
	return &writers{
		search: s, recent: newBudget(recentRate, recentBurst), count: count, wake: make(chan struct{}, 1),
		asked: make(map[string]struct{}), found: make(map[id]finding),
	}
}

// ask wants to know who writes to path. It never waits.
func (w *writers) ask(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) >= maxAsked {
		w.count(1, 0)
		return
	}
	w.asked[path] = struct{}{}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run answers until ctx ends.
func (w *writers) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		if d := w.search.wait(); d > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(d):
			}
		}
		w.answer()
	}
}

func (w *writers) answer() {
	w.mu.Lock()
	asked := w.asked
	w.asked = make(map[string]struct{})
	w.mu.Unlock()
	targets := make(map[id]struct{}, len(asked))
	for path := range asked {
		if s, err := lstat(path); err == nil && s.kind == regular {
			targets[s.id] = struct{}{}
		}
	}
	if len(targets) == 0 {
		return
	}
	found := w.search.holders(targets)
	w.count(0, 1)
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.found)+len(found) > maxFound {
		for of, f := range w.found {
			if now.Sub(f.at) > keepFound {
				delete(w.found, of)
			}
		}
	}
	for of, holders := range found {
		holders = slices.DeleteFunc(holders, func(h holder) bool { return !h.writes })
		if len(holders) > 0 && len(w.found) < maxFound {
			w.found[of] = finding{holders, now}
		}
	}
}

// take returns who had the file open for writing when it changed last, if that was found out since. What was found too
// late for the change before says nothing about this one.
func (w *writers) take(of id, since time.Time) []holder {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, ok := w.found[of]
	if !ok {
		return nil
	}
	delete(w.found, of)
	if f.at.Before(since) {
		return nil
	}
	return f.holders
}

// nameWriters gives each change that the kernel told of its candidates.
func (s *Sensor) nameWriters(changes []change) {
	var recent []Began
	asked := false
	for i := range changes {
		c := &changes[i]
		if c.origin != live {
			continue
		}
		var holders []holder
		if c.cur != nil && c.cur.kind == regular {
			holders = s.writers.take(c.cur.id, c.at.Add(-5*s.config.Settle-slack)) // see Config.Settle
			if !c.written && !c.arrived() {
				holders = nil // no open file is needed for a chmod
			}
		}
		start := time.Now()
		if !asked && s.config.Recent != nil && s.writers.recent.wait() == 0 {
			recent, asked = newestOf(s.config.Recent(), c.at), true
		}
		c.writers = candidates(deed{c.path, c.container, c.at, true}, s.search.self, holders, recent)
		if asked {
			s.writers.recent.spend(start)
			if s.writers.recent.wait() > 0 {
				recent = nil
			}
		}
	}
}

// newestOf returns those of processes that began in the minute before at, at most maxRecent of them, the newest first.
func newestOf(processes []Began, at time.Time) []Began {
	var out []Began
	for _, p := range processes {
		if age := at.Sub(p.At); age > -time.Second && age < time.Minute {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Began) int { return b.At.Compare(a.At) })
	return out[:min(len(out), maxRecent)]
}

// deed is what happened to a file.
type deed struct {
	path      string
	container string
	at        time.Time
	written   bool // false of a read
}

// candidates weighs the evidence about who did d.
func candidates(d deed, self int32, holders []holder, recent []Began) []event.Writer {
	var out []event.Writer
	add := func(pid int32, exe string, confidence float64) {
		if pid == self || confidence == 0 {
			return
		}
		i := slices.IndexFunc(out, func(w event.Writer) bool { return w.PID == pid })
		if i < 0 {
			out = append(out, event.Writer{PID: pid, Exe: exe, Confidence: confidence})
			return
		}
		if out[i].Exe == "" {
			out[i].Exe = exe
		}
		out[i].Confidence = max(out[i].Confidence, confidence)
	}
	for _, h := range holders {
		confidence := openAlone
		if len(holders) > 1 {
			confidence = openAmong
		}
		add(h.pid, h.exe, confidence)
	}
	for _, p := range recent {
		age := d.at.Sub(p.At)
		if age <= -slack || age >= time.Minute || d.container != "" && p.Container != d.container {
			continue
		}
		confidence := weigh(d.path, p.Process, age, d.written)
		if p.Container != d.container {
			confidence = min(confidence, elsewhere)
		}
		add(p.PID, p.Exe, confidence)
	}
	slices.SortStableFunc(out, func(a, b event.Writer) int { return cmp.Compare(b.Confidence, a.Confidence) })
	return out[:min(len(out), maxWriters)]
}

// weigh returns what the command line of p, which began age before, says of its having to do with path.
func weigh(path string, p *event.Process, age time.Duration, written bool) float64 {
	atOnce := age < time.Second+slack
	dir, name := split(path)
	line := p.Cmdline
	switch {
	case names(line, path), p.Cwd != "" && within(path, p.Cwd) && path != p.Cwd && names(line, relative(path, p.Cwd)):
		if atOnce {
			return namedAtOnce
		}
		return named
	case atOnce && (names(line, name) || dir != "/" && names(line, dir)):
		return namedInFolder
	case written && isPackageManager(p.Exe, p.Args) && isInstalled(path):
		return managesPackage
	case atOnce && p.Cwd == dir && dir != "/":
		return worksInFolder
	}
	return 0
}

func relative(path, dir string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
}

// names reports whether a command line has path in it as a whole, in whatever quotes or beside whatever operator.
func names(line, path string) bool {
	if path == "" {
		return false
	}
	for at := 0; ; {
		n := strings.Index(line[at:], path)
		if n < 0 {
			return false
		}
		start := at + n
		after := strings.TrimPrefix(line[start+len(path):], "/")
		before := strings.TrimSuffix(line[:start], "./")
		if (before == "" || !isNameByte(before[len(before)-1])) &&
			(after == "" || !isNameByte(after[0])) {
			return true
		}
		at = start + 1
	}
}

// isNameByte reports whether b next to a path makes it another one.
func isNameByte(b byte) bool {
	return b == '/' || b == '.' || b == '-' || b == '_' || b >= 0x80 ||
		'0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// isInstalled reports whether path is where packages have their files: the Filesystem Hierarchy Standard 3.0.
func isInstalled(path string) bool {
	top, _, _ := strings.Cut(strings.TrimPrefix(filepath.Clean(path), "/"), "/")
	switch top {
	case "bin", "boot", "etc", "lib", "lib32", "lib64", "opt", "sbin", "usr", "var":
		return true
	}
	return false
}
