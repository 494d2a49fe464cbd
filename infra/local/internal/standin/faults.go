package standin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
)

// Faults say what the stand-in does instead of accepting. The zero value: nothing. As JSON, durations are strings:
//
//	{"status":503,"for":"30s"}                      503 for half a minute
//	{"status":429,"retry_after":"5","for":"30s"}    told to slow down
//	{"latency":"2s"}  {"hang":true}  {"cut":true}   slow, no answer, a cut connection
//	{"garbage":true}                                accepted, with an answer that nobody can read
//	{"refuse":"poison","refuse_with":422}           requests with "poison" in an event are refused
//	{"refuse":"poison"}                             the event is refused alone, in the answer's list
//	{"max_bytes":1000}                              413 for what is larger
type Faults struct {
	Status     int      `json:"status,omitzero"`
	RetryAfter string   `json:"retry_after,omitzero"`
	For        Duration `json:"for,omitzero"`
	Latency    Duration `json:"latency,omitzero"`
	Hang       bool     `json:"hang,omitzero"`
	Cut        bool     `json:"cut,omitzero"`
	Garbage    bool     `json:"garbage,omitzero"`
	Refuse     string   `json:"refuse,omitzero"`
	RefuseWith int      `json:"refuse_with,omitzero"`
	MaxBytes   int64    `json:"max_bytes,omitzero"`
}

// Duration is a [time.Duration] that is "1.5s" in JSON.
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = errors.New("must not be negative")
	}
	*d = Duration(v)
	return err
}

// Validate reports what no server can do.
func (f Faults) Validate() error {
	var errs []error
	if f.Status != 0 && (f.Status < 300 || f.Status > 599) {
		errs = append(errs, fmt.Errorf("status %d: must be from 300 to 599", f.Status))
	}
	if f.RefuseWith != 0 && (f.RefuseWith < 400 || f.RefuseWith > 599) {
		errs = append(errs, fmt.Errorf("refuse_with %d: must be from 400 to 599, or left out for an answer that lists the refused", f.RefuseWith))
	}
	if f.RefuseWith != 0 && f.Refuse == "" {
		errs = append(errs, errors.New("refuse_with without refuse"))
	}
	if f.MaxBytes < 0 {
		errs = append(errs, errors.New("max_bytes must not be negative"))
	}
	return errors.Join(errs...)
}

// before runs what happens before a request is looked at; false when that was the end of it.
func (f Faults) before(w http.ResponseWriter, r *http.Request) bool {
	if f.Latency > 0 || f.Hang {
		// net/http notices that a client has gone only when its request was read.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if f.Latency > 0 {
		select {
		case <-time.After(time.Duration(f.Latency)):
		case <-r.Context().Done():
			return false
		}
	}
	if f.Hang {
		<-r.Context().Done()
		return false
	}
	if f.Cut {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.Close()
			return false
		}
		panic(http.ErrAbortHandler) // HTTP/2: resets the stream
	}
	return true
}

func (f Faults) refuse(w http.ResponseWriter, status int) {
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	answer(w, status, `{"error":"fault switch"}`)
}

// Set switches faults. They end by themselves after f.For, where it is given.
func (s *Server) Set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.until = f, time.Time{}
	if f.For > 0 {
		s.until = time.Now().Add(time.Duration(f.For))
	}
}

// Faults returns the faults of this moment; For is what is left of it.
func (s *Server) Faults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until.IsZero() {
		return s.faults
	}
	left := time.Until(s.until)
	if left <= 0 {
		s.faults, s.until = Faults{}, time.Time{}
	}
	s.faults.For = Duration(max(left, 0))
	return s.faults
}

func (s *Server) showFaults(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(s.Faults())
	if err != nil {
		answer(w, http.StatusInternalServerError, "")
		return
	}
	answer(w, http.StatusOK, string(body)+"\n")
}

func (s *Server) setFaults(w http.ResponseWriter, r *http.Request) {
	var f Faults
	err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, 1<<16), &f, json.RejectUnknownMembers(true))
	if err == nil {
		err = f.Validate()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.Set(f)
	s.showFaults(w, r)
}
