package eventtest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/apss-sensor/apss/shared/event"
)

// Many returns n events as one busy node emits them, in the order of their time: nine pods of several namespaces, of
// twenty events about thirteen execs, six connections and one change of a watched file. The same seed gives the same
// events.
func Many(n int, seed uint64) []*event.Event {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	src := rand.NewChaCha8(key)
	s := &node{Rand: rand.New(src), bytes: src, now: Time(), pid: 20_000} //nolint:gosec // must be the same for the same seed
	s.tail = 2<<62 | s.Uint64()>>2
	s.place()
	events := make([]*event.Event, n)
	for i := range events {
		events[i] = s.next()
	}
	return events
}

// node is the state from which events are drawn.
type node struct {
	*rand.Rand
	bytes *rand.ChaCha8
	now   time.Time
	pid   int32
	pods  []*pod

	current *pod // whose burst it is

	lastID, tail uint64 // see id
}

// pod is one placed replica.
type pod struct {
	app
	name      string
	container event.Container
	ip        string
	main      event.Ancestor
	shim      event.Ancestor
}

// app is what a pod runs. In commands, paths and peers these stand for something drawn anew: {n} a number, {h} eight
// hex digits, {w} a word, {d} a date.
type app struct {
	namespace, kind, workload, container, image string
	exe, cmdline                                string // of the main process
	uid                                         uint32
	user                                        string
	commands                                    []string // the first word is the executable
	peers                                       []string // address:port; an address with x ends in a drawn number
	files                                       []string
}

var words = strings.Fields("orders invoices users carts search stock prices reviews images mail export import audit daily weekly retry")

func apps() []app {
	return []app{
		{"shop", "Deployment", "storefront", "web", "europe-docker.pkg.dev/acme/shop/storefront:2.41.0", "/usr/sbin/nginx", "nginx: master process nginx -g daemon off;", 101, "nginx",
			[]string{"/usr/bin/curl -fsS -o /dev/null http://127.0.0.1:8080/healthz", "/bin/sh -c nginx -t -q && nginx -s reload"},
			[]string{"10.12.3.x:8080", "10.12.4.x:8080"}, []string{"/var/cache/nginx/{n}/{h}", "/var/log/nginx/access.log"}},
		{"shop", "Deployment", "checkout", "app", "europe-docker.pkg.dev/acme/shop/checkout:1.14.2", "/opt/java/openjdk/bin/java", "java -XX:MaxRAMPercentage=75 -jar /app/checkout.jar", 1000, "app",
			[]string{"/bin/sh -c jcmd 1 GC.heap_info | grep used", "/usr/bin/jcmd 1 Thread.print", "/bin/ps -o pid,rss,args"},
			[]string{"10.12.9.14:5432", "10.12.9.22:6379", "34.98.112.x:443"}, []string{"/tmp/hsperfdata_app/{n}", "/app/config/application.yaml"}},
		{"shop", "StatefulSet", "orders-db", "postgres", "docker.io/library/postgres:17.2", "/usr/lib/postgresql/17/bin/postgres", "postgres -c max_connections=300", 999, "postgres",
			[]string{"/usr/bin/pg_isready -U postgres -h 127.0.0.1 -p 5432", "/usr/lib/postgresql/17/bin/psql -U postgres -At -c select count(*) from {w}", "/usr/lib/postgresql/17/bin/pg_dump -Fc -t {w} -f /backup/{w}-{d}.dump shop"},
			[]string{"10.12.9.15:5432"}, []string{"/var/lib/postgresql/data/base/16384/{n}", "/var/lib/postgresql/data/pg_hba.conf"}},
		{"shop", "Deployment", "worker", "worker", "europe-docker.pkg.dev/acme/shop/worker:1.14.2", "/usr/local/bin/node", "node /app/queue.js", 1000, "node",
			[]string{"/usr/local/bin/node /app/jobs/{w}.js --job={h} --attempt=1", "/usr/bin/convert /tmp/{h}.png -resize 640x480 /tmp/{h}.webp", "/usr/bin/ffmpeg -v error -i /tmp/upload-{h}.mp4 -ss 1 -vframes 1 /tmp/{h}.jpg"},
			[]string{"10.12.9.22:6379", "10.12.9.14:5432", "142.250.74.x:443", "52.217.64.x:443"}, []string{"/tmp/upload-{h}.mp4", "/tmp/{h}.png"}},
		{"data", "CronJob", "report", "report", "europe-docker.pkg.dev/acme/data/report:0.9.7", "/usr/bin/python3.12", "python3 /srv/report.py --all", 65532, "nonroot",
			[]string{"/usr/bin/python3.12 /srv/steps/{w}.py --since {d} --out /out/{w}.parquet", "/bin/gzip -9 /out/{w}-{d}.csv", "/usr/bin/gsutil -q cp /out/{w}-{d}.csv.gz gs://acme-reports/{d}/"},
			[]string{"10.12.9.14:5432", "142.250.74.x:443"}, []string{"/out/{w}-{d}.csv", "/out/{w}.parquet"}},
		{"ci", "Job", "build-4711", "build", "docker.io/library/golang:1.26", "/bin/bash", "bash /workspace/build.sh", 0, "root",
			[]string{"/usr/local/go/pkg/tool/linux_amd64/compile -o /tmp/go-build{n}/b{n}/_pkg_.a -trimpath -p acme.dev/{w}", "/usr/bin/git fetch --depth 1 origin {h}", "/usr/bin/gcc -O2 -c -o {w}.o {w}.c", "/usr/bin/make -j4 {w}"},
			[]string{"140.82.121.x:443", "10.12.6.30:443"}, []string{"/tmp/go-build{n}/b{n}/_pkg_.a", "/workspace/{w}.o"}},
		{"monitoring", "DaemonSet", "node-exporter", "exporter", "quay.io/prometheus/node-exporter:v1.9.0", "/bin/node_exporter", "node_exporter --path.rootfs=/host", 65534, "nobody",
			[]string{"/bin/sh -c cat /host/proc/loadavg"}, []string{"10.12.2.x:9090"}, []string{"/tmp/textfile/{w}.prom"}},
		{"kube-system", "DaemonSet", "kube-proxy", "kube-proxy", "gke.gcr.io/kube-proxy-amd64:v1.33.4-gke.1000", "/usr/local/bin/kube-proxy", "kube-proxy --cluster-cidr=10.12.0.0/14", 0, "root",
			[]string{"/usr/sbin/iptables-restore -w 5 -W 100000 --noflush --counters", "/usr/sbin/iptables -w 5 -W 100000 -S KUBE-PROXY-CANARY -t mangle", "/usr/sbin/conntrack -D --orig-dst 10.16.0.{n} -p udp"},
			[]string{"10.16.0.1:443"}, []string{"/run/xtables.lock"}},
		{"default", "Deployment", "my-app", "app", "europe-docker.pkg.dev/acme/shop/my-app:1.14.2", "/usr/bin/python3.12", "python3 /app/server.py", 0, "root",
			[]string{"/bin/sh -c date +%s", "/usr/bin/id -u", "/usr/bin/openssl dgst -sha256 /app/{w}.bin"},
			[]string{"10.12.9.22:6379", "104.18.32.x:443"}, []string{"/etc/cron.d/{w}", "/app/{w}.bin"}},
	}
}

