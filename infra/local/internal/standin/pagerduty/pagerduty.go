// Package pagerduty stands where PagerDuty's Events API v2 stands. Its board has the incidents of one service as they are
// now: by dedup key, open or resolved.
//
//	POST /v2/enqueue            trigger, acknowledge, resolve
//	GET, POST, DELETE /_faults  the switches; see [standin.Faults]
//
// Sources: developer.pagerduty.com/docs/send-alert-event (fields and their limits),
// developer.pagerduty.com/docs/events-api-v2-overview (answers, size, de-duplication).
package pagerduty

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

// The documents' limits.
const (
	maxBody    = 512 << 10
	maxSummary = 1_024
	maxDedup   = 255
	keyLength  = 32
)

// The states of an incident.
const (
	Open         = "triggered"
	Acknowledged = "acknowledged"
	Resolved     = "resolved"
)

// Server is an [http.Handler]. Safe for concurrent use.
type Server struct {
	standin.Switches
	Board standin.Board

	key atomic.Pointer[string]
	mux *http.ServeMux
	mu  sync.Mutex // one event after the other
}

// New returns a stand-in without faults, of the service with a routing key.
func New(key string) *Server {
	s := &Server{mux: http.NewServeMux()}
	s.SetKey(key)
	s.mux.HandleFunc("POST /v2/enqueue", s.Guard(standin.Endpoint{No: no, Max: maxBody, Take: s.take}))
	s.Mount(s.mux)
	return s
}

// SetKey makes key the only routing key that is taken.
func (s *Server) SetKey(key string) { s.key.Store(&key) }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// body is an event's, as far as it is looked at.
type body struct {
	Key     string   `json:"routing_key"`
	Action  string   `json:"event_action"`
	Dedup   string   `json:"dedup_key"`
	Payload *payload `json:"payload"`
	Links   []struct {
		Href string `json:"href"`
		Text string `json:"text"`
	} `json:"links"`
}

type payload struct {
	Summary   string         `json:"summary"`
	Source    string         `json:"source"`
	Severity  string         `json:"severity"`
	Component string         `json:"component"`
	Group     string         `json:"group"`
	Class     string         `json:"class"`
	Details   map[string]any `json:"custom_details"`
}

func no(w http.ResponseWriter, status int, reason string) {
	said, _ := json.Marshal(map[string]any{"status": "invalid event", "message": "Event object is invalid", "errors": []string{reason}})
	if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
		said = []byte(`{"status":"throttle exceeded","message":"Try again later"}`)
	}
	standin.Answer(w, status, standin.JSON, string(said))
}

// fault is what is wrong with b; "" for nothing.
func (b body) fault() string {
	switch p := b.Payload; {
	case utf8.RuneCountInString(b.Dedup) > maxDedup:
		return fmt.Sprintf("'dedup_key' is longer than %d characters", maxDedup)
	case !slices.Contains([]string{"trigger", "acknowledge", "resolve"}, b.Action):
		return "'event_action' is missing or invalid"
	case b.Action != "trigger" && b.Dedup == "":
		return "'dedup_key' is missing or blank"
	case b.Action != "trigger":
		return ""
	case p == nil:
		return "'payload' is missing or blank"
	case p.Summary == "" || utf8.RuneCountInString(p.Summary) > maxSummary:
		return fmt.Sprintf("'payload.summary' is missing, blank or longer than %d characters", maxSummary)
	case p.Source == "":
		return "'payload.source' is missing or blank"
	case !slices.Contains([]string{"critical", "error", "warning", "info"}, p.Severity):
		return "'payload.severity' is invalid (must be one of the following: 'critical', 'warning', 'error' or 'info')"
	}
	return ""
}

func (s *Server) take(w http.ResponseWriter, _ *http.Request, raw []byte, _ standin.Faults) standin.Verdict {
	var b body
	switch err := json.Unmarshal(raw, &b); {
	case err != nil:
		no(w, http.StatusBadRequest, "the body is not valid JSON")
		return standin.Verdict{Fate: standin.Refused}
	case len(b.Key) != keyLength || b.Key != *s.key.Load():
		no(w, http.StatusBadRequest, "Invalid routing key")
		return standin.Verdict{Fate: standin.Unauthorized}
	}
	if fault := b.fault(); fault != "" {
		no(w, http.StatusBadRequest, fault)
		return standin.Verdict{Fate: standin.Refused}
	}
	if b.Dedup == "" {
		b.Dedup = rand.Text()
	}
	s.apply(b)
	said, _ := json.Marshal(map[string]string{"status": "success", "message": "Event processed", "dedup_key": b.Dedup})
	return standin.Verdict{Fate: standin.Accepted, Yes: string(said), Type: standin.JSON, Status: http.StatusAccepted}
}

// apply does what an event says. One that speaks of no open incident and opens none is dropped, as documented.
func (s *Server) apply(b body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := func(m *standin.Message) bool { return m.Key == b.Dedup && m.State != Resolved }
	switch b.Action {
	case "acknowledge":
		s.Board.Change(open, func(m *standin.Message) { m.State = Acknowledged })
	case "resolve":
		s.Board.Change(open, func(m *standin.Message) { m.State = Resolved })
	case "trigger":
		update := func(m *standin.Message) {
			m.Title, m.Text = b.Payload.Summary, b.shown()
			m.Edits++
		}
		if !s.Board.Change(open, update) {
			s.Board.Post(standin.Message{ID: rand.Text(), Key: b.Dedup, Title: b.Payload.Summary, Text: b.shown(), State: Open})
		}
	}
}

// shown is an incident's page.
func (b body) shown() string {
	p := b.Payload
	lines := []string{p.Summary}
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, name+": "+value)
		}
	}
	add("Severity", p.Severity)
	add("Source", p.Source)
	add("Component", p.Component)
	add("Group", p.Group)
	add("Class", p.Class)
	for _, name := range slices.Sorted(maps.Keys(p.Details)) {
		add(name, fmt.Sprint(p.Details[name]))
	}
	for _, l := range b.Links {
		add("Link", strings.TrimSpace(l.Text+" "+l.Href))
	}
	return strings.Join(lines, "\n")
}
