// Package discord stands where a webhook of Discord stands. It shows on its board what a person would see in the channel,
// with edits applied.
//
//	GET   /api/webhooks/...              the webhook
//	POST  /api/webhooks/...?wait=true    a message
//	PATCH /api/webhooks/.../messages/... a message as it is now
//	GET, POST, DELETE /_faults           the switches; see [standin.Faults]
//
// Sources: docs.discord.com/developers/resources/webhook (paths, wait), /resources/message#embed-object-embed-limits,
// /topics/rate-limits (headers and body of a 429), /topics/opcodes-and-status-codes#json (codes).
package discord

import (
	"cmp"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

// Server is an [http.Handler]. Safe for concurrent use.
type Server struct {
	standin.Switches
	Board standin.Board

	path atomic.Pointer[string]
	last atomic.Int64 // id of a message
	mux  *http.ServeMux
}

// New returns a stand-in without faults, of a webhook with a path, which is its credential: "/api/webhooks/1/secret".
func New(path string) *Server {
	s := &Server{mux: http.NewServeMux()}
	s.SetPath(path)
	s.last.Store(1_000_000_000_000_000_000)
	const webhook = "/api/webhooks/{id}/{token}"
	for pattern, take := range map[string]func(http.ResponseWriter, *http.Request, []byte, standin.Faults) standin.Verdict{
		"GET " + webhook: s.show, "POST " + webhook: s.post, "PATCH " + webhook + "/messages/{message}": s.edit,
	} {
		s.mux.HandleFunc(pattern, s.Guard(standin.Endpoint{Known: s.known, No: no, Take: take}))
	}
	s.Mount(s.mux)
	return s
}

// SetPath makes the webhook another one, as when its token was renewed.
func (s *Server) SetPath(path string) { s.path.Store(&path) }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) known(r *http.Request) bool {
	path, _, _ := strings.Cut(r.URL.Path, "/messages/")
	return subtle.ConstantTimeCompare([]byte(path), []byte(*s.path.Load())) == 1
}

// no is how Discord says no. A 429 says in a header of its own when the limit is over, and in the body.
func no(w http.ResponseWriter, status int, reason string) {
	answer := func(code int, message string) {
		standin.Answer(w, status, standin.JSON, fmt.Sprintf(`{"message":%q,"code":%d}`, message, code))
	}
	switch {
	case status == http.StatusTooManyRequests:
		after, err := strconv.ParseFloat(w.Header().Get("Retry-After"), 64)
		if err != nil {
			after = 1
		}
		w.Header().Set("X-RateLimit-Limit", "5")
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset-After", strconv.FormatFloat(after, 'f', 3, 64))
		standin.Answer(w, status, standin.JSON, fmt.Sprintf(`{"message":"You are being rate limited.","retry_after":%.3f,"global":false}`, after))
	case status == http.StatusUnauthorized:
		answer(50027, "Invalid Webhook Token")
	case status >= http.StatusInternalServerError:
		answer(0, "Internal Server Error")
	default:
		answer(50035, reason)
	}
}

// The documents' limits, in characters.
const (
	maxContent     = 2_000
	maxEmbeds      = 10
	maxTitle       = 256
	maxDescription = 4_096
	maxFields      = 25
	maxName        = 256
	maxValue       = 1_024
	maxFooter      = 2_048
	maxWhole       = 6_000 // of all embeds
)

// message is a request's body, as far as it is looked at.
type message struct {
	Content string  `json:"content"`
	Embeds  []embed `json:"embeds"`
}

