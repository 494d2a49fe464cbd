// Package postfix runs the mail server of the distribution, for proofs: it is no stand-in but the real one, in a folder of
// its own, with doors in front of it that can do what networks do to a session ([Box]), and two services behind it that
// decide who may log in and who is told to come later.
//
// Postfix' master must run as root. It ends with [Server.Close]; whoever is killed before leaves it running.
package postfix

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Domain is that of all addresses.
const Domain = "apss.test"

// Server is Postfix, running.
type Server struct {
	dir      string
	cmd      *exec.Cmd
	ended    chan struct{}
	services []net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	boxes map[string]*Box
}

// Missing says why Postfix cannot run here; nil when it can.
func Missing() error {
	_, err := program()
	return err
}

func program() (path string, err error) {
	if path, err = exec.LookPath("postfix"); err != nil {
		path = "/usr/sbin/postfix"
	}
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("there is no Postfix here: apt-get install postfix (main_mailer_type: No configuration) brings it")
	}
	if os.Getuid() != 0 {
		return "", fmt.Errorf("the master of Postfix runs as root; we are uid %d", os.Getuid())
	}
	if _, err := user.Lookup("postfix"); err != nil {
		return "", fmt.Errorf("the daemons of Postfix: %w", err)
	}
	return path, nil
}

// Start runs Postfix in a new folder, with mailboxes of these names, and returns when it answers. It shows cert.
func Start(ctx context.Context, cert tls.Certificate, names ...string) (_ *Server, err error) {
	path, err := program()
	if err != nil {
		return nil, err
	}
	s := &Server{boxes: map[string]*Box{}, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "postfix"); err != nil { // short, as sockets' names must be, and open to the daemons
		return nil, err
	}
	if err := s.write(cert, names); err != nil {
		return nil, err
	}
	for name, answer := range map[string]func(net.Conn){"policy": s.policy, "login": s.login} {
		if err := s.serve(name, answer); err != nil {
			return nil, err
		}
	}
	out, err := os.Create(filepath.Join(s.dir, "out")) // a file, since daemons keep it open
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	s.cmd = exec.Command(path, "-c", filepath.Join(s.dir, "etc"), "start-fg") //nolint:gosec,noctx // it ends by its own command
	s.cmd.Stdout, s.cmd.Stderr = out, out
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return nil, fmt.Errorf("starting Postfix: %w", err)
	}
	go func() {
		_ = s.cmd.Wait() // by its own command, or killed
		close(s.ended)
	}()
	if err := s.await(ctx); err != nil {
		return nil, fmt.Errorf("starting Postfix: %w", err)
	}
	return s, nil
}

// ready is how long Postfix may take to start on a busy machine.
const ready = time.Minute

func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "unix", s.entrance())
		if err == nil {
			return c.Close()
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it ended: %s", s.Log())
		case <-ctx.Done():
			return fmt.Errorf("it does not come up: %w: %s", err, s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// entrance is the socket of the server that speaks TLS from the first byte on.
func (s *Server) entrance() string { return filepath.Join(s.dir, "spool/public/smtps") }

// Log returns the end of what Postfix wrote.
func (s *Server) Log() string {
	const most = 8_000
	out, _ := os.ReadFile(filepath.Join(s.dir, "out")) // what is not there was not written
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	all := append(append(out, '\n'), log...)
	return string(all[max(0, len(all)-most):])
}

// Close ends everything and removes the folder.
func (s *Server) Close() error {
	var errs []error
	if s.cmd != nil {
		// Its master leads a session of its own, with the daemons. This ends them all, and waits for it.
		stop := exec.Command(s.cmd.Path, "-c", filepath.Join(s.dir, "etc"), "stop") //nolint:gosec,noctx // likewise
		if said, err := stop.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("stopping Postfix: %w: %s", err, said), s.cmd.Process.Kill())
		}
		<-s.ended
	}
	for _, l := range s.services {
		_ = l.Close()
	}
	s.mu.Lock()
	for _, b := range s.boxes {
		b.close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// write makes the folder: settings, keys, and what the daemons want to be there.
func (s *Server) write(cert tls.Certificate, names []string) error {
	owner, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(owner.Uid)
	gid, err2 := strconv.Atoi(owner.Gid)
	key, err3 := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err := errors.Join(err1, err2, err3, os.Chmod(s.dir, 0o755)); err != nil { //nolint:gosec // for the daemons
		return err
	}
	var pair, users bytes.Buffer
	_ = pem.Encode(&pair, &pem.Block{Type: "PRIVATE KEY", Bytes: key}) // into memory: it cannot fail
	_ = pem.Encode(&pair, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	for _, name := range names {
		fmt.Fprintf(&users, "%[1]s@%[2]s %[1]s/\n", name, Domain)
	}
	for _, d := range []string{"etc", "spool", "data", "boxes"} {
		if err := os.Mkdir(filepath.Join(s.dir, d), 0o755); err != nil { //nolint:gosec // likewise
			return err
		}
	}
	for _, d := range []string{"data", "boxes"} {
		if err := os.Chown(filepath.Join(s.dir, d), uid, gid); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"pair.pem": pair.String(), "users": users.String(), "master.cf": services, "main.cf": fmt.Sprintf(settings, s.dir, uid, gid, Domain),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, "etc", name), []byte(text), 0o644); err != nil { //nolint:gosec // likewise
			return err
		}
	}
	return nil
}

// Each setting is in www.postfix.org/postconf.5.html.
const settings = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
myhostname = mx.%[4]s
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = %[4]s
virtual_mailbox_base = %[1]s/boxes
virtual_mailbox_maps = texthash:%[1]s/etc/users
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[3]d
smtpd_tls_chain_files = %[1]s/etc/pair.pem
smtpd_tls_wrappermode = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[1]s/login
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_policy_service unix:%[1]s/policy
`

const services = `smtps unix n - n - - smtpd
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
`
