package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// Config says what to watch and how. Zero values take the defaults named with each field.
type Config struct {
	// Paths are the files and folders to watch, most important first: absolute, as seen under Root, folders with all
	// that is below them. They need not exist yet. A component may be a pattern of [filepath.Match].
	Paths []string
	// Logs are files that are written all the time, in the manner of Paths: that they come, go, shrink, or change owner or
	// mode is told, not that they grow, and they are never read. They come after Paths.
	Logs []string
	// ReadPaths are the files and folders of which every open is told, in the manner of Paths; [DefaultReadPaths] if nil,
	// none if empty.
	ReadPaths []string
	// Exclude are files and folders that are never looked at: the agent's own. StateFile is always one of them.
	Exclude []string
	// StateFile keeps the baseline between runs; none when empty. It is not below Root.
	StateFile string
	// Root is where the watched file system is mounted, "/" by default. Events have paths without it.
	Root string
	// Roots, which may be nil, tells which containers are to be watched besides: every one at first and all of them again
	// at each change, until ctx ends. The first sight of a container makes its baseline without events; what is not in
	// the list any more is forgotten.
	Roots func(ctx context.Context) <-chan []Root
	// Proc is where the proc file system is mounted, "/proc" by default.
	Proc string
	// Recent returns the programs that began lately, as the process sensor knows them. It may be nil; it must be quick and
	// safe to call from another goroutine, and what it returns is not changed any more.
	Recent func() []Began
	// Settle is how long a path that is written again and again must be quiet before it is looked at; 30 ms by
	// default. One that has been at rest is looked at after a third of it, one that never rests after five times it.
	Settle time.Duration
	// Poll is how often what has no watch is looked at; 30 s by default.
	Poll time.Duration
	// Rescan is how often everything is compared with the baseline; 5 min by default.
	Rescan time.Duration
	// Redact takes credentials out of a text that is to be shown in a diff. No diff is made without it.
	Redact func(text string) string
	// NoDiff are patterns of [filepath.Match] for what is never shown in a diff, besides what is known to hold
	// credentials (shadow, keys, tokens, ...): with a slash for a path and all below it, without for a name.
	NoDiff []string
	Limits Limits
	// Logger is [slog.Default] when nil.
	Logger *slog.Logger
}

// Began is a program that a process ran lately.
type Began struct {
	*event.Process

	At        time.Time // when it ran the program
	Container string    // the id of the one it runs in; empty: none, or unknown
}

// Limits bound what the sensor takes.
type Limits struct {
	// Files is the most files and folders in the baseline; 100,000 by default, about 300 bytes each.
	Files int
	// Roots is the most containers; 128 by default. Each takes of Files and Watches.
	Roots int
	// Depth is how many folders below a watched path are entered; 64 by default.
	Depth int
	// Watches is the most inotify watches. By default it is the kernel's limit per user, fs.inotify.max_user_watches
	// (inotify(7)), which is shared with every other process of that user.
	Watches int
	// ReadWatches is the most inotify watches for ReadPaths; 1,024 by default.
	ReadWatches int
	// HashSize is the largest file that is hashed; 16 MiB by default.
	HashSize int64
	// HashRate is how many bytes are hashed in a second; 64 MiB by default. A small file counts as 4 KiB.
	HashRate int64
	// DiffSize is the largest text that is compared for a diff; 64 KiB by default.
	DiffSize int64
	// DiffMemory is how many bytes of texts are kept for diffs; 8 MiB by default. The files of the first paths come
	// first.
	DiffMemory int
}

// withDefaults returns c with every default in its place, or everything that is wrong with it.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	setDefault(&c.Root, "/")
	setDefault(&c.Proc, "/proc")
	setDefault(&c.Settle, 30*time.Millisecond)
	setDefault(&c.Poll, 30*time.Second)
	setDefault(&c.Rescan, 5*time.Minute)
	setDefault(&c.Limits.Files, 100_000)
	setDefault(&c.Limits.Roots, 128)
	setDefault(&c.Limits.Depth, 64)
	setDefault(&c.Limits.HashSize, 16<<20)
	setDefault(&c.Limits.ReadWatches, 1024)
	setDefault(&c.Limits.HashRate, 64<<20)
	setDefault(&c.Limits.DiffSize, 64<<10)
	setDefault(&c.Limits.DiffMemory, 8<<20)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}

	if len(c.Paths) == 0 {
		fault("no path to watch is given")
	}
	clean := func(what string, paths []string) []string {
		out := make([]string, 0, len(paths))
		for _, p := range paths {
			switch {
			case !filepath.IsAbs(p):
				fault("%s %q is not absolute", what, p)
			case strings.ContainsRune(p, 0):
				fault("%s %q contains a NUL byte", what, p)
			default:
				if p = filepath.Clean(p); !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
		return out
	}
	c.Paths = clean("watched path", c.Paths)
	c.Logs = clean("log", c.Logs)
	c.Logs = slices.DeleteFunc(c.Logs, func(p string) bool { return slices.Contains(c.Paths, p) })
	c.Paths = append(c.Paths, c.Logs...)
	for _, p := range c.Paths {
		if _, err := filepath.Match(p, ""); err != nil {
			fault("watched path %q: %w", p, err)
		}
	}
	for _, p := range c.NoDiff {
		if _, err := filepath.Match(p, ""); err != nil {
			fault("pattern %q of what is not shown: %w", p, err)
		}
	}
	if c.ReadPaths == nil {
		c.ReadPaths = DefaultReadPaths()
	}
	c.ReadPaths = clean("path whose reads are told", c.ReadPaths)
	for _, p := range c.ReadPaths {
		if _, err := filepath.Match(p, ""); err != nil {
			fault("path whose reads are told %q: %w", p, err)
		}
	}
	c.Exclude = clean("excluded path", c.Exclude)
	for _, p := range c.Paths {
		for _, own := range c.Exclude {
			if within(p, own) {
				fault("watched path %q is in the excluded %q", p, own)
			}
		}
	}
	c.Root = strings.Join(clean("root", []string{c.Root}), "")
	c.Proc = strings.Join(clean("proc", []string{c.Proc}), "")
	if c.StateFile != "" {
		c.StateFile = strings.Join(clean("state file", []string{c.StateFile}), "")
	}
	for name, n := range map[string]int64{
		"settle": int64(c.Settle), "poll": int64(c.Poll), "rescan": int64(c.Rescan),
		"limit of files": int64(c.Limits.Files), "limit of depth": int64(c.Limits.Depth),
		"limit of roots":   int64(c.Limits.Roots),
		"limit of watches": int64(c.Limits.Watches), "limit of read watches": int64(c.Limits.ReadWatches),
		"limit of hashed size": c.Limits.HashSize,
		"hash rate":            c.Limits.HashRate, "limit of a text's size": c.Limits.DiffSize,
		"memory for diffs": int64(c.Limits.DiffMemory),
	} {
		if n < 0 {
			fault("the %s is negative", name)
		}
	}
	return c, errors.Join(errs...)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
