// Package sweetsecurity stands where Sweet Security stands: its four endpoints and its Bearer check.
//
//	POST /api/v1/events/batch   {"events":[...]}
//	POST /api/v1/events         one event
//	POST /api/v1/alerts         one alert
//	GET  /health
//	GET, POST, DELETE /_faults  the switches; see [standin.Faults]
//
// What was accepted goes to [Options.Events] and [Options.Alerts] and is kept nowhere here; Idempotency-Keys are
// remembered, the last 20,000 of them, so that a request sent again is accepted and counted once, when Options say so.
package sweetsecurity

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

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/shared/event"
)

// Options are what a stand-in is made of.
type Options struct {
	Key string // of the Bearer check
	// Events and Alerts get what was accepted, and when; nil drops it. They must not keep the slices.
	Events func(events []event.Raw, at time.Time)
	Alerts func(alert event.Raw, at time.Time)
	// Idempotent makes a request with a known Idempotency-Key count once.
	Idempotent bool
}

// Stats counts requests by what became of them, and what they held.
type Stats struct {
	standin.Counts
	Repeated int64 // requests with a known Idempotency-Key
	Events   int64 // accepted
	Alerts   int64 // accepted
	Rejected int64 // events named in the list of an accepted request
}

// Server is an [http.Handler]. Safe for concurrent use.
type Server struct {
	standin.Switches
	opts    Options
	keyHash atomic.Pointer[[sha256.Size]byte]
	mux     *http.ServeMux
	keys    recent

	repeated, events, alerts, rejected atomic.Int64
}

// New returns a stand-in without faults.
func New(o Options) *Server {
	s := &Server{opts: o, mux: http.NewServeMux()}
	s.SetKey(o.Key)
	for path, take := range map[string]taker{
		"GET /health": func(http.ResponseWriter, *http.Request, []byte, standin.Faults) standin.Verdict {
			return accept(map[string]string{"status": "ok"})
		},
		"POST /api/v1/events/batch": s.takeEvents(batch),
		"POST /api/v1/events":       s.takeEvents(single),
		"POST /api/v1/alerts":       s.takeAlert,
	} {
		s.mux.HandleFunc(path, s.Guard(standin.Endpoint{Known: s.known, No: no, RefusesItself: true, Take: take}))
	}
	s.Mount(s.mux)
	return s
}

// SetKey makes key the only one that is taken.
func (s *Server) SetKey(key string) {
	hash := sha256.Sum256([]byte(key))
	s.keyHash.Store(&hash)
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Stats returns the counters of this moment.
func (s *Server) Stats() Stats {
	return Stats{
		Counts: s.Counts(), Repeated: s.repeated.Load(), Events: s.events.Load(), Alerts: s.alerts.Load(), Rejected: s.rejected.Load(),
	}
}

type taker = func(w http.ResponseWriter, r *http.Request, body []byte, f standin.Faults) standin.Verdict

func (s *Server) known(r *http.Request) bool {
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	hash := sha256.Sum256([]byte(key)) // of one length, whatever came
	return subtle.ConstantTimeCompare(hash[:], s.keyHash.Load()[:]) == 1
}

func no(w http.ResponseWriter, status int, reason string) {
	quoted, _ := jsontext.AppendQuote(nil, reason) // an error means invalid UTF-8, which is replaced
	standin.Answer(w, status, standin.JSON, `{"error":`+string(quoted)+`}`)
}

func refuse(w http.ResponseWriter, status int, reason string) standin.Verdict {
	no(w, status, reason)
	return standin.Verdict{Fate: standin.Refused}
}

func accept(result any) standin.Verdict {
	body, _ := json.Marshal(result) // of our own types: it cannot fail
	return standin.Verdict{Fate: standin.Accepted, Yes: string(body), Type: standin.JSON}
}

// rejection names an event that an accepted request does not deliver.
type rejection struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

func (s *Server) takeEvents(split func([]byte) ([]event.Raw, error)) taker {
	return func(w http.ResponseWriter, r *http.Request, body []byte, f standin.Faults) standin.Verdict {
		events, err := split(body)
		if err != nil {
			return refuse(w, http.StatusBadRequest, err.Error())
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
				return refuse(w, f.RefuseWith, rejected[0].Reason)
			}
			events = accepted
		}
		if s.seen(r) {
			events = nil
		}
		if len(events) > 0 && s.opts.Events != nil {
			s.opts.Events(events, time.Now())
		}
		s.events.Add(int64(len(events)))
		s.rejected.Add(int64(len(rejected)))
		return accept(struct {
			Accepted int         `json:"accepted"`
			Rejected []rejection `json:"rejected,omitempty"`
		}{len(events), rejected})
	}
}

func (s *Server) takeAlert(w http.ResponseWriter, r *http.Request, body []byte, f standin.Faults) standin.Verdict {
	if _, err := single(body); err != nil {
		return refuse(w, http.StatusBadRequest, err.Error())
	}
	if f.Refuse != "" && bytes.Contains(body, []byte(f.Refuse)) {
		return refuse(w, cmp.Or(f.RefuseWith, http.StatusUnprocessableEntity), "refused by the fault switch: contains "+f.Refuse)
	}
	if !s.seen(r) {
		s.alerts.Add(1)
		if s.opts.Alerts != nil {
			s.opts.Alerts(body, time.Now())
		}
	}
	return accept(struct {
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
