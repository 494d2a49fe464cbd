package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/functions/internal/program"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// site is the functions as they run, between a Pub/Sub and a receiver of two integrations.
type site struct {
	*testing.T
	env  map[string]string
	dead *deadletter.Publisher

	mu     sync.Mutex
	answer int // of the receiver
	bodies map[string][]string
	pushes []string // ids of messages, as the functions get them
	cut    bool     // the answer to a push is lost
}

// newSite uses PUBSUB_EMULATOR_HOST when it is set, else a Pub/Sub in this process.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, bodies: map[string][]string{}, answer: 200}
	if os.Getenv("PUBSUB_EMULATOR_HOST") == "" {
		server := pstest.NewServer()
		t.Cleanup(func() { _ = server.Close() })
		t.Setenv("PUBSUB_EMULATOR_HOST", server.Addr)
	}
	project := fmt.Sprint("p", time.Now().UnixNano()) // an emulator is there longer than a test
	client, err := pubsub.NewClient(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	topic := "projects/" + project + "/topics/apss-dead-letters"
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: "projects/" + project + "/subscriptions/apss-dead-letters", Topic: topic, AckDeadlineSeconds: 10,
		MessageRetentionDuration: durationpb.New(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	s.dead = deadletter.New(client, "apss-dead-letters", 30*time.Second)
	receiver := httptest.NewServer(http.HandlerFunc(s.receive))
	t.Cleanup(receiver.Close)
	p, err := program.New(t.Context(), []string{
		"PUBSUB_PROJECT_ID=" + project, "APSS_LOCAL=true", "FORWARD_LINGER=0s", "HEALTH_CANARY_EVERY=0s",
		"APSS_INTEGRATIONS=" + fmt.Sprintf(`[{"name":"one","kind":"sweetsecurity","enabled":true,"endpoint":%q,"api_key":"key-of-one"},
			{"name":"two","kind":"sweetsecurity","enabled":true,"endpoint":%[1]q,"api_key":"key-of-two"},
			{"name":"off","kind":"sweetsecurity"}]`, receiver.URL),
	}, "test", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	functions := httptest.NewServer(s.watch(p.Handler()))
	t.Cleanup(functions.Close)
	s.env = map[string]string{"APSS_URL": functions.URL, "PUBSUB_PROJECT_ID": project}
	return s
}

func (s *site) receive(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPost {
		name := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer key-of-")
		s.bodies[name] = append(s.bodies[name], string(body))
	}
	w.WriteHeader(s.answer)
}

// watch notes the ids of pushes.
func (s *site) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var push struct {
			Message struct {
				MessageID string `json:"messageId"`
			} `json:"message"`
		}
		_ = json.Unmarshal(body, &push) // not every request is one
		s.mu.Lock()
		if push.Message.MessageID != "" {
			s.pushes = append(s.pushes, push.Message.MessageID)
		}
		cut := s.cut && push.Message.MessageID != ""
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		if cut {
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

func (s *site) set(answer int, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.cut = answer, cut
}

func (s *site) got(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.bodies[name], "\n")
}

// letter gives an event up.
func (s *site) letter(integration, topic, reason string, more ...func(*deadletter.Letter)) *event.Event {
	s.Helper()
	e := eventtest.Exec()
	e.ID = event.NewID()
	var b envelope.Batch
	b.Append(e)
	l := deadletter.Letter{
		Message: b.Seal(envelope.Source{AgentID: "c/n"}, time.Now()), Integration: integration, Topic: topic, Reason: reason,
		MessageID: "17", Subscription: "projects/p/subscriptions/apss-" + topic + "-" + integration, Status: 422,
	}
	for _, f := range more {
		f(&l)
	}
	if err := s.dead.Publish(s.Context(), l); err != nil {
		s.Fatal(err)
	}
	return e
}

// run runs apssctl and returns its exit code and what it printed.
func (s *site) run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	c := control{env: func(key string) string { return s.env[key] }, stdout: &out, stderr: &errs}
	code = c.command(s.Context(), args)
	return code, out.String(), errs.String()
}

func (s *site) want(code int, say []string, args ...string) (stdout string) {
	s.Helper()
	got, stdout, stderr := s.run(args...)
	for _, want := range say {
		if !strings.Contains(stdout+stderr, want) {
			s.Errorf("apssctl %s does not say %q:\n%s%s", strings.Join(args, " "), want, stdout, stderr)
		}
	}
	if got != code {
		s.Errorf("apssctl %s: got exit code %d, want %d:\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout
}

func TestStatusAndTest(t *testing.T) {
	s := newSite(t)
	s.want(exitOK, []string{"NAME", "one", "two", "off", "healthy", "disabled", "agents: 0 live", "not shared"}, "status", "-check")
	s.want(exitOK, []string{`"name": "one"`, `"breaker"`}, "status", "-json")
	s.want(exitOK, []string{"one, events: accepted", "one, alerts: accepted"}, "test", "one")
	if got := s.got("one"); strings.Count(got, string(event.IntegrationTest)) < 2 || s.got("two") != "" {
		t.Errorf("got %s and for two %s, want marked tests for one alone", got, s.got("two"))
	}
	s.set(401, false)
	s.want(exitUnwell, []string{"not accepted: auth: HTTP 401"}, "test", "one")
	s.want(exitUnwell, []string{"failing", "one: the receiver fails its check"}, "status", "-check")
	s.want(exitUnreachable, []string{`there is no integration "three"; there are: one, two, off`}, "test", "three")
	s.want(exitUnreachable, []string{"disabled"}, "test", "off")
	s.env["APSS_URL"] = "http://127.0.0.1:1"
	s.want(exitUnreachable, []string{"the functions at 127.0.0.1:1 cannot be reached", "connection refused", "APSS_URL says where they are"}, "status")
}

// TestNobodyThere: a Pub/Sub that does not answer is no empty one.
func TestNobodyThere(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	s := &site{T: t, env: map[string]string{"PUBSUB_PROJECT_ID": "p"}}
	s.want(exitUnreachable, []string{"Pub/Sub does not answer; it is not known what is in projects/p/subscriptions/apss-dead-letters"}, "dlq", "list")
}

func TestDeadLetters(t *testing.T) {
	s := newSite(t)
	first := s.letter("one", "events", "HTTP 422: bad field")
	second := s.letter("one", "events", "HTTP 413: too large")
	third := s.letter("two", "events", "HTTP 422: bad field")
	s.want(exitOK, []string{"INTEGRATION", "bad field", "too large", "422"}, "dlq", "list")
	list := func(args ...string) (entries []entry) {
		t.Helper()
		out := s.want(exitOK, nil, append([]string{"dlq", "list", "-json"}, args...)...)
		for line := range strings.Lines(out) {
			var e entry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		return entries
	}
	if n, again := len(list("-since", "1h")), len(list("-limit", "2")); n != 3 || again != 2 { // listing takes nothing out
		t.Errorf("got %d letters, then %d with a limit of 2, want 3 and 2", n, again)
	}
	id := list("-reason", "too large")[0].ID
	s.want(exitOK, []string{`"apss.events.v1"`, second.ID, "too large"}, "dlq", "show", id)
	s.want(exitUnwell, []string{"there is no dead letter 999"}, "dlq", "show", "999")

	s.want(exitUsage, []string{"say which"}, "dlq", "replay")
	s.want(exitOK, []string{"bad field"}, "dlq", "replay", "-dry-run", "-all")
	if len(s.pushes) != 0 {
		t.Errorf("a dry run pushed %q", s.pushes)
	}
	s.want(exitOK, []string{"one: 1 brought", "1 letters brought, 0 left"}, "dlq", "replay", "-integration", "one", "-reason", "bad")
	if got := s.got("one"); !strings.Contains(got, first.ID) || strings.Contains(got, second.ID) || s.got("two") != "" {
		t.Errorf("got %s and for two %s, want the first letter for one alone", got, s.got("two"))
	}
	if got := list(); len(got) != 2 {
		t.Errorf("got %d letters, want two left", len(got))
	}
	s.want(exitOK, []string{`"one": 1`, `"two": 1`, `"left": 0`}, "dlq", "replay", "-json", "-all")
	if got := s.got("two"); !strings.Contains(got, third.ID) {
		t.Errorf("got %s, want the third letter", got)
	}
	s.want(exitOK, []string{"there are no such dead letters"}, "dlq", "list")
}

func TestFilter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	k := deadletter.Kept{Letter: deadletter.Letter{Integration: "one", Reason: "HTTP 422: Bad field"}, Time: now.Add(-time.Hour)}
	for _, tt := range []struct {
		args []string
		want bool
	}{
		{nil, true}, {[]string{"-integration", "one"}, true}, {[]string{"-integration", "on"}, false}, {[]string{"-reason", "BAD"}, true},
		{[]string{"-reason", "good"}, false}, {[]string{"-reason", "bad", "-integration", "two"}, false}, {[]string{"-since", "1h"}, true},
		{[]string{"-since", "59m"}, false}, {[]string{"-until", "1h"}, false}, {[]string{"-until", "2026-11-22T09:00:01Z"}, true},
		{[]string{"-since", "2h", "-until", "30m"}, true},
	} {
		var b box
		f := new(control).flags("", "")
		b.filters(f, now)
		if err := f.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		if got := b.match(&k); got != tt.want {
			t.Errorf("%q: got %t, want %t", tt.args, got, tt.want)
		}
	}
}

// TestReplayIsIdempotent: a letter of which the answer was lost stays, and is brought again as the same message. An alert
// arrives once.
func TestReplayIsIdempotent(t *testing.T) {
	s := newSite(t)
	a := eventtest.Alert()
	s.letter("one", "alerts", "HTTP 400", func(l *deadletter.Letter) {
		l.Message = envelope.SealAlert(a, envelope.Source{AgentID: "c/n"}, time.Now())
	})
	s.set(200, true)
	s.want(exitUnwell, []string{"was not accepted", "0 letters brought, 1 left"}, "dlq", "replay", "-all")
	s.set(200, false)
	s.want(exitOK, []string{"1 letters brought"}, "dlq", "replay", "-all")
	if n := strings.Count(s.got("one"), `"fingerprint"`); n != 1 {
		t.Errorf("the alert arrived %d times, want once", n)
	}
	if len(s.pushes) != 2 || s.pushes[0] != s.pushes[1] {
		t.Errorf("got pushes %q, want the same one twice", s.pushes)
	}
}

// TestReplayInVain: what is refused again is not brought in a circle, what cannot be brought stays, and a receiver that is
// not well is left alone.
func TestReplayInVain(t *testing.T) {
	s := newSite(t)
	s.letter("one", "events", "HTTP 422")
	s.set(422, false)
	s.want(exitOK, []string{"1 letters brought"}, "dlq", "replay", "-all") // and it is a new letter
	s.want(exitOK, []string{"422"}, "dlq", "list", "-integration", "one")
	s.set(503, false)
	for range 5 {
		s.letter("two", "events", "HTTP 503")
	}
	s.letter("", "events", "nobody's")
	s.letter("nobody", "events", "HTTP 404")
	before := len(s.pushes)
	s.want(exitUnwell, []string{"the rest for two is left", "does not say where it was to go", "nobody: 1 brought"}, "dlq", "replay", "-since", "1h", "-reason", "")
	if n := len(s.pushes) - before; n < 3+1 || n > 3+1+1 { // three for two, one for nobody, and one for one
		t.Errorf("got %d pushes", n)
	}
}

// TestReplayOfTheirs: Pub/Sub's own policy gives messages up with attributes of its own.
func TestReplayOfTheirs(t *testing.T) {
	s := newSite(t)
	e := s.letter("", "", "", func(l *deadletter.Letter) {
		l.Message.Attributes["CloudPubSubDeadLetterSourceSubscription"] = "apss-events-two"
		l.Message.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = "100"
	})
	s.want(exitOK, []string{"gave it up after 100 deliveries"}, "dlq", "list", "-integration", "two")
	s.want(exitOK, []string{"two: 1 brought"}, "dlq", "replay", "-integration", "two")
	if !strings.Contains(s.got("two"), e.ID) {
		t.Error("the event did not arrive")
	}
}

func TestUsage(t *testing.T) {
	s := &site{T: t, env: map[string]string{}}
	for _, tt := range []struct {
		args []string
		code int
		say  string
	}{
		{nil, exitUsage, "say what to do"},
		{[]string{"-help"}, exitOK, "Exit codes"},
		{[]string{"-version"}, exitOK, "dev"},
		{[]string{"dlq"}, exitUsage, "list, show or replay"},
		{[]string{"config"}, exitUsage, "check"},
		{[]string{"dlq", "-help"}, exitOK, "apssctl dlq replay"},
		{[]string{"cost", "-help"}, exitOK, "-per-cpu-second"},
		{[]string{"dlq", "empty"}, exitUsage, `no use "dlq empty"`},
		{[]string{"status", "x"}, exitUsage, "want 0"},
		{[]string{"status", "-josn"}, exitUsage, "josn"},
		{[]string{"status", "-help"}, exitOK, "-check"},
		{[]string{"dlq", "list", "-since", "yesterday"}, exitUsage, "how long ago"},
		{[]string{"dlq", "list", "-limit", "0"}, exitUsage, "want 1 to 10000"},
		{[]string{"dlq", "list"}, exitUsage, "PUBSUB_PROJECT_ID"},
		{[]string{"test"}, exitUsage, "want 1"},
		{[]string{"cost", "missing.ndjson"}, exitUsage, "missing.ndjson"},
		{[]string{"config", "check", "missing.yaml"}, exitUsage, "missing.yaml"},
	} {
		s.want(tt.code, []string{tt.say}, tt.args...)
	}
	s.env["APSS_URL"] = "localhost"
	s.want(exitUsage, []string{"APSS_URL is no http"}, "status")
}

func TestConfigCheck(t *testing.T) {
	s := &site{T: t, env: map[string]string{}}
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "integrations.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := file("- {name: a, kind: sweetsecurity, enabled: true, endpoint: 'https://a.example', api_key: 'env://KEY'}\n- {kind: sweetsecurity}\n")
	bad := file("- {kind: sweetsecurity, enabled: true, endpont: x, api_key: hunter2}\n")
	s.want(exitOK, []string{"2 integrations, 1 of them enabled, no fault"}, "config", "check", good)
	out := s.want(exitUnwell, []string{"did you mean endpoint?", "a secret is written here"}, "config", "check", bad)
	if strings.Contains(out, "hunter2") {
		t.Errorf("it tells the secret:\n%s", out)
	}
	s.want(exitUnwell, []string{`"faults": [`, "did you mean endpoint?", `"integrations": null`}, "config", "check", "-json", bad)
	s.want(exitOK, []string{`"enabled": 1`, `"name": "a"`, `"faults": []`}, "config", "check", "-json", good)
	s.want(exitOK, []string{"no integration is enabled"}, "config", "check", file(""))
	for name, text := range map[string]string{
		"escapes": "- {name: \"a\\e[2Jb\", kind: \"sl\\x1b[31mack\", enabled: true}\n", "bytes": "\xfe\xff\x00", "too long": strings.Repeat("#", 1<<19),
		"no list": "kind: slack", "an alias": "- &a {kind: slack}\n- *a\n", "deep": strings.Repeat("[", 100_000),
	} {
		if out := s.want(exitUnwell, nil, "config", "check", file(text)); strings.ContainsRune(out, 0x1b) || out == "" {
			t.Errorf("%s: got %q, want what is wrong, without an escape sequence", name, out)
		}
	}
	s.want(exitOK, nil, "config", "check", "-local", file("- {kind: sweetsecurity, enabled: true, endpoint: 'https://a.example', api_key: hunter2}\n"))
}

func TestCost(t *testing.T) {
	s := &site{T: t, env: map[string]string{}}
	var events []byte
	for _, e := range eventtest.Many(1000, 1) {
		events = append(e.AppendJSON(events), '\n')
	}
	name := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(name, events, 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(exitOK, []string{"measured: 1000 events", "in 10 envelopes", "Pub/Sub, publishing", "a million events", "2026-11"}, "cost", name)
	s.want(exitOK, []string{`"events": 1000`, `"prices_as_of": "2026-11-22"`, `"total": `, "cloud.google.com/run/pricing"}, "cost", "-json", name)
	s.want(exitOK, []string{"in 1000 envelopes"}, "cost", "-batch", "1", name)
	s.want(exitOK, []string{"cloud.google.com/pubsub/pricing"}, "cost", "-print-prices")
	s.want(exitUsage, []string{"out of its range"}, "cost", "-batch", "0", name)

	p, err := readPrices("")
	if err != nil {
		t.Fatal(err)
	}
	// By hand: 10 envelopes of 5 kB for 1,000 events, two integrations.
	got := bill(sample{events: 1000, envelopes: 10, raw: 1 << 20, published: 50_000}, traffic{integrations: 2, perCPUSecond: 100_000, memory: 0.5, outside: true}, p)
	for i, want := range []float64{50e6 / tib * 40, 100e6 / tib * 40, 0.02 * 0.40, 20 * 0.000024, 10 * 0.0000025, 2000 * (1 << 20) / float64(gib) * 0.12} {
		if diff := got[i].usd - want; diff > 1e-12 || diff < -1e-12 {
			t.Errorf("%s: got %v, want %v", got[i].what, got[i].usd, want)
		}
	}
	bad := filepath.Join(t.TempDir(), "prices.json")
	if err := os.WriteFile(bad, []byte(`{"pubsub_per_tib":{"price":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(exitUsage, []string{"its source"}, "cost", "-prices", bad, name)
}
