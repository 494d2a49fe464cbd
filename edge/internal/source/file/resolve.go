package file

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symlinks the kernel follows in one path: MAXSYMLINKS, path_resolution(7).
const maxLinks = 40

var errLoop = errors.New("too many symlinks")

// step is one lookup on the way to a watched path: of a name in a folder, both on the disk.
type step struct{ dir, name string }

// resolve follows path inside top, as chroot(2) would, and returns every lookup it took and where it led to. The place
// is empty when something on the way is missing; the last step is then the lookup that found nothing.
func resolve(top, path string) (steps []step, place string, err error) {
	place = top
	rest := strings.TrimPrefix(path, "/")
	for links := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			if place != top {
				place, _ = split(place)
			}
			continue
		}
		steps = append(steps, step{place, name})
		next := join(place, name)
		s, err := lstat(next)
		switch {
		case err != nil:
			return steps, "", err
		case s.kind == absent:
			return steps, "", nil
		case s.kind != symlink:
			place = next
			continue
		}
		if links++; links > maxLinks {
			return steps, "", errLoop
		}
		target, err := os.Readlink(next)
		if err != nil {
			return steps, "", err
		}
		if filepath.IsAbs(target) {
			place = top
		}
		rest = target + "/" + rest
	}
	return steps, place, nil
}

// strip returns place as seen under top.
func strip(top, place string) string {
	if top == "/" {
		return place
	}
	if rest := strings.TrimPrefix(place, top); rest != "" {
		return rest
	}
	return "/"
}

// isPattern reports whether path has a component that is a pattern of [filepath.Match].
func isPattern(path string) bool { return strings.ContainsAny(path, `*?[\`) }

// solid returns the name by which place is looked at: /proc/PID/root is a link that only the kernel can follow
// (proc_pid_root(5)), and here it stands for the folder.
func solid(place string) string {
	process, ok := strings.CutSuffix(place, "/root")
	if !ok || process == "" {
		return place
	}
	proc, pid := split(process)
	if strings.HasSuffix(proc, "/proc") && (pid == "self" || pid != "" && strings.Trim(pid, "0123456789") == "") {
		return place + "/."
	}
	return place
}

// pseudo are the file systems whose files are not data but the kernel's own doing, which are not entered: statfs(2).
var pseudo = [...]int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
	unix.TRACEFS_MAGIC, unix.BPF_FS_MAGIC, unix.SECURITYFS_MAGIC, unix.DEVPTS_SUPER_MAGIC,
}

func isPseudo(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false
	}
	for _, magic := range pseudo {
		if st.Type == magic {
			return true
		}
	}
	return false
}

// match returns the paths that pattern stands for under top, at most limit: what follows the last component that is a
// pattern need not exist. It adds to steps the folders whose entries were matched, and the lookups on the way to them.
func match(top, pattern string, limit int, steps *[]step) ([]string, error) {
	var faults []error
	paths := []string{"/"}
	for name := range components(pattern) {
		var next []string
		for _, dir := range paths {
			if !isPattern(name) {
				next = append(next, join(dir, name))
				continue
			}
			onWay, place, err := resolve(top, dir)
			*steps = append(*steps, onWay...)
			if err != nil || place == "" {
				continue
			}
			*steps = append(*steps, step{place, anyName})
			entries, err := readNames(place)
			if err != nil {
				faults = append(faults, err)
			}
			for _, e := range entries {
				if ok, _ := filepath.Match(name, e); ok && len(next) < limit {
					next = append(next, join(dir, e))
				}
			}
		}
		paths = next
	}
	return paths, errors.Join(faults...)
}
