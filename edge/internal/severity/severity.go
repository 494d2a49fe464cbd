// Package severity says how much an event matters until rules say it better: a small built-in judgement on ports,
// files, executables and command lines.
//
// [Of] is a pure function of the event. It needs no state and no setting, and may be called concurrently. It errs
// towards silence: what administrators and runtimes do every day stays below HIGH.
package severity

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/apss-sensor/apss/shared/event"
)

// Of returns the severity of e. It does not look at e.Severity.
func Of(e *event.Event) event.Severity {
	switch e.Type {
	case event.ProcessExec:
		if e.Process != nil {
			return ofExec(e.Process, marked(e))
		}
	case event.FileCreate, event.FileModify, event.FileDelete, event.FileRename, event.FileChmod, event.FileChown,
		event.FileRead:
		if e.File != nil {
			return ofFile(e.Type, e.File)
		}
	case event.NetworkConnect, event.NetworkListen:
		if e.Network != nil {
			return ofNetwork(e)
		}
	default: // ends, and what the agent says of itself
	}
	return event.Info
}

// marked reports whether a sensor saw that standard input or output is a socket.
func marked(e *event.Event) bool {
	m, _ := e.Metadata["stdio_socket"].(bool)
	return m
}

func ofExec(p *event.Process, stdioSocket bool) event.Severity {
	shell := isShell(p)
	switch {
	case suspiciousCommand(p, shell):
		return event.High
	case shell && stdioSocket && slices.Contains(p.Args, "-i"):
		return event.High
	case p.ExeDeleted && strings.HasPrefix(p.Exe, runcMemfd):
		return event.Medium
	case p.ExeDeleted:
		return event.High
	case shell && stdioSocket: // also "ssh host command" and children of Node.js, over Unix sockets
		return event.Medium
	case anyoneWrites(p.Exe):
		return event.Medium
	case shell:
		return event.Low
	}
	return event.Info
}

// runcMemfd is how runc starts itself for each container against CVE-2019-5736. Others can take the name too.
const runcMemfd = "/memfd:runc_cloned:"

// anyoneWrites reports whether p lies where every user may put a file.
func anyoneWrites(p string) bool { return under(p, "/tmp", "/var/tmp", "/dev/shm", "/run/shm") }

func ofNetwork(e *event.Event) event.Severity {
	n := e.Network
	shell := e.Process != nil && isShell(e.Process)
	socket := marked(e)
	listens := e.Type == event.NetworkListen
	switch {
	case n.IsSuspiciousPort && (shell || socket):
		return event.Critical
	case shell && socket && !listens: // a shell that talks to a peer whatever the port is
		return event.Critical
	case n.IsSuspiciousPort:
		return event.High
	case shell && n.IsExternal:
		return event.Medium
	case n.IsExternal || listens:
		return event.Low
	}
	return event.Info
}

// Paths whose change gives or hides access. The first version of this system watched most of them.
var (
	sensitiveFiles = []string{
		"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/sudoers", "/etc/crontab", "/etc/ld.so.preload",
	}
	sensitiveFolders = []string{"/root/.ssh", "/var/spool/cron", "/etc/sudoers.d"}
	systemFolders    = []string{"/etc", "/bin", "/sbin", "/lib", "/lib64", "/usr", "/boot"}
)

func sensitive(p string) bool {
	return slices.Contains(sensitiveFiles, p) || under(p, sensitiveFolders...) || strings.HasPrefix(p, "/etc/cron.") ||
		strings.HasSuffix(p, "/.ssh/authorized_keys")
}

func ofFile(t event.Type, f *event.File) event.Severity {
	p := path.Clean(f.Path)
	switch {
	case t == event.FileRead:
		if sensitive(p) && p != "/etc/passwd" && p != "/etc/group" { // which every name lookup reads
			return event.Medium
		}
		return event.Info
	case sensitive(p):
		return event.High
	case t == event.FileChmod && setsID(f.Mode):
		return event.High
	case under(p, systemFolders...):
		return event.Medium
	}
	return event.Low
}

// setsID reports whether a mode runs a file with its owner's or group's rights, chmod(1).
func setsID(mode string) bool {
	const setuid, setgid = 0o4000, 0o2000
	m, err := strconv.ParseUint(mode, 8, 32)
	return err == nil && m&(setuid|setgid) != 0
}

// under reports whether p is one of folders or lies in one.
func under(p string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		rest, ok := strings.CutPrefix(p, folder)
		return ok && (rest == "" || rest[0] == '/')
	})
}
