package email

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/outcome"
)

// postfix is a mail server of the distribution, in a folder of its own, listening there.
type postfix struct {
	starttls, implicit uint16
	roots              *x509.CertPool
	boxes              string // a Maildir for each user
}

// ready is how long Postfix may take to start, or to put a message away, on a busy machine.
const ready = 60 * time.Second

// startPostfix skips the test, and says what would run it, where there is no Postfix or we may not start it.
func startPostfix(t *testing.T) *postfix {
	t.Helper()
	program, err := exec.LookPath("postfix")
	if err != nil {
		program = "/usr/sbin/postfix"
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("SKIPPED: there is no Postfix here: apt-get install postfix (main_mailer_type: No configuration) lets this test run")
	}
	owner, err := user.Lookup("postfix")
	if os.Getuid() != 0 || err != nil {
		t.Skipf("SKIPPED: Postfix's master runs as root and its daemons as postfix; we are uid %d (%v)", os.Getuid(), err)
	}
	dir, err := os.MkdirTemp("", "postfix") //nolint:usetesting // t.TempDir is below a folder that is closed to the daemons
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postfix{boxes: filepath.Join(dir, "boxes")}
	cert, roots := certificate(t)
	p.roots = roots
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, blocks := range map[string][]*pem.Block{
		"cert.pem": {{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}}, "key.pem": {{Type: "PRIVATE KEY", Bytes: key}},
	} {
		var b bytes.Buffer
		for _, block := range blocks {
			_ = pem.Encode(&b, block)
		}
		write(t, filepath.Join(dir, "etc", name), b.String())
	}
	for _, name := range []string{"spool", "data", "boxes"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var uid, gid int
	_, _ = fmt.Sscan(owner.Uid+" "+owner.Gid, &uid, &gid)
	for _, d := range []string{"data", "boxes"} {
		if err := os.Chown(filepath.Join(dir, d), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "etc", "users"), "oncall@apss.test oncall/\nlead@apss.test lead/\n")
	write(t, filepath.Join(dir, "etc", "main.cf"), fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
myhostname = mx.apss.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = apss.test
virtual_mailbox_base = %[1]s/boxes
virtual_mailbox_maps = texthash:%[1]s/etc/users
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[3]d
smtpd_tls_cert_file = %[1]s/etc/cert.pem
smtpd_tls_key_file = %[1]s/etc/key.pem
smtpd_tls_security_level = may
smtpd_relay_restrictions = reject_unauth_destination
`, dir, uid, gid))
	p.run(t, program, dir)
	p.starttls, p.implicit = entrance(t, filepath.Join(dir, "spool/public/starttls")), entrance(t, filepath.Join(dir, "spool/public/implicit"))
	return p
}

// entrance is a port that leads to a socket of the file system. Postfix would take a port that was free a moment ago;
// this one stays ours.
func entrance(t *testing.T, socket string) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", socket)
			if err != nil {
				in.Close()
				continue
			}
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				in.Close()
				out.Close()
			}
			wg.Go(func() { pass(in, out) })
			wg.Go(func() { pass(out, in) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// run starts Postfix for the rest of the test.
func (p *postfix) run(t *testing.T, program, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "etc", "master.cf"), `starttls unix n - n - - smtpd
implicit unix n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`)
	out, err := os.Create(filepath.Join(dir, "out")) // a file, since daemons keep it open
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, "-c", filepath.Join(dir, "etc"), "start-fg")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() []byte {
		out, _ := os.ReadFile(filepath.Join(dir, "out"))
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return append(append(out, '\n'), log...)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		// Its master leads a session of its own, with the daemons. This ends them all, and waits for it.
		if said, err := exec.Command(program, "-c", filepath.Join(dir, "etc"), "stop").CombinedOutput(); err != nil {
			t.Logf("stopping Postfix: %v: %s", err, said)
			_ = cmd.Process.Kill()
		}
		<-ended
		if t.Failed() {
			t.Logf("Postfix said:\n%s", said())
		}
	})
	if !wait(func() bool {
		select {
		case <-ended:
			t.Fatal("Postfix does not start")
		default:
		}
		c, err := net.Dial("unix", filepath.Join(dir, "spool/public/implicit"))
		if err != nil {
			return false
		}
		c.Close()
		return true
	}) {
		t.Fatal("Postfix does not come up")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wait looks until done, for as long as a busy machine may take.
func wait(done func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(ready); time.Now().Before(end); <-tick.C {
		if done() {
			return true
		}
	}
	return false
}

// mails waits for n messages of a user and returns them.
func (p *postfix) mails(t *testing.T, user string, n int) []string {
	t.Helper()
	var files []string
	if !wait(func() bool {
		files, _ = filepath.Glob(filepath.Join(p.boxes, user, "new", "*"))
		return len(files) >= n
	}) || len(files) != n {
		t.Fatalf("%s has %d messages, want %d", user, len(files), n)
	}
	mails := make([]string, 0, n)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		mails = append(mails, string(b))
	}
	return mails
}

// TestPostfix: a real server takes our messages and delivers them as they were written, and its refusals are understood.
func TestPostfix(t *testing.T) {
	p := startPostfix(t)
	quiet := slog.New(slog.DiscardHandler)
	to := func(addresses ...string) func(*Settings) {
		return func(s *Settings) { s.To, s.Timeout = addresses, 30*time.Second }
	}
	mailer := func(change func(*Settings)) *mailer { return newMailer(t, p.starttls, p.roots, quiet, change) }

	t.Run("check", func(t *testing.T) {
		if _, err := mailer(to("oncall@apss.test")).Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("thread", func(t *testing.T) {
		m := mailer(to("Oncall <oncall@apss.test>"))
		i := opened()
		for _, c := range []integration.Change{integration.Opened, integration.Repeated, integration.Resolved} {
			i.Change = c
			ref, err := m.SendIncident(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			i.Ref = ref
		}
		roots, replies := 0, 0
		for _, text := range p.mails(t, "oncall", 3) {
			// Maildir has line ends of Unix.
			mail, err := parseDelivered(text)
			if err != nil {
				t.Error(err)
			}
			switch {
			case mail.header.Get("Message-Id") == "<"+i.Ref+">":
				roots++
				want, _ := m.incident(opened(), i.Ref)
				sent, _ := parse(want)
				if unix(mail.text) != unix(sent.text) || unix(mail.html) != unix(sent.html) {
					t.Error("what was delivered is not what was written")
				}
			case mail.header.Get("In-Reply-To") == "<"+i.Ref+">":
				replies++
			}
		}
		if roots != 1 || replies != 2 {
			t.Errorf("got %d first messages and %d replies, want 1 and 2", roots, replies)
		}
	})
	t.Run("implicit TLS and hostile strings", func(t *testing.T) {
		m := newMailer(t, p.implicit, p.roots, quiet, func(s *Settings) { to("lead@apss.test")(s); s.TLS = implicit })
		for name, a := range integrationtest.Alerts() {
			if _, err := m.SendIncident(t.Context(), integrationtest.Incident(integration.Opened, "", a)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, text := range p.mails(t, "lead", len(integrationtest.Alerts())) {
			if _, err := parseDelivered(text); err != nil {
				t.Error(err)
			}
		}
	})
	for name, c := range map[string]struct {
		change func(*Settings)
		want   outcome.Class
		status int
	}{
		"one unknown":  {to("oncall@apss.test", "nobody@apss.test"), outcome.Partial, 0},
		"all unknown":  {to("nobody@apss.test"), outcome.Permanent, 550},
		"relay denied": {to("somebody@elsewhere.test"), outcome.Permanent, 554},
		"no login":     {func(s *Settings) { to("oncall@apss.test")(s); withLogin(s) }, outcome.Auth, 0},
	} {
		t.Run(name, func(t *testing.T) {
			i := opened()
			i.FirstSeen = eventtest.Time().Add(time.Hour)
			_, err := mailer(c.change).SendIncident(t.Context(), i)
			if e := outcome.From(err); e == nil || e.Class != c.want || e.Status != c.status {
				t.Errorf("got %v, want %v with status %d", err, c.want, c.status)
			}
		})
	}
	p.mails(t, "oncall", 4) // the three of the thread, and the one with an unknown recipient beside
}

func unix(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// parseDelivered is parse for a message with the headers that a server puts before it.
func parseDelivered(text string) (parsed, error) {
	for _, h := range []string{"Return-Path:", "X-Original-To:", "Delivered-To:", "Received:"} {
		if !strings.HasPrefix(text, h) {
			return parsed{}, fmt.Errorf("got %.100q, want the header %s", text, h)
		}
		_, text, _ = strings.Cut(text, "\n")
		for strings.HasPrefix(text, " ") || strings.HasPrefix(text, "\t") {
			_, text, _ = strings.Cut(text, "\n")
		}
	}
	return parse([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
}
