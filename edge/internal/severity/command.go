package severity

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/shared/event"
)

var (
	shells = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "rbash"}
	// One file, many programs: there the first argument says which.
	multicall = []string{"", ".", "busybox", "toybox", "coreutils"}
	miners    = []string{
		"xmrig", "xmr-stak", "minerd", "cpuminer", "ethminer", "nbminer", "phoenixminer", "lolminer", "kinsing", "kdevtmpfsi",
	}
	netcats = []string{"nc", "ncat", "netcat", "nc.traditional"}
)

// program returns the name of what runs: of the executable, which a process cannot choose, where that tells it.
func program(p *event.Process) string {
	name := path.Base(p.Exe)
	if slices.Contains(multicall, name) && len(p.Args) > 0 {
		args := p.Args
		if name != "." && name != "" && len(args) > 1 && path.Base(args[0]) == name {
			args = args[1:] // busybox sh
		}
		name = strings.TrimPrefix(path.Base(args[0]), "-") // a login shell
	}
	return name
}

func isShell(p *event.Process) bool { return slices.Contains(shells, program(p)) }

// What a shell does with a program from the network or from an encoding.
const interpreter = `\|\s*(sudo\s+)?(\S*/)?((ba|da|a|z|k)?sh|python[0-9.]*|perl)\b`

var shellTricks = []*regexp.Regexp{
	regexp.MustCompile(`/dev/(tcp|udp)/`), // bash(1), REDIRECTION: T1059.004
	regexp.MustCompile(`\b(curl|wget)\b[^|;]*` + interpreter),
	regexp.MustCompile("(\\$\\(|<\\(|`)\\s*(curl|wget)\\b"),
	regexp.MustCompile(`\bbase64\s+(-[a-zA-Z]*[dD]\b|--decode\b)[^|]*` + interpreter),
	regexp.MustCompile(`\bmkfifo\b.*\b(nc|ncat|netcat)\b`),
	regexp.MustCompile(`\b(nc|ncat|netcat)\s([^;|&]*\s)?(-[a-z]*[ec]|--exec|--sh-exec)\s`),
}

// scriptTricks make a shell out of a socket in an interpreter's one-liner.
var scriptTricks = regexp.MustCompile(`socket.*(dup2|pty\.spawn|subprocess|/bin/(ba)?sh)`)

// suspiciousCommand reports whether what p runs is a known way in or a miner.
func suspiciousCommand(p *event.Process, shell bool) bool {
	name := program(p)
	switch {
	case slices.Contains(miners, strings.ToLower(name)), strings.Contains(p.Cmdline, "stratum+"):
		return true
	case shell:
		return slices.ContainsFunc(shellTricks, func(r *regexp.Regexp) bool { return r.MatchString(p.Cmdline) })
	case slices.Contains(netcats, name):
		return slices.ContainsFunc(p.Args, func(a string) bool {
			return a == "--exec" || a == "--sh-exec" || isShortFlag(a) && strings.ContainsAny(a, "ec")
		})
	case strings.HasPrefix(name, "python"), strings.HasPrefix(name, "perl"), name == "ruby", name == "php":
		return scriptTricks.MatchString(p.Cmdline)
	}
	return false
}

// isShortFlag reports whether a is a group of one-letter flags, such as -lve.
func isShortFlag(a string) bool {
	return len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "abcdefghijklmnopqrstuvwxyz") == ""
}
