package process

import (
	"bytes"
	"slices"

	"github.com/apss-sensor/apss/edge/internal/redact"
)

// Bounds of what is taken from an environment, which may be as large as the arguments.
const (
	maxVariables     = 16
	maxVariableRunes = 256
)

// DefaultEnv are the names of the variables that change which code a program runs: the loader's (ld.so(8)), those that
// shells and interpreters read files by, and those that hold options for them.
func DefaultEnv() []string {
	return []string{
		"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "PROMPT_COMMAND", "PYTHONPATH", "PYTHONSTARTUP",
		"PYTHONHOME", "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT", "NODE_OPTIONS", "NODE_PATH", "JAVA_TOOL_OPTIONS",
		"GCONV_PATH",
	}
}

// pick returns those of the variables of an environment that have the names, as "NAME=value", without credentials.
func pick(cut redact.Redactor, environ []byte, names []string) (picked []string, taken int) {
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		name, _, found := bytes.Cut(v, []byte("="))
		if !found || !slices.ContainsFunc(names, func(n string) bool { return n == string(name) }) {
			continue
		}
		clean, n := cut.Args([]string{string(v)})
		taken += n
		picked = append(picked, firstRunes(clean[0], len(name)+1+maxVariableRunes))
		if len(picked) == maxVariables {
			break
		}
	}
	return picked, taken
}
