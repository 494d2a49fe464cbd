package standin

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
)

// maxBody bounds a request. An envelope's events are 10 MiB at most, and a batch holds those of several.
const maxBody = 64 << 20

// Switches are the faults of one stand-in, and the count of what became of the requests to it. The zero value has no
// faults. Safe for concurrent use.
type Switches struct {
	accepted, refused, unauthorized atomic.Int64

	mu     sync.Mutex
	faults Faults
	until  time.Time // of faults; zero: until changed
}

// Counts are requests by what became of them.
type Counts struct {
	Accepted     int64
	Refused      int64 // answered with a fault, or wrong in themselves
	Unauthorized int64
}

// Counts returns the counters of this moment.
func (s *Switches) Counts() Counts {
	return Counts{Accepted: s.accepted.Load(), Refused: s.refused.Load(), Unauthorized: s.unauthorized.Load()}
}

// Count counts a request to a receiver that is not behind [Switches.Guard].
func (s *Switches) Count(f Fate) {
	switch f {
	case Refused:
		s.refused.Add(1)
	case Unauthorized:
		s.unauthorized.Add(1)
	case Accepted:
		s.accepted.Add(1)
	}
}

// Set switches faults. They end by themselves after f.For, where it is given.
func (s *Switches) Set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.until = f, time.Time{}
	if f.For > 0 {
		s.until = time.Now().Add(time.Duration(f.For))
	}
}

// Faults returns the faults of this moment; For is what is left of it.
func (s *Switches) Faults() Faults {
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

// Mount serves the switches: GET, POST, DELETE /_faults. See [Faults].
func (s *Switches) Mount(mux *http.ServeMux) {
	show := func(w http.ResponseWriter) {
		body, err := json.Marshal(s.Faults())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		Answer(w, http.StatusOK, JSON, string(body)+"\n")
	}
	mux.HandleFunc("GET /_faults", func(w http.ResponseWriter, _ *http.Request) { show(w) })
	mux.HandleFunc("DELETE /_faults", func(w http.ResponseWriter, _ *http.Request) {
		s.Set(Faults{})
		show(w)
	})
	mux.HandleFunc("POST /_faults", func(w http.ResponseWriter, r *http.Request) {
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
		show(w)
	})
}

// Endpoint is what a vendor does at one path.
type Endpoint struct {
	// Known reports whether a request brings the credential; nil: Take looks, as it is in the body.
	Known func(*http.Request) bool
	// No answers a refusal in the vendor's words. The reason is for a person.
	No func(w http.ResponseWriter, status int, reason string)
	// Max is how many bytes of body there may be; 0 is 64 MiB.
	Max int64
	// RefusesItself: Take deals with Faults.Refuse.
	RefusesItself bool
	// Take deals with a body that no fault stopped.
	Take func(w http.ResponseWriter, r *http.Request, body []byte, f Faults) Verdict
}

// Verdict is what a Take came to. It has answered, but when it is [Accepted]: then Yes does.
type Verdict struct {
	Fate Fate
	// Yes is the body of the answer to what was accepted, Type its content type and Status the status, 200 when it is 0.
	Yes, Type string
	Status    int
}

// Fate is how a request is counted.
type Fate uint8

// The fates.
const (
	Refused Fate = iota
	Unauthorized
	Accepted
)

// Guard is e behind the switches.
func (s *Switches) Guard(e Endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f := s.Faults()
		if !f.before(w, r) {
			s.refused.Add(1)
			return
		}
		if e.Known != nil && !e.Known(r) {
			s.unauthorized.Add(1)
			e.No(w, http.StatusUnauthorized, "unauthorized")
			return
		}
		if f.Status != 0 {
			if f.RetryAfter != "" {
				w.Header().Set("Retry-After", f.RetryAfter)
			}
			s.refused.Add(1)
			e.No(w, f.Status, "fault switch")
			return
		}
		body, status, err := read(w, r, e.Max, f.MaxBytes)
		if err == nil && f.Refuse != "" && !e.RefusesItself && bytes.Contains(body, []byte(f.Refuse)) {
			status, err = cmp.Or(f.RefuseWith, http.StatusBadRequest), errors.New("refused by the fault switch: contains "+f.Refuse)
		}
		if err != nil {
			s.refused.Add(1)
			e.No(w, status, err.Error())
			return
		}
		v := e.Take(w, r, body, f)
		s.Count(v.Fate)
		if v.Fate == Accepted {
			if f.Garbage {
				v.Yes, v.Status = "\x00\xff<html>{\"rejected\":[{", http.StatusOK
			}
			if f.Tear { // net/http cuts the connection when less comes than was announced
				w.Header().Set("Content-Length", strconv.Itoa(len(v.Yes)+1))
				v.Yes, v.Status = v.Yes[:len(v.Yes)/2], http.StatusOK // 204 has no body that could be torn
			}
			Answer(w, cmp.Or(v.Status, http.StatusOK), v.Type, v.Yes)
		}
	}
}

// read reads the body, or says which status tells why not.
func read(w http.ResponseWriter, r *http.Request, most, switched int64) (body []byte, status int, err error) {
	limit := cmp.Or(most, int64(maxBody))
	if switched > 0 {
		limit = min(limit, switched)
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, limit)) + bytes.MinRead)
	}
	_, err = buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("more than %d bytes", limit)
	case err != nil:
		return nil, http.StatusBadRequest, errors.New("reading the body")
	}
	return buf.Bytes(), 0, nil
}

// JSON is a content type, for [Answer].
const JSON = "application/json"

// Answer writes an answer.
func Answer(w http.ResponseWriter, status int, contentType, body string) {
	w.Header().Set("Content-Type", cmp.Or(contentType, "text/plain; charset=utf-8"))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // who left does not read
}
