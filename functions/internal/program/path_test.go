package program

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// house is the whole program between an embedded Pub/Sub and a receiver.
type house struct {
	*Program
	pubsub *pstest.Server
}

func newHouse(t *testing.T, receiver http.HandlerFunc, env ...string) *house {
	t.Helper()
	return newHouseOf(t, ours(), receiver, env...)
}

func newHouseOf(t *testing.T, with parts, receiver http.HandlerFunc, env ...string) *house {
	t.Helper()
	ps := pstest.NewServer()
	t.Cleanup(func() { _ = ps.Close() })
	t.Setenv("PUBSUB_EMULATOR_HOST", ps.Addr)
	client, err := pubsub.NewClient(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/apss-dead-letters"}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(receiver)
	t.Cleanup(server.Close)
	t.Setenv("APSS_TEST_RECEIVER", server.URL)
	p, err := build(t.Context(), append([]string{
		"PUBSUB_PROJECT_ID=p", "SWEET_SECURITY_API_KEY=the-key", "SWEET_SECURITY_ENDPOINT=" + server.URL, "FORWARD_LINGER=5ms", "HEALTH_CANARY_EVERY=0s",
	}, env...), "test", io.Discard, nil, with)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return &house{p, ps}
}

// push delivers a message as Pub/Sub would, and returns the answer.
func (h *house) push(t *testing.T, id string, m envelope.Message) *httptest.ResponseRecorder {
	t.Helper()
	return h.pushTo(t, "/events/sweetsecurity", id, m)
}

func (h *house) pushTo(t *testing.T, path, id string, m envelope.Message) *httptest.ResponseRecorder {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"subscription": "projects/p/subscriptions/s", "deliveryAttempt": 2,
		"message": map[string]any{"data": base64.StdEncoding.EncodeToString(m.Data), "attributes": m.Attributes, "messageId": id},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body))))
	return w
}

func seal(events ...*event.Event) envelope.Message {
	var b envelope.Batch
	for _, e := range events {
		b.Append(e)
	}
	return b.Seal(envelope.Source{AgentID: "c1/n1", Cluster: "c1"}, eventtest.Time())
}

// dead lists the ids of dead-lettered events and what the letters say, without their times.
func (h *house) dead(t *testing.T) (ids []string, attributes []map[string]string) {
	t.Helper()
	for _, m := range h.pubsub.Messages() {
		own := map[string]string{}
		for k, v := range m.Attributes {
			if strings.HasPrefix(k, "apss-") && k != "apss-time" {
				own[k] = v
			}
		}
		attributes = append(attributes, own)
		events, err := envelope.Message{Data: m.Data, Attributes: m.Attributes}.Events(nil)
		if err != nil {
			continue
		}
		for _, e := range events {
			id, err := e.ID()
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, attributes
}

func TestPath(t *testing.T) {
	events := eventtest.Many(20, 1)
	bad := events[7].ID
	status := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code) }
	}
	later := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.Header().Set("Retry-After", "9"); w.WriteHeader(code) }
	}
	// answer is what the receiver says to a batch with the bad event in it.
	tests := []struct {
		name       string
		answer     func(http.ResponseWriter)
		always     bool // to batches without it, too
		status     int
		retryAfter bool
		dead       bool
		receiver   string // apss-receiver-status
	}{
		{"200", func(http.ResponseWriter) {}, false, 204, false, false, ""},
		{"207 partial", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusMultiStatus)
			fmt.Fprintf(w, `{"rejected":[{"id":%q,"reason":"no"}]}`, bad)
		}, false, 204, false, true, "207"},
		{"200 errors", func(w http.ResponseWriter) { fmt.Fprintf(w, `{"errors":[{"id":%q,"message":"no"}]}`, bad) }, false, 204, false, true, "200"},
		{"200 garbage", func(w http.ResponseWriter) { fmt.Fprint(w, `<html>`) }, true, 204, false, false, ""},
		{"400", status(400), false, 204, false, true, "400"},
		{"413", status(413), false, 204, false, true, "413"},
		{"422", status(422), false, 204, false, true, "422"},
		{"401", status(401), true, 503, false, false, ""},
		{"403", status(403), true, 503, false, false, ""},
		{"404", status(404), true, 503, false, false, ""},
		{"302", func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) }, true, 503, false, false, ""},
		{"429", status(429), true, 429, true, false, ""},
		{"429 later", later(429), true, 429, true, false, ""},
		{"500", status(500), true, 503, false, false, ""},
		{"503 later", later(503), true, 503, true, false, ""},
		{"cut", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, true, 503, false, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, func(w http.ResponseWriter, r *http.Request) {
				if body, _ := io.ReadAll(r.Body); tt.always || strings.Contains(string(body), bad) {
					tt.answer(w)
				}
			})
			w := h.push(t, "17", seal(events...))
			if w.Code != tt.status || (w.Header().Get("Retry-After") != "") != tt.retryAfter {
				t.Errorf("got %d, Retry-After %q, want %d, some: %t", w.Code, w.Header().Get("Retry-After"), tt.status, tt.retryAfter)
			}
			ids, letters := h.dead(t)
			if !tt.dead {
				if len(letters) > 0 {
					t.Errorf("got dead letters %v, want none", letters)
				}
				return
			}
			if diff := cmp.Diff([]string{bad}, ids); diff != "" {
				t.Errorf("dead events (-want +got):\n%s", diff)
			}
			for _, l := range letters {
				if l["apss-reason"] == "" {
					t.Error("the letter says no reason")
				}
				delete(l, "apss-reason")
			}
			want := []map[string]string{{"apss-integration": "sweetsecurity", "apss-topic": "events", "apss-subscription": "projects/p/subscriptions/s",
				"apss-message-id": "17", "apss-delivery-attempt": "2", "apss-receiver-status": tt.receiver}}
			if diff := cmp.Diff(want, letters); diff != "" {
				t.Errorf("letters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHangingReceiver(t *testing.T) {
	done := make(chan struct{})
	h := newHouse(t, func(http.ResponseWriter, *http.Request) { <-done }, "FORWARD_CALL_TIMEOUT=100ms")
	defer close(done)
	if w := h.push(t, "1", seal(eventtest.Exec())); w.Code != 503 {
		t.Errorf("got %d, want 503", w.Code)
	}
}

// TestNoPlaceForDeadLetters: nothing is acknowledged that is not safe.
func TestNoPlaceForDeadLetters(t *testing.T) {
	h := newHouse(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) }, "DEAD_LETTERS_TOPIC=missing", "DEAD_LETTERS_TIMEOUT=1s")
	begin := time.Now()
	if w := h.push(t, "1", seal(eventtest.Exec())); w.Code != 503 {
		t.Errorf("got %d, want 503", w.Code)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestUnopenablePush(t *testing.T) {
	h := newHouse(t, func(http.ResponseWriter, *http.Request) { t.Error("the receiver was called") })
	m := envelope.Message{Data: []byte("junk"), Attributes: map[string]string{"ce-type": envelope.TypeEvents, "content-encoding": "zstd"}}
	if w := h.push(t, "1", m); w.Code != 204 {
		t.Errorf("got %d, want 204", w.Code)
	}
	_, letters := h.dead(t)
	if len(letters) != 1 || !strings.Contains(letters[0]["apss-reason"], "corrupt") || string(h.pubsub.Messages()[0].Data) != "junk" {
		t.Errorf("got letters %v, want the message as it came and why", letters)
	}
}
