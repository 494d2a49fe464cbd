package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCalm runs this test again in a program that calms itself, and looks at what that one's first thread says.
func TestCalm(t *testing.T) {
	const asked = "APSS_TEST_CALM"
	if os.Getenv(asked) != "" {
		calm()
		slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil || slack != int(timerSlack) {
			t.Errorf("got a slack of %d ns and %v, want %v", slack, err, timerSlack)
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCalm$", "-test.v")
	cmd.Env = append(os.Environ(), asked+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "=== RUN") != 2 {
		t.Errorf("got %v, want it to run twice and to pass:\n%s", err, out)
	}
}
