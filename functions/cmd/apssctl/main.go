// Command apssctl is for the people who run APSS. Run it with -help for its uses.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `apssctl looks after the deliveries of APSS.

  apssctl status [-json] [-check]               how every integration is, and which agents are silent
  apssctl test [-json] INTEGRATION              send it a marked test; say what the receiver answered, and how fast
  apssctl dlq list [-json] [FILTER]             the dead letters: what was given up, and why
  apssctl dlq show ID                           one of them, with its events
  apssctl dlq replay [-json] [-dry-run] FILTER|-all
                                                bring them to the integration that they were for, and to no other
  apssctl cost [-json] [-prices FILE] [...] EVENTS
                                                what a million such events cost, measured on a file of them (NDJSON)
  apssctl config check [-json] [-local] FILE    every fault of a document of integrations
  apssctl -version

"apssctl USE -help" lists the flags of a use.

Environment:
  APSS_URL              of the functions, on Cloud Run of Health; http://localhost:8080 when it is not set
  APSS_EVENTS_URL       of Forward, APSS_ALERTS_URL of Notify, where dead letters are to go to them and not to APSS_URL
  APSS_ADMIN_TOKEN      what /health asks for, when the functions were given one
  APSS_IDENTITY_TOKEN   for Cloud Run's check of who calls: $(gcloud auth print-identity-token)
  PUBSUB_PROJECT_ID     of the dead letters; PUBSUB_EMULATOR_HOST when it is an emulator that has them

Exit codes: 0 all is well; 1 something is not: an integration fails, a test or a replay was not accepted, a document has
faults; 2 wrong usage; 3 somebody who had to be asked could not be reached, or does not let us in.
`

var version = "dev" // set by the linker

const (
	exitOK = iota
	exitUnwell
	exitUsage
	exitUnreachable
)

var (
	// errUsage is in the chain of every error that the command line is to blame for.
	errUsage = errors.New("see apssctl -help")
	// errUnwell is what a use returns that has said already what is not well.
	errUnwell = errors.New("not all is well")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second one ends it at once
	c := control{env: os.Getenv, stdout: os.Stdout, stderr: os.Stderr}
	code := c.command(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// control is one run.
type control struct {
	env            func(string) string
	stdout, stderr io.Writer
}

// command does what args say and returns the exit code.
func (c *control) command(ctx context.Context, args []string) int {
	err := c.run(ctx, args)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUnwell):
		return exitUnwell
	}
	fmt.Fprintln(c.stderr, "apssctl:", err)
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitUnreachable
}

func (c *control) run(ctx context.Context, args []string) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	if (name == "dlq" || name == "config") && len(args) > 0 {
		name, args = name+" "+args[0], args[1:]
	}
	switch name {
	case "-help", "--help", "-h", "help", "dlq -help", "dlq --help", "dlq -h", "config -help", "config --help", "config -h":
		_, err := io.WriteString(c.stdout, usage)
		return err
	case "-version", "--version":
		_, err := fmt.Fprintln(c.stdout, version)
		return err
	case "status":
		return c.status(ctx, args)
	case "test":
		return c.test(ctx, args)
	case "dlq list":
		return c.list(ctx, args)
	case "dlq show":
		return c.show(ctx, args)
	case "dlq replay":
		return c.replay(ctx, args)
	case "cost":
		return c.cost(args)
	case "config check":
		return c.check(ctx, args)
	case "":
		return fmt.Errorf("say what to do; %w", errUsage)
	case "dlq":
		return fmt.Errorf("say what to do with the dead letters: list, show or replay; %w", errUsage)
	case "config":
		return fmt.Errorf("say what to do with the document: check; %w", errUsage)
	}
	return fmt.Errorf("there is no use %q; %w", name, errUsage)
}

// flags are those of a use, whose operands are named for the help.
func (c *control) flags(use, operands string) *flag.FlagSet {
	f := flag.NewFlagSet(use, flag.ContinueOnError)
	f.SetOutput(io.Discard) // what is wrong is said once
	f.Usage = func() {
		f.SetOutput(c.stdout)
		fmt.Fprintln(c.stdout, strings.TrimSpace("usage: apssctl "+use+" [flags] "+operands))
		f.PrintDefaults()
		f.SetOutput(io.Discard)
	}
	return f
}

// parse reads flags, which may stand behind operands as well, and returns the operands: want of them.
func parse(f *flag.FlagSet, args []string, want int) ([]string, error) {
	help := f.Usage
	f.Usage = func() {}
	var operands []string
	for {
		if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
			help()
			return nil, err
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w; %w", f.Name(), err, errUsage)
		}
		if args = f.Args(); len(args) == 0 {
			break
		}
		operands, args = append(operands, args[0]), args[1:]
	}
	if len(operands) != want {
		return nil, fmt.Errorf("%s: got %d operands %q, want %d; %w", f.Name(), len(operands), operands, want, errUsage)
	}
	return operands, nil
}
