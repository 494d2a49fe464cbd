// Command apss-webhook puts the agent beside the containers of pods: it answers the API server's admission reviews, keeps
// the certificates for that, tells who created what, and looks for pods that should have an agent and have none. Several
// replicas may run; none leads. Run it with -help for its settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(command(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// command does what args say and returns the exit code.
func command(args, environ []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) == 0:
		s, wrong := load(environ)
		if wrong != nil {
			fmt.Fprintln(stderr, "apss-webhook: wrong settings, nothing was started (-help lists them):\n"+wrong.Error())
			return exitUsage
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = run(ctx, s, stdout, stderr)
	case len(args) == 1 && (args[0] == "-version" || args[0] == "--version"):
		_, err = fmt.Fprintln(stdout, version)
	case len(args) == 1 && (args[0] == "-help" || args[0] == "--help" || args[0] == "-h"):
		err = printHelp(stdout)
	default:
		fmt.Fprintf(stderr, "apss-webhook: no such use: %q; see apss-webhook -help\n", args)
		return exitUsage
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "apss-webhook:", err)
		return exitFailed
	}
	return exitOK
}
