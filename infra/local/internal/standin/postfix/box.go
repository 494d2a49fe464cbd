package postfix

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

// Box is a mailbox with a door of its own to the server, at which the faults happen. Of those, Status is the server's own
// answer; Refuse and MaxBytes have no meaning. Safe for concurrent use.
type Box struct {
	Switches standin.Switches
	// Board has the first message of each thread, with the text of the last one in it.
	Board standin.Board
	Addr  string // of the door; it leads to implicit TLS
	// Expired is shown instead of the server's certificate while it is set.
	Expired atomic.Pointer[tls.Certificate]

	name     string
	password atomic.Pointer[string]
	server   *Server
	door     net.Listener
	stop     context.CancelFunc
	known    map[string]bool // files that were read
}

// Box opens the mailbox of a name that Start was given.
func (s *Server) Box(name, password string) (*Box, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback: it cannot block
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Box{Addr: l.Addr().String(), name: name, server: s, door: l, stop: stop, known: map[string]bool{}}
	b.SetPassword(password)
	s.mu.Lock()
	s.boxes[name] = b
	s.mu.Unlock()
	s.wg.Go(func() { accept(l, &s.wg, b.enter) })
	s.wg.Go(func() { b.watch(ctx) })
	return b, nil
}

// Address is where mail for the box is sent to.
func (b *Box) Address() string { return b.name + "@" + Domain }

// SetPassword makes password the only one that is taken.
func (b *Box) SetPassword(password string) { b.password.Store(&password) }

func (b *Box) close() {
	_ = b.door.Close()
	b.stop()
}

// accept answers each connection in a goroutine of its own until the listener is closed, and closes it.
func accept(l net.Listener, wg *sync.WaitGroup, answer func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer func() { _ = c.Close() }()
			answer(c)
		})
	}
}

// amid is how much a client has sent when it is in the midst of a message: more than the handshake and the commands before
// it take, and less than any message of ours.
const amid = 6_000

// handshake bounds one with a client that stays, whatever certificate it is shown.
const handshake = 10 * time.Second

// enter leads a connection to the server, or does what is switched.
func (b *Box) enter(c net.Conn) {
	f := b.Switches.Faults()
	if f.Latency > 0 {
		<-time.After(time.Duration(f.Latency))
	}
	switch expired := b.Expired.Load(); {
	case f.Hang:
		if f.For > 0 {
			_ = c.SetReadDeadline(time.Now().Add(time.Duration(f.For)))
		}
		_, _ = io.Copy(io.Discard, c) // until they leave, or it is over
	case f.Garbage:
		_, _ = io.WriteString(c, "\x00\xff<html>\r\n")
		_ = c.SetReadDeadline(time.Now().Add(time.Second)) // else a reset would take the text back
		_, _ = io.Copy(io.Discard, c)
	case expired != nil:
		_ = c.SetDeadline(time.Now().Add(handshake))
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*expired}, MinVersion: tls.VersionTLS12}).HandshakeContext(context.Background()) // they leave
	default:
		b.lead(c, f)
		return
	}
	b.Switches.Count(standin.Refused)
}

// lead carries bytes between c and the server, and cuts the connection where that is asked for.
func (b *Box) lead(c net.Conn, f standin.Faults) {
	out, err := net.Dial("unix", b.server.entrance()) //nolint:noctx // of the file system: it cannot block
	if err != nil {
		return
	}
	var sent atomic.Int64
	var wg sync.WaitGroup
	pass := func(to, from net.Conn, may func(n int) bool) {
		defer func() { _, _ = c.Close(), out.Close() }()
		for buf := make([]byte, 4096); ; {
			n, err := from.Read(buf)
			if n > 0 && !may(n) {
				b.Switches.Count(standin.Refused)
				return
			}
			if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
				return
			}
		}
	}
	wg.Go(func() { pass(out, c, func(n int) bool { return sent.Add(int64(n)) < amid || !f.Cut }) })
	wg.Go(func() { pass(c, out, func(int) bool { return sent.Load() < amid || !f.Tear }) })
	wg.Wait()
}

// watch shows on the board what comes into the box.
func (b *Box) watch(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		files, _ := filepath.Glob(filepath.Join(b.server.dir, "boxes", b.name, "new", "*")) // the pattern is ours
		slices.Sort(files)                                                                  // their names begin with the time
		for _, file := range files {
			if b.known[file] {
				continue
			}
			b.known[file] = true
			m, thread, err := read(file)
			if err != nil {
				m.Title, m.Text = "a message that cannot be read", err.Error()
			}
			b.Switches.Count(standin.Accepted)
			if thread == "" || !b.Board.Change(func(first *standin.Message) bool { return first.Key == thread }, func(first *standin.Message) {
				first.Title, first.Text = m.Title, m.Text
				first.Thread = append(first.Thread, m.Text)
			}) {
				b.Board.Post(m)
			}
		}
	}
}

// read reads a message, and the id of that which it answers.
func read(file string) (m standin.Message, answers string, err error) {
	m.ID = filepath.Base(file)
	f, err := os.Open(file)
	if err != nil {
		return m, "", err
	}
	defer func() { _ = f.Close() }()
	letter, err := mail.ReadMessage(f)
	if err != nil {
		return m, "", err
	}
	m.Key = letter.Header.Get("Message-Id")
	subject, err := new(mime.WordDecoder).DecodeHeader(letter.Header.Get("Subject"))
	if err != nil {
		return m, "", err
	}
	m.Title = strings.TrimPrefix(subject, "[APSS] ")
	_, params, err := mime.ParseMediaType(letter.Header.Get("Content-Type"))
	if err != nil {
		return m, "", err
	}
	part, err := multipart.NewReader(letter.Body, params["boundary"]).NextRawPart()
	if err != nil {
		return m, "", fmt.Errorf("the first part: %w", err)
	}
	var body io.Reader = part
	if part.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(part)
	}
	text, err := io.ReadAll(body)
	m.Text = string(text)
	return m, letter.Header.Get("In-Reply-To"), err
}
