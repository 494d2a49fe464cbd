// Package standin stands where Sweet Security stands: its four endpoints, its Bearer check, and switches for everything
// that a receiver can do to those who send.
//
//	POST /api/v1/events/batch   {"events":[...]}
//	POST /api/v1/events         one event
//	POST /api/v1/alerts         one alert
//	GET  /health
//	GET, POST, DELETE /_faults  the switches; see [Faults]
//
// What was accepted goes to [Options.Events] and [Options.Alerts] and is kept nowhere here; Idempotency-Keys are
// remembered, the last 20,000 of them, so that a request sent again is accepted and counted once, when Options say so.
package standin

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/shared/event"
)

// maxBody bounds a request. An envelope's events are 10 MiB at most, and a batch holds those of several.
const maxBody = 64 << 20

// Options are what a stand-in is made of.
type Options struct {
	Key string // of the Bearer check
	// Events and Alerts get what was accepted, and when; nil drops it. They must not keep the slices.
	Events func(events []event.Raw, at time.Time)
	Alerts func(alert []byte, at time.Time)
	// Idempotent makes a request with a known Idempotency-Key count once.
	Idempotent bool
}

// Stats counts requests by what became of them, and what they held.
type Stats struct {
	Accepted     int64 // requests
	Refused      int64 // requests answered with a fault, or wrong in themselves
	Unauthorized int64
	Repeated     int64 // requests with a known Idempotency-Key
	Events       int64 // accepted
	Alerts       int64 // accepted
	Rejected     int64 // events named in the list of an accepted request
}

// Server is an [http.Handler]. Safe for concurrent use.
type Server struct {
	opts    Options
	keyHash [sha256.Size]byte
	mux     *http.ServeMux
	keys    recent

	accepted, refused, unauthorized, repeated, events, alerts, rejected atomic.Int64

	mu     sync.Mutex
	faults Faults
	until  time.Time // of faults; zero: until changed
}

// New returns a stand-in without faults.
func New(o Options) *Server {
	s := &Server{opts: o, keyHash: sha256.Sum256([]byte(o.Key)), mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /health", s.guarded(func(w http.ResponseWriter, _ *http.Request, _ Faults) {
		answer(w, http.StatusOK, `{"status":"ok"}`)
	}))
	s.mux.HandleFunc("POST /api/v1/events/batch", s.guarded(s.takeEvents(batch)))
	s.mux.HandleFunc("POST /api/v1/events", s.guarded(s.takeEvents(single)))
	s.mux.HandleFunc("POST /api/v1/alerts", s.guarded(s.takeAlert))
	s.mux.HandleFunc("GET /_faults", s.showFaults)
	s.mux.HandleFunc("POST /_faults", s.setFaults)
	s.mux.HandleFunc("DELETE /_faults", func(w http.ResponseWriter, r *http.Request) {
		s.Set(Faults{})
		s.showFaults(w, r)
	})
	return s
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Stats returns the counters of this moment.
func (s *Server) Stats() Stats {
	return Stats{
		Accepted: s.accepted.Load(), Refused: s.refused.Load(), Unauthorized: s.unauthorized.Load(),
		Repeated: s.repeated.Load(), Events: s.events.Load(), Alerts: s.alerts.Load(), Rejected: s.rejected.Load(),
	}
}

type guarded func(w http.ResponseWriter, r *http.Request, f Faults)

// guarded runs the faults that need no body and the Bearer check before next.
func (s *Server) guarded(next guarded) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f := s.Faults()
		if !f.before(w, r) {
			s.refused.Add(1)
			return
		}
		key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		hash := sha256.Sum256([]byte(key)) // of one length, whatever came
		if subtle.ConstantTimeCompare(hash[:], s.keyHash[:]) != 1 {
			s.unauthorized.Add(1)
			answer(w, http.StatusUnauthorized, `{"error":"unauthorized"}`)
			return
		}
		if f.Status != 0 {
			s.refused.Add(1)
			f.refuse(w, f.Status)
			return
		}
		next(w, r, f)
	}
}

// read reads the body; it has answered when ok is false.
func (s *Server) read(w http.ResponseWriter, r *http.Request, f Faults) (body []byte, ok bool) {
	limit := int64(maxBody)
	if f.MaxBytes > 0 {
		limit = min(limit, f.MaxBytes)
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, limit)) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		s.bad(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes", limit))
	case err != nil:
		s.bad(w, http.StatusBadRequest, "reading the body")
	default:
		return buf.Bytes(), true
	}
	return nil, false
}

func (s *Server) bad(w http.ResponseWriter, status int, reason string) {
	s.refused.Add(1)
	quoted, _ := jsontext.AppendQuote(nil, reason) // an error means invalid UTF-8, which is replaced
	answer(w, status, `{"error":`+string(quoted)+`}`)
}

// rejection names an event that an accepted request does not deliver.
type rejection struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

