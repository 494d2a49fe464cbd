package publish_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/publish/publishtest"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

const podToken = "header.payload.signature"

// relay is a server of the relay's contract; answer decides, and nil accepts.
type relay struct {
	*httptest.Server
	t           *testing.T
	token       string // the file with it
	answer      func(w http.ResponseWriter, r *http.Request) bool
	connections atomic.Int64

	mu  sync.Mutex
	got []event.Raw
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	s := &relay{t: t, token: filepath.Join(t.TempDir(), "token")}
	s.write(podToken + "\n")
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *relay) write(token string) {
	if err := os.WriteFile(s.token, []byte(token), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *relay) config() publish.RelayConfig {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return publish.RelayConfig{Endpoint: s.URL, TokenFile: s.token, CA: string(ca), UserAgent: "test"}
}

func (s *relay) publisher() *publish.Relay {
	p, err := publish.NewRelay(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { check(s.t, p.Close()) })
	return p
}

func (s *relay) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/v1/events" || r.Method != http.MethodPost {
		s.t.Errorf("got %s %s, %v", r.Method, r.URL, err)
	}
	if s.answer != nil && s.answer(w, r) {
		return
	}
	m := envelope.Message{Data: body, Attributes: map[string]string{
		"ce-type": r.Header.Get("ce-type"), "content-encoding": r.Header.Get("content-encoding"),
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Attributes["ce-type"] == envelope.TypeAlert {
		s.got = append(s.got, body)
	} else if s.got, err = m.Events(s.got); err != nil {
		s.t.Error(err)
	}
	w.Header().Set(publish.VerdictHeader, publish.VerdictAccepted)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestRelayConformance(t *testing.T) {
	publishtest.Run(t, func(t *testing.T) publishtest.Harness {
		t.Helper()
		s := newRelay(t)
		return publishtest.Harness{Publisher: s.publisher(), Received: func() []event.Raw {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.got
		}}
	})
}

func TestRelayVerdicts(t *testing.T) {
	for _, c := range []struct {
		status  int
		verdict string
		after   string
		class   outcome.Class
		wait    time.Duration
		want    string
	}{
		{200, "accepted", "", outcome.OK, 0, ""},
		{200, "", "", outcome.Retry, 0, "CONTROLLER_ENDPOINT"},
		{302, "", "", outcome.Retry, 0, "CONTROLLER_ENDPOINT"},
		{404, "", "", outcome.Retry, 0, "CONTROLLER_ENDPOINT"},
		{400, "refused", "", outcome.Permanent, 0, "because"},
		{400, "", "", outcome.Retry, 0, "because"},
		{413, "refused", "", outcome.Permanent, 0, "because"},
		{422, "refused", "", outcome.Permanent, 0, "because"},
		{503, "refused", "", outcome.Retry, 0, "because"},
		{401, "", "", outcome.Auth, 0, "because"},
		{429, "", "7", outcome.Retry, 7 * time.Second, "because"},
		{503, "", "2", outcome.Retry, 2 * time.Second, "because"},
		{503, "", "86400", outcome.Retry, time.Minute, "because"},
	} {
		t.Run(fmt.Sprint(c.status, c.verdict, c.after), func(t *testing.T) {
			s := newRelay(t)
			s.answer = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Retry-After", c.after)
				if c.verdict != "" {
					w.Header().Set(publish.VerdictHeader, c.verdict)
				}
				w.WriteHeader(c.status)
				fmt.Fprintf(w, "because %s", r.Header.Get("Authorization"))
				return true
			}
			err := s.publisher().Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
			o := outcome.From(err)
			if c.class == outcome.OK {
				check(t, err)
				return
			}
			if o == nil || o.Class != c.class || o.After != c.wait || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v after %v, want %v after %v with %q", err, o.After, c.class, c.wait, c.want)
			}
			if strings.Contains(fmt.Sprintf("%+v", err), podToken) {
				t.Errorf("the token stands in %q", err)
			}
		})
	}
}

func TestRelayTokenIsReadAgainWhenItIsRefused(t *testing.T) {
	s := newRelay(t)
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer new" {
			return false
		}
		s.write("new")
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	p := s.publisher()
	for range 2 {
		check(t, p.Publish(t.Context(), publishtest.Envelope(publishtest.Event("x"))))
	}
	s.write("")
	s.answer = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusUnauthorized); return true }
	err := p.Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
	if o := outcome.From(err); o == nil || o.Class != outcome.Auth {
		t.Errorf("got %v, want an outcome about the credentials", err)
	}
}

func TestRelayWithoutAToken(t *testing.T) {
	s := newRelay(t)
	check(t, os.Remove(s.token))
	err := s.publisher().Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
	if o := outcome.From(err); o == nil || o.Class != outcome.Auth || !strings.Contains(err.Error(), "RELAY_TOKEN_FILE") {
		t.Errorf("got %v, want an outcome that names RELAY_TOKEN_FILE", err)
	}
}

// TestRelayOfAnotherAuthority must not get the token, nor the message.
func TestRelayOfAnotherAuthority(t *testing.T) {
	s := newRelay(t)
	c := s.config()
	c.CA = ""
	p, err := publish.NewRelay(c)
	if err != nil {
		t.Fatal(err)
	}
	err = p.Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
	if o := outcome.From(err); o == nil || o.Class != outcome.Retry || !strings.Contains(err.Error(), "authority") {
		t.Errorf("got %v, want it to be about the authority", err)
	}
	if len(s.got) > 0 {
		t.Errorf("the stranger got %q", s.got)
	}
}

// TestRelayIsLookedUpAgain after it could not help: another one may.
func TestRelayIsLookedUpAgain(t *testing.T) {
	s := newRelay(t)
	p := s.publisher()
	for _, status := range []int{200, 429, 503, 200} {
		s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
			if status != 200 {
				w.WriteHeader(status)
			}
			return status != 200
		}
		_ = p.Publish(t.Context(), publishtest.Envelope(publishtest.Event("x")))
	}
	if n := s.connections.Load(); n != 2 {
		t.Errorf("got %d connections, want one until the 503, and another", n)
	}
}

func TestRelayAddress(t *testing.T) {
	for _, address := range []string{"", "relay:8444", "http://relay:8444", "https://", "https://user@relay", "https://relay/v2", "https://relay?x"} {
		if _, err := publish.NewRelay(publish.RelayConfig{Endpoint: address}); err == nil {
			t.Errorf("%q: got no error", address)
		}
	}
	if _, err := publish.NewRelay(publish.RelayConfig{Endpoint: "https://relay:8444/", CA: "none"}); err == nil {
		t.Error("a CA without a certificate: got no error")
	}
}

func TestRelayThatHangs(t *testing.T) {
	s := newRelay(t)
	reached := make(chan struct{})
	s.answer = func(_ http.ResponseWriter, r *http.Request) bool { close(reached); <-r.Context().Done(); return true }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.publisher().Publish(ctx, publishtest.Envelope(publishtest.Event("x"))) }()
	<-reached
	cancel()
	if err := <-done; outcome.From(err).Class != outcome.Retry {
		t.Errorf("got %v, want it to be worth another try", err)
	}
}
