// Command apss-functions serves the functions over HTTP on PORT: in a container, or on a laptop.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/apss-sensor/apss/functions/internal/program"
)

var version = "dev" // set by the linker

func main() { os.Exit(run()) }

// run returns the exit code: 0 after a clean drain, 2 for wrong settings, else 1.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p, err := program.New(ctx, os.Environ(), version, os.Stderr)
	if err == nil {
		p.LimitMemory()
		err = p.Run(ctx)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, program.ErrSettings):
		fmt.Fprintln(os.Stderr, "apss-functions:", err)
		return 2
	default:
		fmt.Fprintln(os.Stderr, "apss-functions:", err)
		return 1
	}
}