func (s *Server) takeEvents(split func([]byte) ([]event.Raw, error)) guarded {
	return func(w http.ResponseWriter, r *http.Request, f Faults) {
		body, ok := s.read(w, r, f)
		if !ok {
			return
		}
		events, err := split(body)
		if err != nil {
			s.bad(w, http.StatusBadRequest, err.Error())
			return
		}
		var rejected []rejection
		if f.Refuse != "" {
			accepted := events[:0]
			for _, e := range events {
				if !bytes.Contains(e, []byte(f.Refuse)) {
					accepted = append(accepted, e)
					continue
				}
				id, _ := e.ID()
				rejected = append(rejected, rejection{id, "refused by the fault switch: contains " + f.Refuse})
			}
			if len(rejected) > 0 && f.RefuseWith != 0 {
				s.bad(w, f.RefuseWith, rejected[0].Reason)
				return
			}
			events = accepted
		}
		if s.seen(r) {
			events = nil
		}
		if len(events) > 0 && s.opts.Events != nil {
			s.opts.Events(events, time.Now())
		}
		s.accepted.Add(1)
		s.events.Add(int64(len(events)))
		s.rejected.Add(int64(len(rejected)))
		s.accept(w, f, struct {
			Accepted int         `json:"accepted"`
			Rejected []rejection `json:"rejected,omitempty"`
		}{len(events), rejected})
	}
}

func (s *Server) takeAlert(w http.ResponseWriter, r *http.Request, f Faults) {
	body, ok := s.read(w, r, f)
	if !ok {
		return
	}
	if _, err := single(body); err != nil {
		s.bad(w, http.StatusBadRequest, err.Error())
		return
	}
	if f.Refuse != "" && bytes.Contains(body, []byte(f.Refuse)) {
		s.bad(w, cmp.Or(f.RefuseWith, http.StatusUnprocessableEntity), "refused by the fault switch: contains "+f.Refuse)
		return
	}
	if !s.seen(r) {
		s.alerts.Add(1)
		if s.opts.Alerts != nil {
			s.opts.Alerts(body, time.Now())
		}
	}
	s.accepted.Add(1)
	s.accept(w, f, struct {
		Accepted int `json:"accepted"`
	}{1})
}

func (s *Server) seen(r *http.Request) bool {
	key := r.Header.Get("Idempotency-Key")
	if !s.opts.Idempotent || key == "" || s.keys.add(key) {
		return false
	}
	s.repeated.Add(1)
	return true
}

func (s *Server) accept(w http.ResponseWriter, f Faults, result any) {
	if f.Garbage {
		answer(w, http.StatusOK, "\x00\xff<html>{\"rejected\":[{")
		return
	}
	body, err := json.Marshal(result)
	if err != nil {
		answer(w, http.StatusInternalServerError, "")
		return
	}
	answer(w, http.StatusOK, string(body))
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // who left does not read
}

var errNotBatch = errors.New(`the body is not {"events":[...]}`)

// batch splits a batch into its events without decoding them; what is not JSON is refused.
func batch(body []byte) ([]event.Raw, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(body)) // a Buffer is decoded in place
	if d.PeekKind() != '{' {
		return nil, errNotBatch
	}
	_, _ = d.ReadToken()
	var events []event.Raw
	found := false
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, fmt.Errorf("reading the batch: %w", err)
		}
		if name.String() != "events" {
			if err := d.SkipValue(); err != nil {
				return nil, fmt.Errorf("reading the batch: %w", err)
			}
			continue
		}
		if found = true; d.PeekKind() != '[' {
			return nil, errNotBatch
		}
		_, _ = d.ReadToken()
		for d.PeekKind() == '{' {
			start := d.InputOffset()
			if err := d.SkipValue(); err != nil {
				return nil, fmt.Errorf("reading the batch: %w", err)
			}
			events = append(events, bytes.TrimLeft(body[start:d.InputOffset()], ", \t\r\n"))
		}
		if d.PeekKind() != ']' {
			return nil, errNotBatch
		}
		_, _ = d.ReadToken()
	}
	if _, err := d.ReadToken(); err != nil || !found {
		return nil, errNotBatch
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errNotBatch
	}
	return events, nil
}

func single(body []byte) ([]event.Raw, error) {
	v := jsontext.Value(body)
	if !v.IsValid() || v.Kind() != '{' {
		return nil, errors.New("the body is not a JSON object")
	}
	return []event.Raw{body}, nil
}

// recent remembers the last 10,000 to 20,000 keys.
type recent struct {
	mu       sync.Mutex
	now, old map[string]struct{}
}

// add reports whether key is new.
func (r *recent) add(key string) bool {
	const generation = 10_000
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.now[key]; ok {
		return false
	}
	if _, ok := r.old[key]; ok {
		return false
	}
	if len(r.now) >= generation || r.now == nil {
		r.now, r.old = make(map[string]struct{}), r.now
	}
	r.now[key] = struct{}{}
	return true
}
