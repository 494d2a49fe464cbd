package file

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// hide stands in for the agent's redaction.
func hide(s string) string { return strings.ReplaceAll(s, "hunter2", "[redacted]") }

func TestUnified(t *testing.T) {
	long := strings.Repeat("é", maxDiffLine)
	var many strings.Builder
	for i := range 2000 {
		fmt.Fprintln(&many, "line", i)
	}
	tests := []struct {
		name, before, after string
		existed             bool
		want                []string // parts of the diff
	}{
		{"changed", "a\nb\nc\n", "a\nB\nc\n", true, []string{"--- before\n+++ after\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"}},
		{"new", "", "a\n", false, []string{"--- /dev/null\n+++ after\n", "+a\n"}},
		{"emptied", "a\n", "", true, []string{"-a\n"}},
		{"no newline", "a", "b", true, []string{"-a\n\\ No newline at end of file\n+b\n"}},
		{"the same after redaction", "a\n", "a\n", true, []string{"\\ only redacted values differ\n"}},
		{"long line", "a\n", long + "\n", true, []string{"é [514 bytes more]\n"}},
		{"too much", "", many.String(), false, []string{"+line 0\n", "\\ left out: ", " lines, "}},
		{"control characters", "a\n", "\x1b[2J\ra\n", true, []string{"+\x1b[2J\ra\n"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := unified(test.before, test.after, test.existed)
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("got %q, want it to contain %q", got, want)
				}
			}
			if len(got) > maxDiff || !utf8.ValidString(got) {
				t.Errorf("got %d bytes, valid %v; want valid text of at most %d", len(got), utf8.ValidString(got), maxDiff)
			}
		})
	}
}

func FuzzUnified(f *testing.F) {
	f.Add("a\nb\n", "a\nc", true)
	f.Add("", "\xff", false)
	f.Add(strings.Repeat("a\n", 300), strings.Repeat("b\n", 5000), true)
	f.Add(strings.Repeat("x", 9000), "", true)
	f.Fuzz(func(t *testing.T, before, after string, existed bool) {
		got := unified(before, after, existed)
		if len(got) > maxDiff || got == "" {
			t.Errorf("got %d bytes, want 1 to %d", len(got), maxDiff)
		}
		if utf8.ValidString(before) && utf8.ValidString(after) && !utf8.ValidString(got) {
			t.Error("the diff of two valid texts is not valid UTF-8")
		}
	})
}

