// Package slack stands where Slack stands: an incoming webhook, and the three methods of the API that a bot needs to tell
// of incidents. It shows on its board what a person would see in the channel, with edits and threads applied.
//
//	POST /services/...          the incoming webhook
//	POST /api/chat.postMessage  also into a thread
//	POST /api/chat.update
//	POST /api/auth.test
//	GET, POST, DELETE /_faults  the switches; see [standin.Faults]
//
// Sources: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks (answers of the webhook),
// docs.slack.dev/reference/methods/chat.postMessage and chat.update (errors), docs.slack.dev/apis/web-api/rate-limits (429),
// docs.slack.dev/reference/block-kit/blocks (what blocks may hold).
package slack

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

// Options are what a stand-in is made of.
type Options struct {
	Token   string // of the bot
	Channel string // the one that there is, by its id
	Webhook string // path of the incoming webhook to it, which is its credential: "/services/T0/B0/secret"
}

// Server is an [http.Handler]. Safe for concurrent use.
type Server struct {
	standin.Switches
	Board standin.Board

	opts atomic.Pointer[Options]
	mux  *http.ServeMux
	last atomic.Int64 // timestamp of the last message, microseconds of Unix
}

// New returns a stand-in without faults.
func New(o Options) *Server {
	s := &Server{mux: http.NewServeMux()}
	s.SetOptions(o)
	s.mux.HandleFunc("POST /services/", s.Guard(standin.Endpoint{Known: s.knownPath, No: noText, Take: s.webhook}))
	for method, take := range map[string]func(message) (reply, string){
		"chat.postMessage": s.post, "chat.update": s.update, "auth.test": func(message) (reply, string) {
			return reply{OK: true, Team: "stand-in", User: "apss"}, ""
		},
	} {
		s.mux.HandleFunc("POST /api/"+method, s.Guard(standin.Endpoint{No: noAPI, Take: s.method(take)}))
	}
	s.Mount(s.mux)
	return s
}

// SetOptions makes the stand-in one of other credentials, with the messages that it has.
func (s *Server) SetOptions(o Options) { s.opts.Store(&o) }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// message is a request's body, as far as it is looked at.
type message struct {
	Channel string  `json:"channel"`
	TS      string  `json:"ts"`
	Thread  string  `json:"thread_ts"`
	Text    string  `json:"text"`
	Blocks  []block `json:"blocks"`
}

// reply is an answer of the API.
type reply struct {
	OK      bool   `json:"ok"`
	Error   string `json:"error,omitempty"`
	Channel string `json:"channel,omitempty"`
	TS      string `json:"ts,omitempty"`
	Team    string `json:"team,omitempty"`
	User    string `json:"user,omitempty"`
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func (s *Server) knownPath(r *http.Request) bool { return same(r.URL.Path, s.opts.Load().Webhook) }

// noText is how the webhook says no: a word, and no JSON.
func noText(w http.ResponseWriter, status int, _ string) {
	word := "invalid_payload"
	switch {
	case status == http.StatusUnauthorized: // there is no such status: a path that is not known
		status, word = http.StatusForbidden, "invalid_token"
	case status == http.StatusTooManyRequests:
		word = "rate_limited"
	case status >= http.StatusInternalServerError:
		word = "rollup_error"
	case status == http.StatusNotFound:
		word = "channel_not_found"
	}
	standin.Answer(w, status, "", word)
}

// noAPI is how the API says no.
func noAPI(w http.ResponseWriter, status int, _ string) {
	word := "invalid_arguments"
	switch {
	case status == http.StatusUnauthorized:
		status, word = http.StatusOK, "invalid_auth"
	case status == http.StatusTooManyRequests:
		word = "ratelimited"
	case status >= http.StatusInternalServerError:
		word = "internal_error"
	}
	standin.Answer(w, status, standin.JSON, fmt.Sprintf(`{"ok":false,"error":%q}`, word))
}

func (s *Server) webhook(w http.ResponseWriter, _ *http.Request, body []byte, _ standin.Faults) standin.Verdict {
	var m message
	word := "invalid_payload"
	if json.Unmarshal(body, &m) == nil {
		word = m.fault()
	}
	if word != "" {
		standin.Answer(w, http.StatusBadRequest, "", word)
		return standin.Verdict{Fate: standin.Refused}
	}
	s.show(m)
	return standin.Verdict{Fate: standin.Accepted, Yes: "ok"}
}

// method is a method of the API: its status is 200 whatever it says.
func (s *Server) method(do func(message) (reply, string)) func(http.ResponseWriter, *http.Request, []byte, standin.Faults) standin.Verdict {
	return func(w http.ResponseWriter, r *http.Request, body []byte, _ standin.Faults) standin.Verdict {
		fate := standin.Refused
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		var m message
		var answer reply
		var word string
		switch {
		case token == "":
			fate, word = standin.Unauthorized, "not_authed"
		case !same(token, s.opts.Load().Token):
			fate, word = standin.Unauthorized, "invalid_auth"
		case !strings.HasPrefix(r.Header.Get("Content-Type"), standin.JSON):
			word = "invalid_post_type"
		case json.Unmarshal(body, &m) != nil:
			word = "invalid_json"
		default:
			answer, word = do(m)
		}
		if word != "" {
			answer = reply{Error: word}
		}
		said, _ := json.Marshal(answer) // of our own type: it cannot fail
		if word == "" {
			return standin.Verdict{Fate: standin.Accepted, Yes: string(said), Type: standin.JSON}
		}
		standin.Answer(w, http.StatusOK, standin.JSON, string(said))
		return standin.Verdict{Fate: fate}
	}
}

func (s *Server) post(m message) (reply, string) {
	if m.Channel != s.opts.Load().Channel {
		return reply{}, "channel_not_found"
	}
	if word := m.fault(); word != "" {
		return reply{}, word
	}
	if m.Thread == "" {
		return reply{OK: true, Channel: m.Channel, TS: s.show(m)}, ""
	}
	ts := s.timestamp()
	if !s.Board.Change(byID(m.Thread), func(to *standin.Message) { to.Thread = append(to.Thread, m.shown()) }) {
		return reply{}, "thread_not_found"
	}
	return reply{OK: true, Channel: m.Channel, TS: ts}, ""
}

func (s *Server) update(m message) (reply, string) {
	if m.Channel != s.opts.Load().Channel {
		return reply{}, "channel_not_found"
	}
	if word := m.fault(); word != "" {
		return reply{}, word
	}
	edit := func(to *standin.Message) {
		to.Title, to.Text = m.title(), m.shown()
		to.Edits++
	}
	if !s.Board.Change(byID(m.TS), edit) {
		return reply{}, "message_not_found"
	}
	return reply{OK: true, Channel: m.Channel, TS: m.TS}, ""
}

func byID(id string) func(*standin.Message) bool {
	return func(m *standin.Message) bool { return m.ID == id }
}

// show puts m into the channel and returns its timestamp, by which it is known.
func (s *Server) show(m message) string {
	ts := s.timestamp()
	s.Board.Post(standin.Message{ID: ts, Title: m.title(), Text: m.shown()})
	return ts
}

// timestamp is seconds of Unix with six digits behind the point, each one once.
func (s *Server) timestamp() string {
	for {
		last := s.last.Load()
		now := max(time.Now().UnixMicro(), last+1)
		if s.last.CompareAndSwap(last, now) {
			return fmt.Sprintf("%d.%06d", now/1e6, now%1e6)
		}
	}
}
