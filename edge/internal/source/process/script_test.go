package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/redact"
	"github.com/apss-sensor/apss/shared/event"
)

func TestScriptOf(t *testing.T) {
	for name, tt := range map[string]struct{ exe, args, want string }{
		"binfmt_script":    {"/usr/bin/dash", "/bin/sh /opt/run x", "/opt/run"},
		"option":           {"/bin/bash", "bash -eux run.sh", "run.sh"},
		"code":             {"/bin/bash", "bash -ec ls run.sh", ""},
		"stdin":            {"/bin/sh", "sh -s run.sh", ""},
		"dash alone":       {"/bin/sh", "sh - x", ""},
		"end of options":   {"/bin/sh", "sh -- -x", "-x"},
		"ends with them":   {"/bin/sh", "sh --", ""},
		"version":          {"/usr/bin/python3.11", "python3 -u app.py", "app.py"},
		"module":           {"/usr/bin/python3", "python3 -m http.server", ""},
		"perl":             {"/usr/bin/perl", "perl -we print", ""},
		"node":             {"/usr/bin/node", "node --eval=1 x", ""},
		"busybox applet":   {"/bin/busybox", "ls /etc", ""},
		"busybox shell":    {"/bin/busybox", "sh /x", "/x"},
		"busybox, spelled": {"/bin/busybox", "busybox sh /x", "/x"},
		"no interpreter":   {"/bin/cat", "cat /x", ""},
		"interactive":      {"/bin/sh", "sh", ""},
		"exe is hidden":    {"", "sh /x", ""},
	} {
		if got := scriptOf(tt.exe, strings.Fields(tt.args)); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func FuzzScriptOf(f *testing.F) {
	f.Add("/bin/busybox", "busybox sh -x -- /x")
	f.Add("/usr/bin/python3", "python3 -u app.py")
	f.Fuzz(func(t *testing.T, exe, args string) {
		words := strings.Split(args, " ")
		if got := scriptOf(exe, words); got != "" && !slices.Contains(words[1:], got) {
			t.Errorf("%q is no argument of %q", got, words)
		}
	})
}

func TestPick(t *testing.T) {
	long := strings.Repeat("é", 2*maxVariableRunes)
	environ := "HOME=/root\x00LD_PRELOAD=/tmp/x.so\x00NODE_OPTIONS=--require=https://a:b@c\x00DB_PASSWORD=x\x00ENV=" + long + "\x00LD_AUDIT"
	got, n := pick(redact.Redactor{}, []byte(environ), append(DefaultEnv(), "DB_PASSWORD"))
	want := []string{
		"LD_PRELOAD=/tmp/x.so", "NODE_OPTIONS=--require=https://a:[redacted]@c", "DB_PASSWORD=[redacted]", "ENV=" + long[:2*maxVariableRunes],
	}
	if diff := cmp.Diff(want, got); diff != "" || n != 2 {
		t.Errorf("redacted %d, differs (-want +got):\n%s", n, diff)
	}
	many, _ := pick(redact.Redactor{}, []byte(strings.Repeat("ENV=\xff\x00", 1000)), DefaultEnv())
	if len(many) != maxVariables {
		t.Errorf("got %d variables, want %d", len(many), maxVariables)
	}
}

func FuzzPick(f *testing.F) {
	f.Add([]byte("A=b\x00LD_PRELOAD=/x\x00\x00=\x00ENV"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _ := pick(redact.Redactor{}, b, DefaultEnv())
		for _, v := range got {
			name, _, found := strings.Cut(v, "=")
			if !found || !slices.Contains(DefaultEnv(), name) || utf8.RuneCountInString(v) > len(name)+1+maxVariableRunes {
				t.Errorf("got %q", v)
			}
		}
	})
}

func TestRealScript(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "run")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"by the kernel":     {[]string{script}, script},
		"relative":          {[]string{"/bin/sh", "run"}, script},
		"relative, by path": {[]string{"/bin/sh", "-e", "./run"}, script},
	} {
		t.Run(name, func(t *testing.T) {
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			defer out.Close()
			s := watch(t, nil)
			pid := start(t, &exec.Cmd{
				Path: tt.args[0], Args: tt.args, Dir: dir, Stdin: in,
				Env: []string{"LD_LIBRARY_PATH=/nowhere", "SECRET=x", "ENV=/a?token=abc"},
			})
			got := find(t, s, event.ProcessExec, pid, anyEvent).Metadata
			want := map[string]any{
				"script": tt.want, "env": []string{"LD_LIBRARY_PATH=/nowhere", "ENV=/a?token=[redacted]"}, "redacted": 1,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("metadata differs (-want +got):\n%s", diff)
			}
		})
	}
}