type embed struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	Fields      []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"fields"`
	Footer struct {
		Text string `json:"text"`
	} `json:"footer"`
}

// fault is what is wrong with m; "" for nothing.
func (m message) fault() string {
	whole, wrong := 0, ""
	most := func(what, text string, limit int) {
		n := utf8.RuneCountInString(text)
		if whole += n; n > limit {
			wrong = cmp.Or(wrong, fmt.Sprintf("%s: must be %d or fewer in length", what, limit))
		}
	}
	most("content", m.Content, maxContent)
	whole = 0
	for _, e := range m.Embeds {
		most("title", e.Title, maxTitle)
		most("description", e.Description, maxDescription)
		most("footer", e.Footer.Text, maxFooter)
		for _, f := range e.Fields {
			most("name", f.Name, maxName)
			most("value", f.Value, maxValue)
			if f.Name == "" || f.Value == "" {
				wrong = cmp.Or(wrong, "fields: this field is required")
			}
		}
		if len(e.Fields) > maxFields {
			wrong = cmp.Or(wrong, fmt.Sprintf("fields: must be %d or fewer in length", maxFields))
		}
	}
	switch {
	case m.Content == "" && len(m.Embeds) == 0:
		return "Cannot send an empty message"
	case len(m.Embeds) > maxEmbeds:
		return fmt.Sprintf("embeds: must be %d or fewer in length", maxEmbeds)
	case whole > maxWhole:
		return fmt.Sprintf("embeds: size exceeds maximum size of %d", maxWhole)
	}
	return wrong
}

// title is what stands first.
func (m message) title() string {
	if len(m.Embeds) > 0 {
		return plain(m.Embeds[0].Title)
	}
	return plain(m.Content)
}

// escaped is a character that a backslash takes its meaning from (support.discord.com, "Markdown Text 101").
var escaped = regexp.MustCompile(`\\([[:punct:]])`)

// plain is text without the backslashes that nobody sees.
func plain(text string) string { return escaped.ReplaceAllString(text, "$1") }

// shown is what a person reads.
func (m message) shown() string {
	var lines []string
	add := func(texts ...string) {
		for _, t := range texts {
			if t != "" {
				lines = append(lines, t)
			}
		}
	}
	add(m.Content)
	for _, e := range m.Embeds {
		add(e.Title, e.Description)
		for _, f := range e.Fields {
			add(f.Name, f.Value)
		}
		add(e.Footer.Text)
	}
	return plain(strings.Join(lines, "\n"))
}

func (s *Server) show(_ http.ResponseWriter, r *http.Request, _ []byte, _ standin.Faults) standin.Verdict {
	return accepted(r.PathValue("id"), `,"name":"APSS","type":1`)
}

func accepted(id, more string) standin.Verdict {
	return standin.Verdict{Fate: standin.Accepted, Type: standin.JSON, Yes: fmt.Sprintf(`{"id":%q%s}`, id, more)}
}

// read returns the message of a body that Discord would take; else it has answered.
func read(w http.ResponseWriter, body []byte) (m message, ok bool) {
	wrong := "The request body contains invalid JSON."
	if json.Unmarshal(body, &m) == nil {
		wrong = m.fault()
	}
	if wrong != "" {
		no(w, http.StatusBadRequest, wrong)
	}
	return m, wrong == ""
}

func (s *Server) post(w http.ResponseWriter, r *http.Request, body []byte, _ standin.Faults) standin.Verdict {
	m, ok := read(w, body)
	if !ok {
		return standin.Verdict{Fate: standin.Refused}
	}
	id := strconv.FormatInt(s.last.Add(1), 10)
	s.Board.Post(standin.Message{ID: id, Title: m.title(), Text: m.shown()})
	if r.URL.Query().Get("wait") != "true" {
		return standin.Verdict{Fate: standin.Accepted, Status: http.StatusNoContent}
	}
	return accepted(id, "")
}

func (s *Server) edit(w http.ResponseWriter, r *http.Request, body []byte, _ standin.Faults) standin.Verdict {
	m, ok := read(w, body)
	if !ok {
		return standin.Verdict{Fate: standin.Refused}
	}
	id := r.PathValue("message")
	if !s.Board.Change(func(have *standin.Message) bool { return have.ID == id }, func(to *standin.Message) {
		to.Title, to.Text = m.title(), m.shown()
		to.Edits++
	}) {
		standin.Answer(w, http.StatusNotFound, standin.JSON, `{"message":"Unknown Message","code":10008}`)
		return standin.Verdict{Fate: standin.Refused}
	}
	return accepted(id, "")
}