func TestSecretPath(t *testing.T) {
	patterns := []string{"*.sql", "/srv/*/data"}
	for path, want := range map[string]bool{
		"/etc/passwd": false, "/etc/shadow": true, "/etc/shadow-": true, "/etc/gshadow": true, "/etc/sudoers": false,
		"/root/.ssh/id_ed25519": true, "/root/.ssh/work": true, "/root/.ssh/authorized_keys": false, "/root/.ssh/config": false,
		"/etc/ssh/ssh_host_rsa_key": true, "/etc/ssh/sshd_config": false, "/etc/ssl/private/x": true, "/x/tls.key": true,
		"/x/CERT.PEM": true, "/root/.kube/config": true, "/root/.aws/config": true, "/root/.bash_history": true,
		"/var/run/secrets/kubernetes.io/serviceaccount/token": true, "/etc/kubernetes/admin.conf": true,
		"/etc/cron.d/job": false, "/app/.env": true, "/app/credentials.json": true, "/root/.config/gcloud/x": true,
		"/dump.sql": true, "/dump.sql.d/x": false, "/srv/a/data/x": true, "/srv/a/b": false,
	} {
		if got := secretPath(path, patterns); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/etc/passwd", "root:x:0:0\n")
	write(t, d+"/etc/shadow", "root:$6$a:1\n")
	write(t, d+"/etc/app.conf", "user = bob\npassword = hunter2\n")
	write(t, d+"/etc/pem.conf", "-----BEGIN PRIVATE KEY-----\nMII\n")
	write(t, d+"/etc/blob", "\x00\x01")
	write(t, d+"/etc/large", strings.Repeat("x\n", 600))
	write(t, d+"/etc/linked", "one\n")
	must(t, os.Link(d+"/etc/linked", d+"/etc/other-name"))
	must(t, os.Symlink("etc/shadow", d+"/innocent"))
	r := start(t, Config{
		Paths: []string{d + "/innocent", d + "/etc"}, Redact: hide, NoDiff: []string{"*.hidden"}, Limits: Limits{DiffSize: 1 << 10},
	})
	r.hashed(t)
	// Each step's events come in any order among those of other files.
	for _, step := range []struct{ path, text, want string }{
		{"/etc/passwd", "root:x:0:0\nevil:x:0:0\n", "--- before\n+++ after\n@@ -1 +1,2 @@\n root:x:0:0\n+evil:x:0:0\n"},
		{"/etc/passwd", "root:x:0:0\nevil:x:0:1\n", "--- before\n+++ after\n@@ -1,2 +1,2 @@\n root:x:0:0\n-evil:x:0:0\n+evil:x:0:1\n"},
		{"/etc/app.conf", "user = eve\npassword = hunter2\n", "--- before\n+++ after\n@@ -1,2 +1,2 @@\n-user = bob\n+user = eve\n password = [redacted]\n"},
		{"/etc/pem.conf", "-----BEGIN PRIVATE KEY-----\nXYZ\n", ""},
		{"/etc/blob", "\x00\x02", ""},
		{"/etc/large", strings.Repeat("y\n", 600), ""},
		{"/etc/linked", "two\n", ""},
		{"/etc/new.hidden", "x\n", ""},
		{"/etc/cron", "* * * * * root evil\n", "--- /dev/null\n+++ after\n@@ -0,0 +1 @@\n+* * * * * root evil\n"},
	} {
		write(t, d+step.path, step.text)
		for {
			e := r.next(t)
			if e.File.Path != d+step.path {
				continue
			}
			if e.File.Diff != step.want {
				t.Errorf("%s: got diff %q, want %q", step.path, e.File.Diff, step.want)
			}
			break
		}
	}
	write(t, d+"/etc/shadow", "root:$6$b:1\n")
	for range 2 { // by both of its names
		if e := r.next(t); e.File.Diff != "" {
			t.Errorf("%s: got diff %q, want none", e.File.Path, e.File.Diff)
		}
	}
	r.stop()
	for n, text := range r.texts.kept {
		if strings.Contains(text.string, "hunter2") || strings.Contains(n.path(), "shadow") {
			t.Errorf("%s is kept: %q", n.path(), text.string)
		}
	}
}

// Texts are read again after a restart, without events.
func TestDiffAfterRestart(t *testing.T) {
	t.Parallel()
	d, state := t.TempDir(), t.TempDir()+"/state"
	write(t, d+"/a", "one\n")
	c := Config{Paths: []string{d}, StateFile: state, Redact: hide}
	r := start(t, c)
	r.hashed(t)
	r.stop()
	r = start(t, c)
	r.hashed(t)
	write(t, d+"/a", "two\n")
	if got := r.want(t, "modify "+d+"/a")["modify "+d+"/a"].File.Diff; !strings.Contains(got, "-one\n+two\n") {
		t.Errorf("got diff %q, want one for two", got)
	}
}

// Less important texts give way, and the bound holds.
func TestTextsAreBounded(t *testing.T) {
	c := Config{Redact: hide}
	c.Limits.DiffSize, c.Limits.DiffMemory = 1<<10, 3*(100+textOverhead)
	s := newTexts(c)
	content := []byte(strings.Repeat("x", 100))
	var nodes [6]node
	for i := range nodes {
		s.learn(&nodes[i], content, false, 2-i/2) // the last two are the most important
	}
	if len(s.kept) != 3 || s.room != 0 {
		t.Fatalf("got %d texts and room for %d bytes, want 3 and none", len(s.kept), s.room)
	}
	if nodes[4].keeping != textKept || nodes[5].keeping != textKept {
		t.Error("the most important texts are not kept")
	}
	for i := range nodes {
		s.forget(&nodes[i])
	}
	c.Limits.DiffSize = 64 << 10
	s = newTexts(c)
	if _, _, ok := s.learn(&nodes[0], bytes.Repeat([]byte("\n"), 64<<10), false, 0); ok || nodes[0].keeping != textNone {
		t.Error("a text that costs more than all at once is compared")
	}
	if s.room != c.Limits.DiffMemory || len(s.ranks) != 0 {
		t.Errorf("got room for %d bytes and ranks %v after all are gone", s.room, s.ranks)
	}
}
