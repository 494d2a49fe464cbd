// Package functions registers the Cloud Run functions with the functions framework. Each entry point serves its own paths;
// the path says which integration a push is for, as in cmd/apss-functions.
package functions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/apss-sensor/apss/functions/internal/program"
)

//nolint:gochecknoinits // the functions framework demands registration in init
func init() {
	for _, f := range program.Functions() {
		functions.HTTP(string(f), entry(f, os.Environ, os.Getenv("FUNCTION_TARGET") == string(f)))
	}
}

// entry builds the function's program with the first request, or at once when it is what the process is started for: then
// wrong settings end the start, and the deployment is refused instead of each push.
func entry(f program.Function, environ func() []string, now bool) http.HandlerFunc {
	build := sync.OnceValues(func() (*program.Program, error) {
		return program.New(context.Background(), environ(), "", os.Stderr, f)
	})
	if now {
		p, err := build()
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", f, err)
			os.Exit(exitCode(err))
		}
		p.LimitMemory()
	}
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := build()
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", f, err)
			http.Error(w, string(f)+" cannot start; its log says why", http.StatusInternalServerError)
			return
		}
		p.Handler().ServeHTTP(w, r)
	}
}

// exitCode is 2 for wrong settings, as of every program here.
func exitCode(err error) int {
	if errors.Is(err, program.ErrSettings) {
		return 2
	}
	return 1
}