func (s *node) place() {
	for i, a := range apps() {
		p := &pod{
			app:       a,
			name:      a.workload + "-" + s.hex(5) + "-" + s.hex(3)[:5],
			container: event.Container{ID: s.hex(32), Name: a.container, Image: a.image},
			ip:        fmt.Sprintf("10.12.7.%d", 10+7*i),
		}
		if a.kind == "StatefulSet" {
			p.name = a.workload + "-0"
		}
		p.shim = event.Ancestor{PID: s.nextPID(), Exe: "/usr/bin/containerd-shim-runc-v2", Cmdline: "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id " + s.hex(32) + " -address /run/containerd/containerd.sock"}
		p.main = event.Ancestor{PID: s.nextPID(), Exe: a.exe, Cmdline: a.cmdline}
		s.pods = append(s.pods, p)
	}
}

// next draws one event. What happens on a node comes in bursts of one pod: a probe, a job, a step of a build.
func (s *node) next() *event.Event {
	pause := 2 * time.Millisecond
	if s.current == nil || s.IntN(6) == 0 {
		pause = 100 * time.Millisecond
		s.current = pick(s, s.pods)
	}
	s.now = s.now.Add(time.Duration(s.ExpFloat64() * float64(pause)))
	p := s.current
	e := &event.Event{
		ID: s.id(), AgentID: AgentID, Timestamp: s.now,
		Cluster: Cluster, NodeName: Node, PodName: p.name, PodNamespace: p.namespace, Workload: p.kind + "/" + p.workload,
		Container: new(p.container),
	}
	switch kind := s.IntN(20); {
	case kind < 13:
		s.exec(e, p)
	case kind < 19:
		s.connect(e, p)
	default:
		s.change(e, p)
	}
	return e
}

