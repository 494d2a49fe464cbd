package dispatch

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBody(t *testing.T) {
	m := Message{
		ID: "2070443601311540", Data: []byte("Hello Cloud Pub/Sub! Here is my message!"), OrderingKey: "key",
		Attributes: map[string]string{"key": "value <&>\u2028"}, PublishTime: time.Date(2021, 2, 26, 19, 13, 55, 749e6, time.UTC),
	}
	tests := []struct {
		name    string
		sub     Subscription
		message Message
		want    string
	}{
		{
			"everything", Subscription{Name: "projects/myproject/subscriptions/mysubscription", DeadLetterTopic: "t"}, m,
			`{"deliveryAttempt":5,"message":{"attributes":{"key":"value <&>\u2028"},
			"data":"SGVsbG8gQ2xvdWQgUHViL1N1YiEgSGVyZSBpcyBteSBtZXNzYWdlIQ==","messageId":"2070443601311540",
			"message_id":"2070443601311540","orderingKey":"key","publishTime":"2021-02-26T19:13:55.749Z",
			"publish_time":"2021-02-26T19:13:55.749Z"},"subscription":"projects/myproject/subscriptions/mysubscription"}`,
		},
		{
			"the least", Subscription{Name: "s"}, Message{ID: "1", Data: []byte("x"), PublishTime: m.PublishTime},
			`{"message":{"data":"eA==","messageId":"1","message_id":"1","publishTime":"2021-02-26T19:13:55.749Z",
			"publish_time":"2021-02-26T19:13:55.749Z"},"subscription":"s"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.sub.body(tt.message, 5)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decode(t, tt.want), decode(t, string(got))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func decode(t *testing.T, s string) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return v
}

// TestPushOverHTTP is about what a transport adds: statuses that net/http hides, redirects, connections used again.
func TestPushOverHTTP(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/processing":
			w.WriteHeader(http.StatusProcessing)
			<-r.Context().Done() // the acknowledgement was the 102; no more comes
		case "/hints":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusInternalServerError)
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
		case "/hang":
			<-r.Context().Done()
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}
	}
	server := httptest.NewServer(http.HandlerFunc(handler))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	tests := []struct {
		endpoint string
		want     verdict
		reason   string
	}{
		{server.URL + "/ok", acked, ""},
		{server.URL + "/processing", acked, ""},
		{server.URL + "/endless", acked, ""},
		{server.URL + "/hints", failed, "HTTP status 500"},
		{server.URL + "/redirect", failed, "HTTP status 307"},
		{server.URL + "/hang", expired, "no answer within the ack deadline of 300ms"},
		{"http://127.0.0.1:1/", failed, "connection refused"},
		{"http://[", failed, "missing"},
	}
	for _, tt := range tests {
		t.Run(tt.endpoint, func(t *testing.T) {
			sub := Subscription{Name: "s", Endpoint: tt.endpoint, AckDeadline: time.Minute}
			if tt.want == expired {
				sub.AckDeadline = 300 * time.Millisecond
			}
			got, reason := sub.push(t.Context(), transport, Message{Data: []byte("x")}, 1)
			if got != tt.want || !strings.Contains(reason, tt.reason) {
				t.Errorf("got verdict %d, %q; want %d, %q", got, reason, tt.want, tt.reason)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	good := Subscription{
		Name: "projects/p/subscriptions/s", Endpoint: "http://127.0.0.1:8080/events/x", AckDeadline: 60 * time.Second,
		MinBackoff: time.Second, MaxBackoff: 600 * time.Second, DeadLetterTopic: "projects/p/topics/d", MaxDeliveryAttempts: 5,
	}
	if err := good.Validate(); err != nil {
		t.Errorf("got %v for a good one", err)
	}
	bad := Subscription{
		Name: "s", Endpoint: "ftp://x", AckDeadline: 9 * time.Second, MinBackoff: 700 * time.Second, MaxBackoff: -1,
		Filter: "x", DeadLetterTopic: "d", MaxDeliveryAttempts: 4,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("got no error")
	}
	for _, part := range []string{"subscription name", "endpoint", "ack deadline 9s", "minimum backoff 11m40s: must",
		"maximum backoff", "is more than", `filter "x"`, "4 delivery attempts"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %q, want %q in it", err, part)
		}
	}
}
