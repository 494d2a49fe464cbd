// Package webhook stands where somebody's own receiver of webhooks stands. It verifies each request as Standard Webhooks
// demands (github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md) and shows what came on its
// board, each webhook-id once however often it comes.
//
//	POST /...                   any path
//	GET, POST, DELETE /_faults  the switches; see [standin.Faults]
package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

// tolerance is how far a request's time may be from ours, as in the reference libraries.
const tolerance = 5 * time.Minute

// Server is an [http.Handler]. Safe for concurrent use.
type Server struct {
	standin.Switches
	Board standin.Board
	// Taken gets each accepted body, also of one that came before; nil: nobody does.
	Taken func(id string, body []byte, at time.Time)

	keys atomic.Pointer[[][]byte]
	mux  *http.ServeMux
	mu   sync.Mutex // one request after the other
}

// New returns a stand-in without faults that accepts signatures of any of secrets ("whsec_" and base64 of 24 to 64 bytes).
func New(secrets ...string) (*Server, error) {
	s := &Server{mux: http.NewServeMux()}
	if err := s.SetSecrets(secrets...); err != nil {
		return nil, err
	}
	s.mux.HandleFunc("POST /", s.Guard(standin.Endpoint{No: no, Take: s.take}))
	s.Mount(s.mux)
	return s, nil
}

// SetSecrets makes these the ones whose signatures are accepted.
func (s *Server) SetSecrets(secrets ...string) error {
	keys := make([][]byte, 0, len(secrets))
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) < 24 || len(key) > 64 {
			return errors.New("a webhook's secret is whsec_ and base64 of 24 to 64 bytes")
		}
		keys = append(keys, key)
	}
	s.keys.Store(&keys)
	return nil
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func no(w http.ResponseWriter, status int, reason string) { standin.Answer(w, status, "", reason+"\n") }

func (s *Server) take(w http.ResponseWriter, r *http.Request, body []byte, _ standin.Faults) standin.Verdict {
	if err := s.verify(r.Header, body, time.Now()); err != nil {
		no(w, http.StatusUnauthorized, err.Error())
		return standin.Verdict{Fate: standin.Unauthorized}
	}
	id := r.Header.Get("Webhook-Id")
	s.mu.Lock()
	defer s.mu.Unlock()
	again := func(m *standin.Message) { m.Edits++ }
	if !s.Board.Change(func(m *standin.Message) bool { return m.ID == id }, again) {
		s.Board.Post(standin.Message{ID: id, Title: r.Method + " " + r.URL.Path + " " + id + ", signature valid", Text: shown(body)})
	}
	if s.Taken != nil {
		s.Taken(id, body, time.Now())
	}
	return standin.Verdict{Fate: standin.Accepted, Status: http.StatusNoContent}
}

// verify returns nil when one of the signatures is of one of our keys.
func (s *Server) verify(h http.Header, body []byte, now time.Time) error {
	id, timestamp := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	if id == "" || timestamp == "" || h.Get("Webhook-Signature") == "" {
		return errors.New("webhook-id, webhook-timestamp or webhook-signature is missing")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("webhook-timestamp is no number of seconds")
	}
	if away := now.Sub(time.Unix(seconds, 0)).Abs(); away > tolerance {
		return fmt.Errorf("webhook-timestamp is %v away", away.Round(time.Second))
	}
	for signature := range strings.FieldsSeq(h.Get("Webhook-Signature")) {
		version, value, _ := strings.Cut(signature, ",")
		got, err := base64.StdEncoding.DecodeString(value)
		if version != "v1" || err != nil {
			continue
		}
		for _, key := range *s.keys.Load() {
			mac := hmac.New(sha256.New, key)
			mac.Write([]byte(id + "." + timestamp + "."))
			mac.Write(body)
			if hmac.Equal(got, mac.Sum(nil)) {
				return nil
			}
		}
	}
	return errors.New("no signature matches")
}

// shown is the body, JSON with an indent.
func shown(body []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, body, "", "  ") != nil {
		return string(body)
	}
	return out.String()
}