func (s *node) exec(e *event.Event, p *pod) {
	e.Type = event.ProcessExec
	cmdline := s.fill(pick(s, p.commands))
	args := strings.Fields(cmdline)
	if len(args) > 2 && args[1] == "-c" {
		args = []string{args[0], args[1], strings.Join(args[2:], " ")}
	}
	exe := args[0]
	args[0] = exe[strings.LastIndexByte(exe, '/')+1:]
	e.Process = s.process(p, s.nextPID(), exe, strings.Join(args, " "), args)
	e.Process.PPID = p.main.PID
	e.Process.Parent = new(p.main)
	e.Process.Ancestors = []event.Ancestor{p.shim}
	e.Process.StartTime = s.now.Add(-time.Duration(s.IntN(100)) * time.Millisecond).Truncate(10 * time.Millisecond) // the kernel's clock ticks
	switch {
	case s.IntN(20) == 0: // gone before it could be read
		*e.Process = event.Process{PID: e.Process.PID, Exe: exe, UID: event.UnknownID, LoginUID: event.UnknownID, SessionID: event.UnknownID, Capture: event.CaptureName}
	case s.IntN(100) == 0:
		e.Severity, e.Rules = event.Medium, []string{fmt.Sprintf("APSS-%03d", 1+s.IntN(80))}
	}
}

func (s *node) connect(e *event.Event, p *pod) {
	e.Type = event.NetworkConnect
	host, port, _ := strings.Cut(pick(s, p.peers), ":")
	if rest, drawn := strings.CutSuffix(host, "x"); drawn {
		host = fmt.Sprint(rest, 1+s.IntN(254))
	}
	dst, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		panic(err) // in the table of apps
	}
	e.Network = &event.Network{
		Protocol: "tcp", Direction: "outbound", SrcIP: p.ip, SrcPort: uint16(32768 + s.IntN(28232)), DstIP: host, DstPort: uint16(dst),
		State: "ESTABLISHED", IsExternal: !strings.HasPrefix(host, "10."),
	}
	if s.IntN(3) > 0 {
		e.Process = s.process(p, p.main.PID, p.main.Exe, p.main.Cmdline, strings.Fields(p.main.Cmdline))
		e.Process.PPID = p.shim.PID
		e.Process.Parent = new(p.shim)
		e.Process.StartTime = Time().Add(-26 * time.Hour).Truncate(10 * time.Millisecond)
	}
}

func (s *node) change(e *event.Event, p *pod) {
	operation := pick(s, []string{"create", "modify", "modify", "modify", "delete", "chmod"})
	e.Type = event.Type("file_" + operation)
	e.File = &event.File{Path: s.fill(pick(s, p.files)), Operation: operation}
	if operation == "delete" {
		e.File.UID, e.File.GID = event.UnknownID, event.UnknownID
		return
	}
	e.File.FileState = event.FileState{Mode: "0644", UID: p.uid, GID: p.uid, Size: int64(s.IntN(200_000)), SHA256: s.hex(32)}
	if operation == "modify" {
		before := e.File.FileState
		before.Size, before.SHA256 = int64(s.IntN(200_000)), s.hex(32)
		e.File.Previous = &before
	}
	e.Severity = event.Low
}

func (s *node) process(p *pod, pid int32, exe, cmdline string, args []string) *event.Process {
	return &event.Process{
		PID: pid, Exe: exe, Cmdline: cmdline, Args: args, Cwd: "/", UID: p.uid, User: p.user,
		LoginUID: event.UnknownID, SessionID: uint32(p.main.PID), Capture: event.CaptureFull,
	}
}

func (s *node) fill(template string) string {
	for {
		i := strings.IndexByte(template, '{')
		if i < 0 {
			return template
		}
		var drawn string
		switch template[i+1] {
		case 'n':
			drawn = fmt.Sprint(1 + s.IntN(250))
		case 'h':
			drawn = s.hex(4)
		case 'w':
			drawn = pick(s, words)
		case 'd':
			drawn = s.now.AddDate(0, 0, -s.IntN(30)).Format(time.DateOnly)
		}
		template = template[:i] + drawn + template[i+3:]
	}
}

// id draws as event.NewID does: the tail is the agent's for as long as it runs, a counter tells apart what falls into one
// millisecond.
func (s *node) id() string {
	at := max(s.lastID+1, uint64(s.now.UnixMilli())<<12)
	s.lastID = at
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:], at>>12<<16|0x7000|at&0xfff)
	binary.BigEndian.PutUint64(u[8:], s.tail)
	return u.String()
}

func (s *node) hex(n int) string {
	b := make([]byte, n)
	_, _ = s.bytes.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (s *node) nextPID() int32 {
	s.pid += 1 + s.Int32N(9)
	return s.pid
}

func pick[T any](s *node, from []T) T { return from[s.IntN(len(from))] }
