package process

import (
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/procfs"

	"github.com/apss-sensor/apss/edge/internal/redact"
)

const statTail = " 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 4096 1 18446744073709551615 1 1 140000 0 0 0 0 0 0 0 0 0 17 0 0 0"

func TestParseStat(t *testing.T) {
	named := func(s string) (c [16]byte) { copy(c[:], s); return c }
	for name, tt := range map[string]struct {
		in   string
		want stat
		ok   bool
	}{
		"usual": {"7 (bash) S 1" + statTail, stat{image: image{named("bash"), 140000}, state: 'S', ppid: 1, flags: 4194304, start: 12345, threads: 1}, true},
		"hostile name": {
			"7 (a) R 9 (\n) S 1" + statTail,
			stat{image: image{named("a) R 9 (\n"), 140000}, state: 'S', ppid: 1, flags: 4194304, start: 12345, threads: 1}, true,
		},
		"thread":        {"7 (x) S 1" + strings.Replace(statTail, " 17 0", " -1 0", 1), stat{image: image{named("x"), 140000}, state: 'S', ppid: 1, flags: 4194304, start: 12345, threads: 1, thread: true}, true},
		"until 22":      {"7 (x) S 1 1 1 0 -1 64 1 0 0 0 0 0 0 0 20 0 1 0 5", stat{image: image{comm: named("x")}, state: 'S', ppid: 1, flags: 64, start: 5, threads: 1}, true},
		"too short":     {"7 (x) S 1 1 1 0 -1 64 1 0 0 0 0 0 0 0 20 0 1 0", stat{}, false},
		"no name":       {"7 S 1", stat{}, false},
		"parent is odd": {"7 (x) S -1" + statTail, stat{}, false},
		"empty":         {"", stat{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.in))
			if (err == nil) != tt.ok || got != tt.want {
				t.Errorf("parseStat(%q) = %+v, %v; want %+v, ok %t", tt.in, got, err, tt.want, tt.ok)
			}
		})
	}
}

// The library that node_exporter uses must read the same from this machine's processes.
func TestReaderAgreesWithProcfs(t *testing.T) {
	r, err := newReader("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	all, err := procfs.AllProcs()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, p := range all {
		want, err := p.Stat()
		if err != nil {
			continue // it ended
		}
		got, err := r.read(int32(p.PID))
		if err != nil || got.stat.kernel() {
			continue
		}
		compared++
		if got.stat.start != want.Starttime || got.stat.name() != want.Comm {
			t.Errorf("pid %d: got start %d of %q, want %d of %q", p.PID, got.stat.start, got.stat.name(), want.Starttime, want.Comm)
		}
		if exe, err := p.Executable(); err == nil && got.exe != strings.TrimSuffix(exe, deletedSuffix) {
			t.Errorf("pid %d: got exe %q, want %q", p.PID, got.exe, exe)
		}
		if status, err := p.NewStatus(); err == nil && uint64(got.cred.effective) != status.UIDs[1] {
			t.Errorf("pid %d: got uid %d, want %d", p.PID, got.cred.effective, status.UIDs[1])
		}
	}
	if compared < 2 {
		t.Errorf("compared %d processes, want at least this one and its parent", compared)
	}
}

func TestParsePasswd(t *testing.T) {
	got := parsePasswd([]byte("root:x:0:0::/root:/bin/sh\ntoor:x:0:0:::\n#x:x:5:5\nbad:x:no:1\nshort:x\nbob:x:1000:1000::/:/bin/sh"))
	if diff := cmp.Diff(map[uint32]string{0: "root", 1000: "bob"}, got); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

func TestMakeCmdline(t *testing.T) {
	many := slices.Repeat([]string{"a"}, maxArgs+1)
	long := strings.Repeat("é", maxCmdlineRunes+1)
	for name, tt := range map[string]struct {
		in        string
		args      []string
		truncated bool
	}{
		"usual":           {"ls\x00-l\x00", []string{"ls", "-l"}, false},
		"empty inside":    {"sh\x00\x00-c\x00", []string{"sh", "", "-c"}, false},
		"a title":         {"nginx: worker\x00\x00\x00\x00", []string{"nginx: worker"}, false},
		"nothing":         {"", nil, false},
		"only NUL":        {"\x00\x00", nil, false},
		"invalid UTF-8":   {"a\xff\xfe\x00", []string{"a\xff\xfe"}, false},
		"just as many":    {strings.Join(many[1:], "\x00"), many[1:], false},
		"too many":        {strings.Join(many, "\x00"), many[1:], true},
		"too long":        {"x\x00" + long + "\x00y", []string{"x", strings.Repeat("é", maxCmdlineRunes-1)}, true},
		"a secret is cut": {"x\x00--password=" + strings.Repeat("s", 5000), []string{"x", "--password=[redacted]"}, false},
		"more than read":  {strings.Repeat("x", maxCmdlineRead+1), []string{strings.Repeat("x", maxCmdlineRunes)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := makeCmdline(redact.Redactor{}, []byte(tt.in))
			if diff := cmp.Diff(tt.args, got.args); diff != "" {
				t.Errorf("args differ (-want +got):\n%s", diff)
			}
			if got.truncated != tt.truncated || got.joined != strings.Join(tt.args, " ") {
				t.Errorf("got truncated %t, joined %.40q", got.truncated, got.joined)
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for name, tt := range map[string]struct {
		span span
		want []int32
	}{
		"still":            {span{10, 10, 100}, nil},
		"advance":          {span{10, 13, 100}, []int32{13, 12, 11}},
		"wrap":             {span{996, 302, 1000}, []int32{302, 301, 300, 999, 998, 997}},
		"wrap at the end":  {span{999, 300, 1000}, []int32{300}},
		"below the bottom": {span{998, 2, 1000}, []int32{2, 1, 999}},
		"pid_max lowered":  {span{5000, 301, 1000}, []int32{301, 300}},
	} {
		t.Run(name, func(t *testing.T) {
			got := slices.Collect(tt.span.newestFirst())
			if !slices.Equal(got, tt.want) || tt.span.len() != len(tt.want) {
				t.Errorf("got %v, length %d; want %v", got, tt.span.len(), tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, path := range []string{"stat", "status", "cmdline"} {
		b, err := os.ReadFile("/proc/self/" + path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, seed := range []string{
		"7 (a) R (b) S 1" + statTail, "Uid:\t1\t2\n", "Uid:", "0.1 0.2 0.3 1/93 11498\n", "root:x:0:0:\n", ")(", "a\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && (s.ppid < 0 || s.state == 0) {
			t.Errorf("parseStat(%q) = %+v", b, s)
		}
		if _, ok := parseCursor(b); ok && len(b) == 0 {
			t.Error("a cursor out of nothing")
		}
		parseStatus(b)
		for id, name := range parsePasswd(b) {
			if name == "" {
				t.Errorf("user %d without a name", id)
			}
		}
		appendPIDs(nil, b)
		c := makeCmdline(redact.Redactor{}, b)
		if len(c.args) > maxArgs || utf8.RuneCountInString(strings.Join(c.args, "")) > maxCmdlineRunes {
			t.Errorf("kept %d args, %d runes", len(c.args), utf8.RuneCountInString(c.joined))
		}
	})
}
