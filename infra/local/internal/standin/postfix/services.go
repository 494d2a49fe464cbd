package postfix

import (
	"bufio"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

// serve answers connections to a socket of the folder, which the daemons may use.
func (s *Server) serve(name string, answer func(net.Conn)) error {
	path := filepath.Join(s.dir, name)
	l, err := net.Listen("unix", path) //nolint:noctx // of the file system: it cannot block
	if err != nil {
		return err
	}
	s.services = append(s.services, l)
	s.wg.Go(func() { accept(l, &s.wg, answer) })
	return os.Chmod(path, 0o666) //nolint:gosec // for the daemons
}

func (s *Server) box(name string) *Box {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boxes[name]
}

// policy tells for each recipient whether it may have mail now: the protocol of www.postfix.org/SMTPD_POLICY_README.html.
// What a web server says with 429 is 450 here, and every other status 451 (RFC 5321 section 4.2.2).
func (s *Server) policy(c net.Conn) {
	asked := map[string]string{}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			asked[key] = value
			continue
		}
		name, _, _ := strings.Cut(asked["recipient"], "@")
		action := "550 5.1.1 there is no such box"
		if b := s.box(name); b != nil {
			switch f := b.Switches.Faults(); {
			case asked["sasl_username"] != name:
				action = "530 5.7.0 log in first"
			case f.Status == http.StatusTooManyRequests:
				action = "450 4.7.1 slower"
			case f.Status != 0:
				action = "451 4.3.0 try again later"
			default:
				action = "DUNNO"
			}
			if action != "DUNNO" {
				b.Switches.Count(standin.Refused)
			}
		}
		if _, err := fmt.Fprintf(c, "action=%s\n\n", action); err != nil {
			return
		}
		clear(asked)
	}
}

// login is the side of the server in Dovecot's protocol of authentication, as far as PLAIN needs it
// (doc.dovecot.org/2.3/developer_manual/design/auth_protocol).
func (s *Server) login(c net.Conn) {
	_, _ = fmt.Fprintf(c, "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t%d\nCUID\t1\nCOOKIE\t%032d\nDONE\n", os.Getpid(), 1)
	for lines := bufio.NewScanner(c); lines.Scan(); {
		fields := strings.Split(lines.Text(), "\t")
		if fields[0] != "AUTH" || len(fields) < 3 {
			continue
		}
		response, _ := strings.CutPrefix(fields[len(fields)-1], "resp=")
		plain, _ := base64.StdEncoding.DecodeString(response) // what is no base64 is nobody
		given := strings.Split(string(plain), "\x00")         // RFC 4616
		verdict, name := "FAIL", "nobody"
		if len(given) == 3 {
			name = given[1]
			if b := s.box(name); b != nil {
				if subtle.ConstantTimeCompare([]byte(given[2]), []byte(*b.password.Load())) == 1 {
					verdict = "OK"
				} else {
					b.Switches.Count(standin.Unauthorized)
				}
			}
		}
		if _, err := fmt.Fprintf(c, "%s\t%s\tuser=%s\n", verdict, fields[1], name); err != nil {
			return
		}
	}
}
