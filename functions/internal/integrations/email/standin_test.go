package email

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// standIn is a small SMTP server that does what it is told: it follows RFC 5321 but for the steps in say.
type standIn struct {
	// say is by step ("greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT <a@b>", "RCPT", "DATA", "message", "NOOP") what it
	// says instead. "" hangs; "cut" closes the connection.
	say      map[string]string
	implicit bool
	plain    bool   // it offers no STARTTLS
	auth     string // mechanisms that it offers
	password string
	cert     tls.Certificate

	mu    sync.Mutex
	steps []string
	mails []string // accepted
	done  chan struct{}
}

// certificate is one of httptest's, for 127.0.0.1 and example.com, with those who trust it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.TLS.Certificates[0], pool
}

// start returns the port.
func (s *standIn) start(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.done = make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() { close(s.done); l.Close(); wg.Wait() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func (s *standIn) serve(c net.Conn) {
	defer c.Close()
	if s.implicit {
		c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{s.cert}})
	}
	in := bufio.NewReader(c)
	secured := s.implicit
	// reply says what belongs to the first of steps that has something, else ordinary; false ends the session.
	reply := func(ordinary string, steps ...string) bool {
		s.mu.Lock()
		s.steps = append(s.steps, steps[0])
		s.mu.Unlock()
		for _, step := range steps {
			switch text, ok := s.say[step]; {
			case ok && text == "":
				<-s.done
				return false
			case ok && text == "cut":
				return false
			case ok:
				ordinary = text
			}
			if ordinary != "" && s.say[step] == ordinary {
				break
			}
		}
		_, err := io.WriteString(c, ordinary+"\r\n")
		return err == nil
	}
	line := func() (string, bool) {
		text, err := in.ReadString('\n')
		return strings.TrimRight(text, "\r\n"), err == nil
	}
	if !reply("220 stand-in", "greeting") {
		return
	}
	for {
		command, ok := line()
		if !ok {
			return
		}
		verb, rest, _ := strings.Cut(command, " ")
		switch verb {
		case "EHLO":
			lines := []string{"250-stand-in", "250-8BITMIME", "250-SMTPUTF8"}
			if !s.plain && !secured {
				lines = append(lines, "250-STARTTLS")
			}
			if s.auth != "" && secured {
				lines = append(lines, "250-AUTH "+s.auth)
			}
			ok = reply(strings.Join(append(lines, "250 HELP"), "\r\n"), "EHLO")
		case "STARTTLS":
			if ok = reply("220 go", "STARTTLS"); ok && s.say["STARTTLS"] == "" {
				c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{s.cert}})
				in, secured = bufio.NewReader(c), true
			}
		case "AUTH":
			ok = s.login(rest, reply, line)
		case "MAIL":
			ok = reply("250 ok", "MAIL")
		case "RCPT":
			address := strings.Fields(strings.TrimPrefix(rest, "TO:"))[0]
			ok = reply("250 ok", "RCPT "+address, "RCPT")
		case "DATA":
			if ok = reply("354 go", "DATA"); !ok || s.say["DATA"] != "" {
				break
			}
			var mail bytes.Buffer
			for {
				text, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if text == ".\r\n" {
					break
				}
				mail.WriteString(strings.TrimPrefix(text, "."))
			}
			if ok = reply("250 kept", "message"); ok && s.say["message"] == "" {
				s.mu.Lock()
				s.mails = append(s.mails, mail.String())
				s.mu.Unlock()
			}
		case "QUIT":
			reply("221 bye", "QUIT")
			return
		case "NOOP", "RSET":
			ok = reply("250 ok", verb)
		default:
			ok = reply("500 what?", verb)
		}
		if !ok {
			return
		}
	}
}

// login takes PLAIN and LOGIN.
func (s *standIn) login(rest string, reply func(string, ...string) bool, line func() (string, bool)) bool {
	way, response, _ := strings.Cut(rest, " ")
	given := ""
	switch way {
	case "PLAIN":
		plain, _ := base64.StdEncoding.DecodeString(response)
		given = string(plain)
	case "LOGIN":
		for _, ask := range []string{"Username:", "Password:"} {
			if !reply("334 "+base64.StdEncoding.EncodeToString([]byte(ask)), "AUTH LOGIN") {
				return false
			}
			answer, ok := line()
			if !ok {
				return false
			}
			text, _ := base64.StdEncoding.DecodeString(answer)
			given += "\x00" + string(text)
		}
	}
	if given == "\x00apss\x00"+s.password {
		return reply("235 welcome", "AUTH "+way, "AUTH")
	}
	return reply(fmt.Sprintf("535 5.7.8 not with %s %q", response, given), "AUTH "+way, "AUTH")
}

func (s *standIn) seen() (steps, mails []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.steps...), append([]string(nil), s.mails...)
}
