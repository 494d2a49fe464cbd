package alerting

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReload(t *testing.T) {
	one, two := folder(t, map[string]string{"a.yml": rule("T-1", "bash", "low")}), folder(t, nil)
	r := start(t, Config{Dirs: []string{one, two}})
	for _, step := range []struct {
		name   string
		do     func()
		change bool
		want   string // rules in force
		said   string // in the log
	}{
		{"nothing", func() {}, false, "T-1", ""},
		{"a rule is added", func() { put(t, two, "b.yml", rule("T-2", "zsh", "low")) }, true, "T-1 T-2", ""},
		{"a rule is broken", func() { put(t, two, "b.yml", bad) }, false, "T-1 T-2", `b.yml:4: rule \"Bad\": `},
		{"it is still", func() {}, false, "T-1 T-2", ""},
		{"another change does not help", func() { put(t, one, "c.yml", rule("T-3", "sh", "low")) }, false, "T-1 T-2", "the rules in force stay"},
		{"it is mended", func() { put(t, two, "b.yml", rule("T-4", "zsh", "low")) }, true, "T-1 T-3 T-4", ""},
		{"an id twice", func() { put(t, one, "d.yml", rule("T-1", "sh", "low")) }, false, "T-1 T-3 T-4", `id \"T-1\" is taken`},
		{"it is not any more", func() { remove(t, one, "d.yml") }, true, "T-1 T-3 T-4", ""},
		{"a folder is gone", func() { remove(t, two) }, false, "T-1 T-3 T-4", "no such file"},
		{"it is back", func() {
			if err := os.Mkdir(two, 0o700); err != nil {
				t.Fatal(err)
			}
		}, true, "T-1 T-3", ""},
		{"a file that is none of ours", func() { put(t, two, "README.md", bad) }, false, "T-1 T-3", ""},
		{"all is gone", func() { remove(t, one, "a.yml"); remove(t, one, "c.yml") }, true, "", ""},
	} {
		r.log.Reset()
		step.do()
		if got := r.Reload(); got != step.change {
			t.Errorf("%s: got change %v, want %v", step.name, got, step.change)
		}
		if got := strings.Join(r.ids(), " "); got != step.want {
			t.Errorf("%s: got the rules %q, want %q", step.name, got, step.want)
		}
		if step.said != "" && !strings.Contains(r.log.String(), step.said) {
			t.Errorf("%s: got the log %q, want %q in it", step.name, &r.log, step.said)
		}
		if step.said == "" && strings.Contains(r.log.String(), "ERROR") {
			t.Errorf("%s: got the log %q, want no error", step.name, &r.log)
		}
	}
}

func TestABadStartStopsNothing(t *testing.T) {
	parent := t.TempDir()
	missing := filepath.Join(parent, "missing")
	dir := folder(t, map[string]string{"a.yml": bad + "---\n" + rule("T-1", "bash", "low")})
	r := start(t, Config{Dirs: []string{missing, dir}})
	if diff := cmp.Diff([]string{"T-1"}, r.ids()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	for _, want := range []string{missing, `a.yml:4: rule \"Bad\"`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("got the log %q, want %q in it", &r.log, want)
		}
	}
	summary := r.Summary()
	if got := summary["problems"].([]string); len(got) != 2 || summary["problem_count"] != 2 || summary["up_to_date"] != true {
		t.Errorf("got %v of the heartbeat, want both problems", summary)
	}
	// What was wrong from the start does not keep the rest from being changed.
	put(t, dir, "b.yml", rule("T-2", "sh", "low"))
	if !r.Reload() {
		t.Error("an added rule: got no change")
	}
	put(t, dir, "b.yml", bad[:20])
	if r.Reload() {
		t.Error("a new fault: got a change")
	}
	if summary := r.Summary(); summary["up_to_date"] != false || summary["refused"] != int64(1) {
		t.Errorf("got %v of the heartbeat, want it to say that a state was refused", summary)
	}
	if err := os.Mkdir(missing, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, missing, "c.yml", rule("T-3", "sh", "low"))
	put(t, dir, "b.yml", rule("T-2", "sh", "low"))
	if r.Reload(); strings.Join(r.ids(), " ") != "T-1 T-2 T-3" {
		t.Errorf("when the folder is there: got %v", r.ids())
	}
}

