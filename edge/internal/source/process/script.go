package process

import (
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// interpreters are programs whose first argument that is no option is a script. Versions follow the names.
func interpreters() []string {
	return []string{
		"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox",
		"python", "pypy", "perl", "ruby", "node", "nodejs", "php", "lua", "luajit", "tclsh", "Rscript", "deno", "bun",
	}
}

// interprets reports whether exe is an interpreter, and with which arguments: busybox is one under a shell's name.
func interprets(exe string, args []string) ([]string, bool) {
	name := strings.TrimRight(path.Base(exe), "0123456789.-")
	if len(args) < 2 || !slices.Contains(interpreters(), name) {
		return nil, false
	}
	if name != "busybox" {
		return args, true
	}
	if path.Base(args[0]) == "busybox" { // busybox sh script
		args = args[1:]
	}
	shell := path.Base(args[0])
	return args, len(args) > 1 && (shell == "sh" || shell == "ash")
}

// scriptOf returns the argument that may be a script: the first that is no option, unless an option before it brings the
// code itself (sh -c, perl -e, python -m, node --eval, php -r). The value of an option is not told apart from a script,
// which is why whoever asks must look whether there is such a file.
func scriptOf(exe string, args []string) string {
	args, ok := interprets(exe, args)
	if !ok {
		return ""
	}
	for i, arg := range args[1:] {
		switch {
		case arg == "--":
			if i+2 < len(args) {
				return args[i+2]
			}
			return ""
		case arg == "-" || arg == "":
			return ""
		case strings.HasPrefix(arg, "--"):
			if option, _, _ := strings.Cut(arg, "="); option == "--eval" || option == "--print" || option == "--command" {
				return ""
			}
		case arg[0] == '-' || arg[0] == '+':
			if takesCode(path.Base(exe), arg) {
				return ""
			}
		default:
			return arg
		}
	}
	return ""
}

// takesCode reports whether a cluster of short options ends in one that is followed by code or a module's name, or says
// that the code comes from stdin.
func takesCode(name, arg string) bool {
	codes := "cs" // of shells
	switch strings.TrimRight(name, "0123456789.-") {
	case "python", "pypy":
		codes = "cm"
	case "perl", "ruby", "lua", "luajit", "Rscript":
		codes = "eE"
	case "node", "nodejs", "deno", "bun":
		codes = "ep"
	case "php":
		codes = "rBRE"
	}
	return strings.ContainsAny(arg[len(arg)-1:], codes)
}

// script returns the path of the script that a process runs, as the process sees it; "" when it runs none.
func (r *reader) script(dir int, d *details) string {
	script := scriptOf(d.exe, d.args)
	if script == "" {
		return ""
	}
	full := script
	if !path.IsAbs(full) && d.cwd != "" {
		full = path.Join(d.cwd, script)
	}
	if there, known := r.exists(dir, full); known {
		if !there {
			return ""
		}
		return full
	}
	// The kernel names a script by a path (load_script, fs/binfmt_script.c); a bare word may be anything.
	if !strings.Contains(script, "/") {
		return ""
	}
	return full
}

// exists reports whether the process sees a file at an absolute path, if that can be known.
func (r *reader) exists(dir int, name string) (there, known bool) {
	if !path.IsAbs(name) {
		return false, false
	}
	root, err := unix.Openat(dir, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, false
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false, errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG)
	}
	_ = unix.Close(fd)
	return true, true
}
