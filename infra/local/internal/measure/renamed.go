package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// renamed runs sleep under other names, in a folder of /tmp: the rules are about /tmp, wherever TMPDIR is.
type renamed struct {
	dir     string
	running context.Context //nolint:containedctx // what was started ends with it
	cancel  context.CancelFunc
	started []*exec.Cmd
}

func newRenamed(ctx context.Context) (*renamed, error) {
	dir, err := os.MkdirTemp("/tmp", "apss-bench-")
	if err != nil {
		return nil, err
	}
	p := &renamed{dir: dir}
	p.running, p.cancel = context.WithCancel(ctx)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	data, err := os.ReadFile(sleep)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	if err := os.WriteFile(p.original(), data, 0o700); err != nil { //nolint:gosec // it is to be run
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *renamed) original() string { return filepath.Join(p.dir, "program") }

// link gives the program the name, a path below the folder, and returns the whole path.
func (p *renamed) link(name string) (string, error) {
	path := filepath.Join(p.dir, name)
	return path, errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Link(p.original(), path))
}

// start runs the program at path, and returns when it began to do so.
func (p *renamed) start(path string) (time.Time, error) {
	cmd := exec.CommandContext(p.running, path, "60")
	since := time.Now()
	if err := cmd.Start(); err != nil {
		return since, fmt.Errorf("running %s: %w", path, err)
	}
	p.started = append(p.started, cmd)
	return since, nil
}

// close kills what runs and removes the folder.
func (p *renamed) close() error {
	p.cancel()
	for _, cmd := range p.started {
		_ = cmd.Wait()
	}
	return os.RemoveAll(p.dir)
}