func TestRulesAreLaidOverThePack(t *testing.T) {
	r := start(t, Config{Pack: true, Dirs: []string{folder(t, map[string]string{
		"a.yml": rule("APSS-002", "harmless", "low"),
		"f.yml": "title: Ours\nlogsource: {category: process_creation}\nfilter: {rules: [APSS-018], s: {Image|startswith: /tmp/ours/}, condition: s}\n",
	})}})
	for exe, want := range map[string][]string{
		"/opt/xmrig": nil, "/opt/harmless": {"APSS-002"}, "/tmp/ours/x": nil, "/tmp/theirs/x": {"APSS-018"},
	} {
		if diff := cmp.Diff(want, r.evaluate(exec(exe))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", exe, diff)
		}
	}
	if got := r.Summary()["filters"]; got != 1 {
		t.Errorf("got %v filters, want 1", got)
	}
}

func TestCorrelationsSurviveReloads(t *testing.T) {
	dir := folder(t, map[string]string{"a.yml": counting})
	r := start(t, Config{Pack: true, Dirs: []string{dir}})
	for _, step := range []struct {
		name, file, text string
		want             []string // of the second event of two
	}{
		{"another rule", "b.yml", rule("T-1", "zsh", "low"), []string{"C-1"}},
		{"a filter on the part", "f.yml", "title: F\nlogsource: {category: process_creation}\nfilter: {rules: [part], s: {User: nobody}, condition: s}\n", []string{"C-1"}},
		{"the correlation itself", "a.yml", strings.Replace(counting, "1h", "2h", 1), nil},
	} {
		r.evaluate(exec("/bin/id"))
		put(t, dir, step.file, step.text)
		if !r.Reload() {
			t.Fatalf("%s: got no change; log: %s", step.name, &r.log)
		}
		if diff := cmp.Diff(step.want, r.evaluate(exec("/bin/id"))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// mount makes a version of a ConfigMap's volume and swaps it in, as the kubelet does (k8s.io/kubernetes
// pkg/volume/util/atomic_writer.go).
func mount(t *testing.T, dir, version, text string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, version), "a.yml", text)
	swap := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(version, swap); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(swap, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// The kernel's hints, and the poll without them: the deadline is far longer than either takes, and far shorter than the
// other's.
func TestFoldersAreWatched(t *testing.T) {
	for name, c := range map[string]struct {
		poll   time.Duration
		nested bool // where no hint comes from
	}{"hints": {time.Hour, false}, "poll": {50 * time.Millisecond, true}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in := dir
			if c.nested {
				in = filepath.Join(dir, "below")
				if err := os.Mkdir(in, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			mount(t, in, "..1", rule("T-1", "bash", "low"))
			if err := os.Symlink("..data/a.yml", filepath.Join(in, "a.yml")); err != nil {
				t.Fatal(err)
			}
			r := start(t, Config{Dirs: []string{dir}, Poll: c.poll})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { r.Run(ctx, r.take) })
			defer running.Wait()
			defer cancel()
			for i, id := range []string{"T-2", "T-3"} {
				mount(t, in, "..2"+id, rule(id, "bash", "low"))
				if i == 0 { // as the kubelet clears up
					remove(t, in, "..1")
				}
				deadline := time.After(30 * time.Second)
				for strings.Join(r.ids(), " ") != id {
					select {
					case <-time.After(5 * time.Millisecond):
					case <-deadline:
						t.Fatalf("got the rules %v, want %s", r.ids(), id)
					}
				}
			}
		})
	}
}
