// Command apss-rules checks, tests and runs detection rules. Run it with -help for its uses.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/apss-sensor/apss/edge/internal/rulebook"
	"github.com/apss-sensor/apss/shared/detect"
)

const usage = `apss-rules checks, tests and runs detection rules (Sigma 2.1).

  apss-rules check PATH...                      print every fault of the rules, and how many are supported
  apss-rules test PATH...                       hold rules, laid over the pack, against the fixtures beside them
  apss-rules eval [--rules PATH]... < EVENTS    read events (a line of JSON each), print the alerts they make
  apss-rules explain [--rules PATH]... RULE     what a rule means and needs, where it works, what is excepted from it
  apss-rules list [--rules PATH]...             a table of the rules
  apss-rules -version

PATH is a file or a folder of rules, filters and exceptions. They are laid over the pack that comes with the agent: a rule
takes the place of the pack's with its id, filters and exceptions are for rules of both. --only leaves the pack out.

Exit codes: 0 all is well, 1 a fault or a failure was found, 2 wrong usage.
`

// version is set by the linker.
var version = "dev"

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// errUsage is in the chain of every error that the command line is to blame for.
var errUsage = errors.New("see apss-rules -help")

func main() { os.Exit(command(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// command does what args say and returns the exit code.
func command(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	well, err := run(args, stdin, stdout, stderr)
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "apss-rules:", err)
		return exitUsage
	case err != nil:
		fmt.Fprintln(stderr, "apss-rules:", err)
		return exitFailed
	case !well:
		return exitFailed
	}
	return exitOK
}

// run reports whether all was well.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (bool, error) {
	if len(args) == 0 {
		return false, fmt.Errorf("say what to do; %w", errUsage)
	}
	name, args := args[0], args[1:]
	switch name {
	case "-help", "--help", "-h", "help":
		_, err := io.WriteString(stdout, usage)
		return true, err
	case "-version", "--version":
		_, err := fmt.Fprintln(stdout, version)
		return true, err
	case "check", "test":
		if len(args) == 0 {
			return false, fmt.Errorf("%s needs a file or folder; %w", name, errUsage)
		}
		if name == "check" {
			return rulebook.Check(stdout, args, time.Now())
		}
		return rulebook.Test(stdout, args)
	case "eval", "explain", "list":
	default:
		return false, fmt.Errorf("no such use: %q; %w", name, errUsage)
	}

	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var paths []string
	flags.Func("rules", "", func(path string) error { paths = append(paths, path); return nil })
	only := flags.Bool("only", false, "")
	if err := flags.Parse(args); err != nil {
		return false, fmt.Errorf("%s: %w; %w", name, err, errUsage)
	}
	want := 0
	if name == "explain" {
		want = 1
	}
	if flags.NArg() != want || *only && len(paths) == 0 {
		return false, fmt.Errorf("%s: wrong arguments %q; %w", name, args, errUsage)
	}
	read := rulebook.WithPack
	if *only {
		read = rulebook.Read
	}
	rules, faults, err := read(paths)
	if err != nil {
		return false, err
	}
	for _, f := range faults { // the others go on
		fmt.Fprintln(stderr, f)
	}
	switch name {
	case "explain":
		return true, rulebook.Explain(stdout, rules, flags.Arg(0), time.Now())
	case "list":
		return true, rulebook.List(stdout, rules, time.Now())
	}
	set, faults := detect.Compile(rules, detect.Options{})
	for _, f := range faults {
		fmt.Fprintln(stderr, f)
	}
	return true, rulebook.Eval(set, stdin, stdout, stderr)
}
