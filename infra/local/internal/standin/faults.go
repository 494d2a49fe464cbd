package standin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Faults say what a stand-in does instead of accepting. The zero value: nothing. As JSON, durations are strings:
//
//	{"status":503,"for":"30s"}                      503 for half a minute
//	{"status":429,"retry_after":"5","for":"30s"}    told to slow down
//	{"latency":"2s"}  {"hang":true}                 slow, no answer
//	{"cut":true}  {"tear":true}                     cut in the midst of the request, or of the answer to what was accepted
//	{"garbage":true}                                accepted, with an answer that nobody can read
//	{"refuse":"poison","refuse_with":422}           requests with "poison" in them are refused
//	{"refuse":"poison"}                             in the vendor's own way: Sweet Security lists the event, others answer 400
//	{"max_bytes":1000}                              413 for what is larger
type Faults struct {
	Status     int      `json:"status,omitzero"`
	RetryAfter string   `json:"retry_after,omitzero"`
	For        Duration `json:"for,omitzero"`
	Latency    Duration `json:"latency,omitzero"`
	Hang       bool     `json:"hang,omitzero"`
	Cut        bool     `json:"cut,omitzero"`
	Tear       bool     `json:"tear,omitzero"`
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
		errs = append(errs, fmt.Errorf("refuse_with %d: must be from 400 to 599, or left out for an answer in the vendor's way", f.RefuseWith))
	}
	if f.RefuseWith != 0 && f.Refuse == "" {
		errs = append(errs, errors.New("refuse_with without refuse"))
	}
	if f.MaxBytes < 0 {
		errs = append(errs, errors.New("max_bytes must not be negative"))
	}
	return errors.Join(errs...)
}

// String is f in words for a person: "" when there are none. It quotes what the person wrote.
func (f Faults) String() string {
	var parts []string
	add := func(on bool, format string, args ...any) {
		if on {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(f.Status != 0, "status %d", f.Status)
	add(f.RetryAfter != "", "Retry-After %s", f.RetryAfter)
	add(f.Latency > 0, "latency %v", time.Duration(f.Latency))
	add(f.Hang, "hangs")
	add(f.Cut, "cuts connections")
	add(f.Tear, "tears answers")
	add(f.Garbage, "answers garbage")
	add(f.Refuse != "", "refuses %q", f.Refuse)
	add(f.RefuseWith != 0, "with %d", f.RefuseWith)
	add(f.MaxBytes != 0, "takes %d bytes at most", f.MaxBytes)
	add(f.For > 0, "for %v more", time.Duration(f.For).Round(100*time.Millisecond))
	return strings.Join(parts, ", ")
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
		var over <-chan time.Time // then the receiver is back, without the connections that it had
		if f.For > 0 {
			over = time.After(time.Duration(f.For))
		}
		select {
		case <-r.Context().Done():
			return false
		case <-over:
		}
	}
	if f.Cut {
		_, _ = io.CopyN(io.Discard, r.Body, max(r.ContentLength, 2)/2)
	}
	if f.Cut || f.Hang {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.Close()
			return false
		}
		panic(http.ErrAbortHandler) // HTTP/2: resets the stream
	}
	return true
}
