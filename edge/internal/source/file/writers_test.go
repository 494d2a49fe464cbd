package file

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

func TestCandidates(t *testing.T) {
	now := time.Unix(1000, 0)
	began := func(pid int32, before time.Duration, cwd, line string) Began {
		args := strings.Fields(line)
		return Began{Process: &event.Process{PID: pid, Exe: args[0], Args: args, Cmdline: line, Cwd: cwd}, At: now.Add(-before)}
	}
	in := func(container string, b Began) Began {
		b.Container = container
		return b
	}
	const path = "/etc/cron.d/job"
	tests := []struct {
		name    string
		holders []holder
		recent  []Began
		read    bool
		where   string // the file's container
		want    string // pid:confidence
	}{
		{"nobody", nil, nil, false, "", ""},
		{"the only one", []holder{{7, "/bin/vi", true}}, nil, false, "", "7:0.9"},
		{"several", []holder{{7, "", true}, {8, "", true}}, nil, false, "", "7:0.6 8:0.6"},
		{"ourselves", []holder{{1, "", true}}, nil, false, "", ""},
		{"names it", nil, []Began{began(7, time.Millisecond, "/", "cp x /etc/cron.d/job")}, false, "", "7:0.5"},
		{"names it in a script", nil, []Began{began(7, 0, "/", "sh -c 'echo x>/etc/cron.d/job'")}, false, "", "7:0.5"},
		{"names it from where it is", nil, []Began{began(7, 0, "/etc", "tee ./cron.d/job")}, false, "", "7:0.5"},
		{"names it long ago", nil, []Began{began(7, 30*time.Second, "/", "vi /etc/cron.d/job")}, false, "", "7:0.4"},
		{"too long ago", nil, []Began{began(7, 2*time.Minute, "/", "vi /etc/cron.d/job")}, false, "", ""},
		{"afterwards", nil, []Began{began(7, -time.Second, "/", "cat /etc/cron.d/job")}, false, "", ""},
		{"names another", nil, []Began{began(7, 0, "/", "vi /etc/cron.d/job2 /x/etc/cron.d/job")}, false, "", ""},
		{"names the folder", nil, []Began{began(7, 0, "/", "cp job.new /etc/cron.d/")}, false, "", "7:0.3"},
		{"names the name", nil, []Began{began(7, 0, "", "tee job")}, false, "", "7:0.3"},
		{"works there", nil, []Began{began(7, 0, "/etc/cron.d", "make")}, false, "", "7:0.2"},
		{"package manager", nil, []Began{began(7, 9*time.Second, "/", "/usr/bin/dpkg --configure -a")}, false, "", "7:0.3"},
		{"package manager's script", nil, []Began{began(7, 9*time.Second, "/", "/usr/bin/python3 /usr/bin/dnf install x")}, false, "", "7:0.3"},
		{"package manager reads", nil, []Began{began(7, 9*time.Second, "/", "/usr/bin/dpkg -l")}, true, "", ""},
		{"both kinds", []holder{{7, "", true}}, []Began{began(7, 0, "/", "vi /etc/cron.d/job"), began(8, 0, "/", "ls /etc/cron.d")}, false, "", "7:0.9 8:0.3"},
		{"in the file's container", nil, []Began{in("a", began(7, 0, "/", "vi /etc/cron.d/job"))}, false, "a", "7:0.5"},
		{"in another container", nil, []Began{in("b", began(7, 0, "/", "vi /etc/cron.d/job"))}, false, "a", ""},
		{"of the host, the file is a container's", nil, []Began{began(7, 0, "/", "vi /etc/cron.d/job")}, false, "a", ""},
		{"in a container, the file is the host's", nil, []Began{in("b", began(7, 0, "/", "vi /etc/cron.d/job"))}, false, "", "7:0.2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := make([]string, 0)
			for _, w := range candidates(deed{path, test.where, now, !test.read}, 1, test.holders, newestOf(test.recent, now)) {
				got = append(got, fmt.Sprint(w.PID, ":", w.Confidence))
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzNames(f *testing.F) {
	f.Add("vi /etc/passwd", "/etc/passwd")
	f.Add("x", "")
	f.Add("////", "/")
	f.Add("./././a", "a")
	f.Fuzz(func(t *testing.T, line, path string) {
		if names(line, path) && !strings.Contains(line, path) {
			t.Errorf("names(%q, %q) is true", line, path)
		}
	})
}

func TestCandidatesAreBounded(t *testing.T) {
	now := time.Now()
	var recent []Began
	for i := range 2 * maxRecent {
		recent = append(recent, Began{Process: &event.Process{PID: int32(i + 1), Cmdline: "vi /a/b"}, At: now.Add(-time.Duration(i))})
	}
	recent = newestOf(recent, now)
	if len(recent) != maxRecent || recent[0].PID != 1 {
		t.Errorf("got %d processes, want the newest %d", len(recent), maxRecent)
	}
	if got := candidates(deed{"/a/b", "", now, true}, 0, nil, recent); len(got) != maxWriters {
		t.Errorf("got %d candidates, want %d", len(got), maxWriters)
	}
}

// A process that keeps the file open is named, at one of its writes: a search that takes longer than the file is let
// settle names nobody.
func TestWriters(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/a", "a")
	r := start(t, Config{Paths: []string{d}})
	r.hashed(t)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec 3>>"+d+"/a; while read wait; do echo more >&3; done")
	in, err := cmd.StdinPipe()
	must(t, err, cmd.Start())
	var writers []event.Writer
	for deadline := time.Now().Add(patience); len(writers) == 0 && time.Now().Before(deadline); {
		_, err := in.Write([]byte("\n"))
		must(t, err)
		writers = r.want(t, "modify "+d+"/a")["modify "+d+"/a"].File.Writers
	}
	must(t, in.Close())
	_ = cmd.Wait() // its read found the end
	if len(writers) != 1 {
		t.Fatalf("got writers %+v, want one", writers)
	}
	if got := writers[0]; got.PID != int32(cmd.Process.Pid) || got.Confidence != openAlone || got.Exe == "" {
		t.Errorf("got %+v, want process %d with its executable and %v", got, cmd.Process.Pid, openAlone)
	}
}

// What was found of an earlier change is not taken for this one's.
func TestFindingsGrowOld(t *testing.T) {
	now := time.Now()
	w := newWriters(newSearch(t.TempDir()), func(int, int) {})
	find := func() { w.found[id{1, 2}] = finding{[]holder{{7, "", true}}, now} }
	find()
	if got := w.take(id{1, 2}, now.Add(-time.Millisecond)); len(got) != 1 {
		t.Errorf("got %v, want what was found since", got)
	}
	find()
	if got := w.take(id{1, 2}, now.Add(time.Millisecond)); len(got) != 0 || len(w.found) != 0 {
		t.Errorf("got %v, %d left; want nothing", got, len(w.found))
	}
}

func TestRecentProcessesAreAskedFor(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/a", "a")
	var began atomic.Int64
	r := start(t, Config{Paths: []string{d}, Recent: func() []Began {
		return []Began{{Process: &event.Process{PID: 42, Exe: "/bin/rm", Cmdline: "rm " + d + "/a"}, At: time.Unix(0, began.Load())}}
	}})
	began.Store(time.Now().UnixNano())
	must(t, os.Remove(d+"/a"))
	got := r.want(t, "delete "+d+"/a")["delete "+d+"/a"].File.Writers
	// It is a second or more ago where the machine is busy.
	if len(got) != 1 || got[0].PID != 42 || got[0].Exe != "/bin/rm" || got[0].Confidence != namedAtOnce && got[0].Confidence != named {
		t.Errorf("got writers %+v, want process 42 by its command line", got)
	}
}

// fixture makes a proc file system of n processes with files open each.
func fixture(tb testing.TB, n int, open ...string) string {
	tb.Helper()
	proc := tb.TempDir()
	must(tb, os.Symlink("1", proc+"/self"), os.WriteFile(proc+"/loadavg", []byte("0 0 0 1/1 "+strconv.Itoa(n)), 0o644))
	for pid := 1; pid <= n; pid++ {
		fd := fmt.Sprintf("%s/%d/fd", proc, pid)
		must(tb, os.MkdirAll(fd, 0o755))
		for i, path := range open {
			must(tb, os.Symlink(path, fmt.Sprint(fd, "/", i)))
		}
	}
	return proc
}

func TestHolders(t *testing.T) {
	file := t.TempDir() + "/x"
	write(t, file, "x")
	st, err := lstat(file)
	must(t, err)
	targets := map[id]struct{}{st.id: {}}
	s := newSearch(fixture(t, 20, "/nowhere", "pipe:[1]", file, file))
	s.most = patience
	if s.self != 1 {
		t.Errorf("got pid %d for ourselves, want 1", s.self)
	}
	got := s.holders(targets)[st.id]
	if len(got) != 19 || got[0].pid != 20 || got[18].pid != 2 || !got[0].writes {
		t.Errorf("got %d holders, want 19 from pid 20 down, without ourselves: %v", len(got), got)
	}
	if s.holders(map[id]struct{}{{}: {}})[id{}] != nil {
		t.Error("got holders of a file that is not open")
	}
	for s.wait() == 0 {
		s.holders(targets)
	}
	if got := newSearch(t.TempDir()).holders(targets); len(got) != 0 {
		t.Errorf("got %v from an empty folder", got)
	}
}

// BenchmarkHolders searches the processes of this machine.
func BenchmarkHolders(b *testing.B) {
	s := newSearch("/proc")
	before, n := cpu(b), 0
	for b.Loop() {
		s.holders(map[id]struct{}{{}: {}})
		n++
	}
	b.ReportMetric(float64(len(s.pids())), "processes")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(n), "cpu-us/search")
}
