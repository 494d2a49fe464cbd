// Command apss-functions serves the functions over HTTP on PORT: in a container, or on a laptop. Run it with -help for its
// settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/apss-sensor/apss/functions/internal/program"
)

var version = "dev" // set by the linker

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `apss-functions serves Forward, Notify and Health to Pub/Sub's pushes.

  apss-functions            run until SIGTERM or SIGINT, then deliver what is in hand
  apss-functions -version   print the version
  apss-functions -help      print this

Exit codes: 0 ended as asked, 1 failed while running, 2 wrong settings or usage. A reference to a secret is
secret://projects/P/secrets/NAME/versions/latest, file:///PATH or env://NAME.

Settings, from the environment:

`

func main() { os.Exit(command(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// command does what args say and returns the exit code.
func command(args, environ []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) == 0:
		err = run(environ, stderr)
	case len(args) == 1 && (args[0] == "-version" || args[0] == "--version"):
		_, err = fmt.Fprintln(stdout, version)
	case len(args) == 1 && (args[0] == "-help" || args[0] == "--help" || args[0] == "-h"):
		if _, err = io.WriteString(stdout, usage); err == nil {
			err = program.Help(stdout)
		}
	default:
		fmt.Fprintf(stderr, "apss-functions: no such use: %q; see apss-functions -help\n", args)
		return exitUsage
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "apss-functions:", err)
	if errors.Is(err, program.ErrSettings) {
		return exitUsage
	}
	return exitFailed
}

func run(environ []string, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p, err := program.New(ctx, environ, version, stderr)
	if err != nil {
		return err
	}
	p.LimitMemory()
	return p.Run(ctx)
}
