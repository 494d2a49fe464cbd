package envelope_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

func pushed(contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/events/sweet", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

func TestWrappedPushes(t *testing.T) {
	const at = `"2026-11-22T12:00:00.123456789Z"`
	for _, tt := range []struct {
		name, contentType, body string
		want                    envelope.Push
	}{
		{"camel case", "application/json", `{"message":{"data":"e30=","messageId":"17","publishTime":` + at + `},"subscription":"projects/p/subscriptions/s"}`,
			envelope.Push{Message: envelope.Message{Data: []byte("{}")}, ID: "17", Subscription: "projects/p/subscriptions/s", PublishTime: noon}},
		{"snake case", "application/json; charset=utf-8", `{"message":{"data":"e30=","message_id":"17","publish_time":` + at + `},"subscription":"s"}`,
			envelope.Push{Message: envelope.Message{Data: []byte("{}")}, ID: "17", Subscription: "s", PublishTime: noon}},
		{"both, with an attempt", "", `{"deliveryAttempt":5,"message":{"attributes":{"a":"b","ü":""},"data":"e30=","messageId":"17","message_id":"17","orderingKey":"k","publishTime":` + at + `,"publish_time":` + at + `},"subscription":"s"}`,
			envelope.Push{Message: envelope.Message{Data: []byte("{}"), Attributes: map[string]string{"a": "b", "ü": ""}}, ID: "17", Subscription: "s", OrderingKey: "k", PublishTime: noon, DeliveryAttempt: 5}},
		{"attributes only", "application/json", `{"message":{"attributes":{"a":"b"},"messageId":"17"},"subscription":"s"}`,
			envelope.Push{Message: envelope.Message{Attributes: map[string]string{"a": "b"}}, ID: "17", Subscription: "s"}},
		{"nulls", "application/json", `{"message":{"data":null,"attributes":null,"messageId":"17","publishTime":""},"subscription":"s","deliveryAttempt":null}`,
			envelope.Push{ID: "17", Subscription: "s", Message: envelope.Message{}}},
		{"unknown members", "application/json", `{"new":[1],"message":{"new":{"x":1},"data":"e30=","messageId":"17"}}`,
			envelope.Push{Message: envelope.Message{Data: []byte("{}")}, ID: "17"}},
	} {
		got, err := envelope.ReadPush(pushed(tt.contentType, tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestUnwrappedPush(t *testing.T) {
	m := seal(newEvent("shop", event.Low))
	m.Attributes["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r := httptest.NewRequest(http.MethodPost, "/events/sweet", bytes.NewReader(m.Data))
	for name, value := range m.Attributes {
		r.Header.Set(name, value)
	}
	r.Header.Set("x-goog-pubsub-message-id", "17")
	r.Header.Set("x-goog-pubsub-subscription-name", "projects/p/subscriptions/s")
	r.Header.Set("x-goog-pubsub-publish-time", "2026-11-22T12:00:00.123456789Z")
	r.Header.Set("x-goog-pubsub-ordering-key", "k")
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set("User-Agent", "APIs-Google")
	r.Header.Set("X-Forwarded-For", "1.2.3.4")
	got, err := envelope.ReadPush(r)
	if err != nil {
		t.Fatal(err)
	}
	want := envelope.Push{Message: m, ID: "17", Subscription: "projects/p/subscriptions/s", OrderingKey: "k", PublishTime: noon}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("push (-want +got):\n%s", diff)
	}
	if events, err := got.Events(nil); err != nil || len(events) != 1 {
		t.Errorf("got %d events and error %v, want one", len(events), err)
	}
	r = httptest.NewRequest(http.MethodPost, "/events/sweet", bytes.NewReader(m.Data))
	r.Header.Set("x-goog-pubsub-message-id", "17")
	r.Header.Set("x-goog-pubsub-publish-time", "noon")
	if _, err := envelope.ReadPush(r); !errors.Is(err, envelope.ErrPushBody) {
		t.Errorf("publish time: got %v, want %v", err, envelope.ErrPushBody)
	}
}

func TestRefusedPushes(t *testing.T) {
	chunked := pushed("application/json", "")
	chunked.Body = io.NopCloser(io.LimitReader(zeroReader{}, envelope.MaxPush+2))
	chunked.ContentLength = -1
	announced := pushed("application/json", "")
	announced.ContentLength = envelope.MaxPush + 1
	cut := pushed("application/json", "")
	cut.Body = io.NopCloser(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(`{"message":{}}`))))
	get := pushed("application/json", "{}")
	get.Method = http.MethodGet
	for _, tt := range []struct {
		name   string
		r      *http.Request
		want   error
		status int
		text   string
	}{
		{"GET", get, envelope.ErrPushMethod, 405, "GET"},
		{"text", pushed("text/plain", "{}"), envelope.ErrPushType, 415, "text/plain"},
		{"unwrapped without metadata", pushed("application/x-ndjson", "{}\n"), envelope.ErrPushType, 415, "write_metadata"},
		{"no media type", pushed(";;", "{}"), envelope.ErrPushType, 415, ";;"},
		{"empty", pushed("application/json", ""), envelope.ErrPushBody, 400, ""},
		{"not JSON", pushed("application/json", "hello"), envelope.ErrPushBody, 400, ""},
		{"array", pushed("application/json", "[]"), envelope.ErrPushBody, 400, ""},
		{"null", pushed("application/json", "null"), envelope.ErrPushBody, 400, "no message"},
		{"no message", pushed("application/json", `{"subscription":"s"}`), envelope.ErrPushBody, 400, "no message"},
		{"message is text", pushed("application/json", `{"message":"x"}`), envelope.ErrPushBody, 400, ""},
		{"data is not base64", pushed("application/json", `{"message":{"data":"***"}}`), envelope.ErrPushBody, 400, "base64"},
		{"attribute is a number", pushed("application/json", `{"message":{"attributes":{"a":1}}}`), envelope.ErrPushBody, 400, "attributes"},
		{"two messages", pushed("application/json", `{"message":{},"message":{}}`), envelope.ErrPushBody, 400, "duplicate"},
		{"more behind it", pushed("application/json", `{"message":{}}{}`), envelope.ErrPushBody, 400, ""},
		{"publish time", pushed("application/json", `{"message":{"publishTime":"noon"}}`), envelope.ErrPushBody, 400, `"noon"`},
		{"too large, announced", announced, envelope.ErrPushTooLarge, 413, "15728641"},
		{"too large, chunked", chunked, envelope.ErrPushTooLarge, 413, "15728640"},
		{"cut off", cut, envelope.ErrPushRead, 400, "timeout"},
	} {
		got, err := envelope.ReadPush(tt.r)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
		if got := envelope.PushStatus(err); got != tt.status {
			t.Errorf("%s: got status %d, want %d", tt.name, got, tt.status)
		}
		if diff := cmp.Diff(envelope.Push{}, got); diff != "" {
			t.Errorf("%s: got a push besides the error (-want +got):\n%s", tt.name, diff)
		}
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }

// The largest message that Pub/Sub takes must pass, and a claimed length must not be allocated before it is sent.
func TestLargePushes(t *testing.T) {
	m := envelope.Message{Data: bytes.Repeat([]byte("x"), 10_000_000), Attributes: map[string]string{}}
	for i := range 100 {
		m.Attributes[strings.Repeat("k", 250)+string(rune('a'+i/26))+string(rune('a'+i%26))] = strings.Repeat("\x01", 1024)
	}
	if got, err := envelope.ReadPush(pushed("application/json", string(wrap(t, m)))); err != nil || len(got.Data) != len(m.Data) || len(got.Attributes) != 100 {
		t.Errorf("got %d bytes, %d attributes and error %v, want %d bytes and 100", len(got.Data), len(got.Attributes), err, len(m.Data))
	}
	claimed := pushed("application/json", "{")
	claimed.ContentLength = envelope.MaxPush
	allocated, err := measure(func() error {
		_, err := envelope.ReadPush(claimed)
		return err
	})
	if err == nil || allocated > 2<<20 {
		t.Errorf("a claimed length: got error %v and %d bytes allocated, want an error and less than 2 MiB", err, allocated)
	}
}

func TestPushesShareNoMemory(t *testing.T) {
	first, err := envelope.ReadPush(pushed("application/json", `{"message":{"data":"Zmlyc3Q=","messageId":"first"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := envelope.ReadPush(pushed("application/json", `{"message":{"data":"b3RoZXI=","messageId":"other"}}`)); err != nil {
			t.Fatal(err)
		}
	}
	if string(first.Data) != "first" || first.ID != "first" {
		t.Errorf("got data %q and id %q, want first", first.Data, first.ID)
	}
}

func FuzzReadPush(f *testing.F) {
	f.Add([]byte(`{"message":{"data":"e30=","messageId":"17"},"subscription":"s"}`), false)
	f.Add([]byte(`{}`), true)
	f.Fuzz(func(t *testing.T, body []byte, unwrapped bool) {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		if unwrapped {
			r.Header.Set("x-goog-pubsub-message-id", "17")
		}
		p, err := envelope.ReadPush(r)
		switch {
		case err != nil && !errors.Is(err, envelope.ErrPushBody):
			t.Errorf("got %v, want %v", err, envelope.ErrPushBody)
		case unwrapped && (err != nil || !bytes.Equal(p.Data, body)):
			t.Errorf("got data %q and error %v, want %q", p.Data, err, body)
		case err == nil && len(p.Data) > len(body):
			t.Errorf("got %d bytes of data from a body of %d", len(p.Data), len(body))
		}
	})
}
