package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestAgentIsSmall makes the agent's image as make images does. Nodes pull it, and every pod has it beside it: it is to be
// below 25 MiB, as it is pulled and as it is on a disk.
func TestAgentIsSmall(t *testing.T) {
	const limit = 25
	dir := t.TempDir()
	program := filepath.Join(dir, "apss-agent")
	makefile := string(content(t, "../../../Makefile"))
	flags := regexp.MustCompile(`(?m)^GOBUILD = CGO_ENABLED=0 go build (.*) -ldflags '(.*)'$`).FindStringSubmatch(makefile)
	if flags == nil {
		t.Fatal("the Makefile does not say how programs are built")
	}
	args := append([]string{"build", "-o", program, "-ldflags", strings.ReplaceAll(flags[2], "$(VERSION)", "v1.2.3")}, strings.Fields(flags[1])...)
	build := exec.CommandContext(t.Context(), "go", append(args, "./cmd/apss-agent")...)
	build.Dir = "../../../edge"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux") // in the workspace, as make build: what that has built is used
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var out strings.Builder
	if err := run([]string{"-base", "scratch", "-out", dir, "-version", "v1.2.3", program}, &out); err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(out.String()) // apss-agent sha256:... 12.3 MiB
	if len(fields) != 4 || fields[3] != "MiB" {
		t.Fatalf("got %q", &out)
	}
	pulled, err := strconv.ParseFloat(fields[2], 64)
	if err != nil {
		t.Fatal(err)
	}
	// The distroless base is 1 MiB, and scratch has its part of it.
	unpacked := float64(len(content(t, program))) / (1 << 20)
	t.Logf("the agent's image: %.1f MiB pulled; its program: %.1f MiB", pulled, unpacked)
	if pulled >= limit || unpacked >= limit {
		t.Errorf("the agent's image has %.1f MiB, its program %.1f MiB, want less than %d", pulled, unpacked, limit)
	}
}
