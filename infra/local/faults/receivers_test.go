package faults_test

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/ledger"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/standin/discord"
	"github.com/apss-sensor/apss/infra/local/internal/standin/pagerduty"
	"github.com/apss-sensor/apss/infra/local/internal/standin/postfix"
	"github.com/apss-sensor/apss/infra/local/internal/standin/slack"
	"github.com/apss-sensor/apss/infra/local/internal/standin/sweetsecurity"
	"github.com/apss-sensor/apss/infra/local/internal/standin/webhook"
	"github.com/apss-sensor/apss/infra/local/internal/system"
)

// Integrations besides those of a local run.
const (
	slackWebhook = "slack-webhook"
	discordName  = "discord"
	email        = "email"
)

// integrations are the columns of the table.
func integrations() []string {
	return []string{system.SweetSecurity, system.Slack, system.PagerDuty, system.Webhook, slackWebhook, discordName, email}
}

// world is what the rigs of a test share.
type world struct {
	*authority
	mail    *postfix.Server // nil: it cannot run here
	expired tls.Certificate
}

func newWorld(t *testing.T, boxes ...string) *world {
	t.Helper()
	w := &world{authority: newAuthority(t)}
	w.expired = w.issue(t, time.Now().Add(-time.Minute))
	if err := postfix.Missing(); err != nil {
		t.Log("without email:", err)
		return w
	}
	var err error
	if w.mail, err = postfix.Start(t.Context(), w.issue(t, time.Now().Add(time.Hour)), boxes...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix said:\n%s", w.mail.Log())
		}
		if err := w.mail.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// all are the receivers of every integration. Their credentials are in files of dir, by the integrations' names.
type all struct {
	t     *testing.T
	dir   string
	box   *postfix.Box // nil: without email
	redis *redis       // nil: the state is in memory
	// expired: those over HTTP show this certificate while it is set.
	expired atomic.Pointer[tls.Certificate]
}

// secrets are the keys of the credentials in the documents of integrations.
func secrets() map[string]string {
	return map[string]string{
		system.SweetSecurity: "api_key", system.Slack: "bot_token", system.PagerDuty: "routing_key", system.Webhook: "secret",
		slackWebhook: "webhook_url", discordName: "webhook_url", email: "password",
	}
}

const channel = "C0LOCALSOC"

// join makes c run with the receivers of all integrations, and with a box of the mail server when there is one.
func (w *world) join(t *testing.T, c *system.Config, box string) *all {
	t.Helper()
	a := &all{t: t, dir: t.TempDir()}
	if w.mail != nil {
		var err error
		if a.box, err = w.mail.Box(box, rand.Text()); err != nil {
			t.Fatal(err)
		}
	}
	c.Env = append(c.Env, "SSL_CERT_FILE="+w.file, "NOTIFY_CALLS=8")
	c.Receivers = func(list []*system.Receiver) []*system.Receiver {
		hook, chat := slack.New(slack.Options{Channel: channel}), discord.New("/")
		list = append(list, &system.Receiver{
			Name: slackWebhook, Kind: "Slack's webhook", Switches: &hook.Switches, Board: threads(&hook.Board), Handler: hook,
			Settings: map[string]any{"kind": "slack"},
		}, &system.Receiver{
			Name: discordName, Kind: "Discord", Switches: &chat.Switches, Board: &chat.Board, Handler: chat, Settings: map[string]any{},
		})
		if a.box != nil {
			host, port, _ := net.SplitHostPort(a.box.Addr)
			list = append(list, &system.Receiver{
				Name: email, Kind: "email", Addr: a.box.Addr, Switches: &a.box.Switches, Board: &a.box.Board,
				Settings: map[string]any{"host": host, "port": port, "tls": "implicit", "username": box, "from": "apss@" + postfix.Domain, "to": []string{a.box.Address()}},
			})
		}
		for _, r := range list[4:] {
			r.Incidents, r.Topics = new(ledger.Incidents), []string{system.AlertsTopic}
		}
		for _, r := range list {
			r.Settings = maps.Clone(r.Settings)
			r.Settings[secrets()[r.Name]] = "file://" + a.file(r)
		}
		return list
	}
	return a
}

func (a *all) file(r *system.Receiver) string { return filepath.Join(a.dir, r.Name) }

// credential makes a new one for r, whose address is known, and returns how r's receiver takes it and how it is written
// down for the functions.
func (a *all) credential(r *system.Receiver) (accept, write func()) {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	secret := rand.Text()
	handler := r.Handler
	if c, ok := handler.(closing); ok {
		handler = c.Handler
	}
	switch s := handler.(type) {
	case *sweetsecurity.Server:
		accept = func() { s.SetKey(secret) }
	case *pagerduty.Server:
		secret = (secret + secret)[:32]
		accept = func() { s.SetKey(secret) }
	case *webhook.Server:
		secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte(secret))
		accept = func() {
			if err := s.SetSecrets(secret); err != nil {
				a.t.Error(err)
			}
		}
	case *slack.Server:
		o := slack.Options{Channel: channel, Token: "xoxb-" + secret, Webhook: "/services/T0/B0/" + secret}
		if secret = o.Token; r.Name == slackWebhook {
			secret = scheme + r.Addr + o.Webhook
		}
		accept = func() { s.SetOptions(o) }
	case *discord.Server:
		path := "/api/webhooks/1/" + secret
		secret = scheme + r.Addr + path
		accept = func() { s.SetPath(path) }
	default:
		accept = func() { a.box.SetPassword(secret) }
	}
	return accept, func() {
		next := a.file(r) + ".next" // never half of one
		if err := os.WriteFile(next, []byte(secret), 0o600); err != nil {
			a.t.Error(err)
		}
		if err := os.Rename(next, a.file(r)); err != nil {
			a.t.Error(err)
		}
	}
}

// write gives every receiver a new credential, and tells the functions, which are not called meanwhile.
func (a *all) write(s *system.System) {
	for _, r := range s.Receivers() {
		if r.Name == email {
			r.Settings["host"], _, _ = net.SplitHostPort(r.Addr)
		}
		accept, write := a.credential(r)
		accept()
		write()
	}
}

// threads is a board on which a message about an incident that repeats or ends changes the first one of it: Slack's
// webhook can only add messages.
func threads(from *standin.Board) *standin.Board {
	to := new(standin.Board)
	from.Changed = func(m standin.Message) {
		_, behind, _ := strings.Cut(m.Text, "Fingerprint ")
		m.Key, _, _ = strings.Cut(behind, " ")
		again := func(first *standin.Message) bool { return m.Key != "" && first.Key == m.Key }
		if strings.Contains(m.Text, "seen once") && !strings.Contains(m.Title, "Resolved") || !to.Change(again, func(first *standin.Message) {
			first.Title, first.Text = m.Title, m.Text
			first.Thread = append(first.Thread, m.Text)
		}) {
			to.Post(m)
		}
	}
	return to
}

// secure makes the receivers over HTTP speak TLS, with a new handshake for each call.
func (a *all) secure(valid tls.Certificate, list []*system.Receiver) {
	for _, r := range list {
		if r.Handler == nil {
			continue
		}
		r.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := a.expired.Load(); c != nil {
				r.Switches.Count(standin.Refused)
				return c, nil
			}
			return &valid, nil
		}}
		r.Handler = closing{r.Handler}
		for key, value := range r.Settings {
			if text, ok := value.(string); ok {
				r.Settings[key] = strings.Replace(text, "http://", "https://", 1)
			}
		}
	}
}

// closing ends the connection after each answer.
type closing struct{ http.Handler }

func (c closing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	c.Handler.ServeHTTP(w, r)
}
