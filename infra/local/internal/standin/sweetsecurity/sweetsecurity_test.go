package sweetsecurity

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/shared/event"
)

type record struct{ events, alerts []string }

func newServer(t *testing.T, idempotent bool) (*Server, *record, string) {
	t.Helper()
	var got record
	s := New(Options{
		Key:        "key",
		Idempotent: idempotent,
		Events: func(events []event.Raw, _ time.Time) {
			for _, e := range events {
				got.events = append(got.events, string(e))
			}
		},
		Alerts: func(a event.Raw, _ time.Time) { got.alerts = append(got.alerts, string(a)) },
	})
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, &got, h.URL
}

func send(t *testing.T, method, url, body string, header ...string) (int, string, http.Header, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

func TestEndpoints(t *testing.T) {
	tests := []struct {
		name         string
		method, path string
		body         string
		header       []string
		faults       standin.Faults
		status       int
		answer       string
		want         record
	}{
		{name: "health", method: "GET", path: "/health", status: 200, answer: `{"status":"ok"}`},
		{
			name: "batch", method: "POST", path: "/api/v1/events/batch", body: ` {"source":{"a":[1]},"events": [ {"id":"a"} , {"id":"b","x":[{}]}]}`,
			status: 200, answer: `{"accepted":2}`, want: record{events: []string{`{"id":"a"}`, `{"id":"b","x":[{}]}`}},
		},
		{name: "empty batch", method: "POST", path: "/api/v1/events/batch", body: `{"events":[]}`, status: 200, answer: `{"accepted":0}`},
		{
			name: "one event", method: "POST", path: "/api/v1/events", body: `{"id":"a"}`,
			status: 200, answer: `{"accepted":1}`, want: record{events: []string{`{"id":"a"}`}},
		},
		{
			name: "alert", method: "POST", path: "/api/v1/alerts", body: `{"id":"a"}`,
			status: 200, answer: `{"accepted":1}`, want: record{alerts: []string{`{"id":"a"}`}},
		},
		{name: "no key", method: "GET", path: "/health", header: []string{"Authorization", ""}, status: 401, answer: `{"error":"unauthorized"}`},
		{name: "wrong key", method: "POST", path: "/api/v1/events", body: `{}`, header: []string{"Authorization", "Bearer keyy"}, status: 401, answer: `{"error":"unauthorized"}`},
		{name: "not a batch", method: "POST", path: "/api/v1/events/batch", body: `[{"id":"a"}]`, status: 400, answer: `{"error":"the body is not {\"events\":[...]}"}`},
		{name: "a batch of no objects", method: "POST", path: "/api/v1/events/batch", body: `{"events":[1]}`, status: 400, answer: `{"error":"the body is not {\"events\":[...]}"}`},
		{name: "a batch with a tail", method: "POST", path: "/api/v1/events/batch", body: `{"events":[]}{}`, status: 400, answer: `{"error":"the body is not {\"events\":[...]}"}`},
		{name: "half an event", method: "POST", path: "/api/v1/events", body: `{"id":`, status: 400, answer: `{"error":"the body is not a JSON object"}`},
		{name: "another path", method: "POST", path: "/api/v2/events", status: 404, answer: "404 page not found\n"},
		{name: "another method", method: "PUT", path: "/api/v1/events", status: 405, answer: "Method Not Allowed\n"},
		{
			name: "fault: status", method: "POST", path: "/api/v1/events", body: `{"id":"a"}`,
			faults: standin.Faults{Status: 503}, status: 503, answer: `{"error":"fault switch"}`,
		},
		{
			name: "fault: refused in the list", method: "POST", path: "/api/v1/events/batch", body: `{"events":[{"id":"a"},{"id":"bad"},{"id":"b"}]}`,
			faults: standin.Faults{Refuse: "bad"}, status: 200,
			answer: `{"accepted":2,"rejected":[{"id":"bad","reason":"refused by the fault switch: contains bad"}]}`,
			want:   record{events: []string{`{"id":"a"}`, `{"id":"b"}`}},
		},
		{
			name: "fault: refused as a whole", method: "POST", path: "/api/v1/events/batch", body: `{"events":[{"id":"a"},{"id":"bad"}]}`,
			faults: standin.Faults{Refuse: "bad", RefuseWith: 422}, status: 422, answer: `{"error":"refused by the fault switch: contains bad"}`,
		},
		{
			name: "fault: another one passes", method: "POST", path: "/api/v1/events", body: `{"id":"a"}`,
			faults: standin.Faults{Refuse: "bad", RefuseWith: 422}, status: 200, answer: `{"accepted":1}`, want: record{events: []string{`{"id":"a"}`}},
		},
		{
			name: "fault: garbage", method: "POST", path: "/api/v1/events", body: `{"id":"a"}`,
			faults: standin.Faults{Garbage: true}, status: 200, answer: "\x00\xff<html>{\"rejected\":[{", want: record{events: []string{`{"id":"a"}`}},
		},
		{
			name: "fault: too large", method: "POST", path: "/api/v1/events", body: `{"id":"a"}`,
			faults: standin.Faults{MaxBytes: 9}, status: 413, answer: `{"error":"more than 9 bytes"}`,
		},
		{
			name: "fault: alert refused", method: "POST", path: "/api/v1/alerts", body: `{"id":"bad"}`,
			faults: standin.Faults{Refuse: "bad"}, status: 422, answer: `{"error":"refused by the fault switch: contains bad"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, got, url := newServer(t, false)
			s.Set(tt.faults)
			status, body, _, err := send(t, tt.method, url+tt.path, tt.body, tt.header...)
			if err != nil {
				t.Fatal(err)
			}
			if status != tt.status || body != tt.answer {
				t.Errorf("got %d %s\nwant %d %s", status, body, tt.status, tt.answer)
			}
			if diff := cmp.Diff(tt.want, *got, cmp.AllowUnexported(record{})); diff != "" {
				t.Errorf("recorded (-want +got):\n%s", diff)
			}
			if st := s.Stats(); st.Events != int64(len(tt.want.events)) || st.Alerts != int64(len(tt.want.alerts)) {
				t.Errorf("got stats %+v, want %d events and %d alerts", st, len(tt.want.events), len(tt.want.alerts))
			}
		})
	}
}

func TestConnectionsThatBreak(t *testing.T) {
	s, got, url := newServer(t, false)
	s.Set(standin.Faults{Cut: true})
	if status, _, _, err := send(t, "POST", url+"/api/v1/events", `{"id":"a"}`); err == nil {
		t.Errorf("got status %d, want a cut connection", status)
	}
	s.Set(standin.Faults{Tear: true})
	if status, body, _, err := send(t, "POST", url+"/api/v1/events", `{"id":"torn"}`); err == nil {
		t.Errorf("got %d %s, want a torn answer", status, body)
	}
	if len(got.events) != 1 {
		t.Errorf("got %v recorded, want the event whose answer was torn", got.events)
	}
	got.events = nil
	s.SetKey("another")
	if status, _, _, err := send(t, "POST", url+"/api/v1/events", `{"id":"a"}`); status != http.StatusUnauthorized || err != nil {
		t.Errorf("with the old key: got %d, %v; want 401", status, err)
	}
	s.Set(standin.Faults{Hang: true})
	client := http.Client{Timeout: 50 * time.Millisecond}
	if resp, err := client.Post(url+"/api/v1/events", "", strings.NewReader(`{}`)); err == nil {
		_ = resp.Body.Close()
		t.Errorf("got status %d, want no answer", resp.StatusCode)
	}
	if len(got.events) != 0 {
		t.Errorf("got %v recorded", got.events)
	}
}

func TestSwitchesOverHTTP(t *testing.T) {
	s, _, url := newServer(t, false)
	for _, bad := range []string{`{"status":200}`, `{"latency":"-1s"}`, `{"statsu":503}`, `nonsense`, `{"refuse_with":422}`, `{"refuse":"x","refuse_with":200}`, `{"max_bytes":-1}`} {
		if status, body, _, err := send(t, "POST", url+"/_faults", bad); status != 400 || err != nil {
			t.Errorf("%s: got %d %s %v, want 400", bad, status, body, err)
		}
	}
	status, body, _, err := send(t, "POST", url+"/_faults", `{"status":429,"retry_after":"5"}`, "Authorization", "")
	if want := `{"status":429,"retry_after":"5"}` + "\n"; status != 200 || body != want || err != nil {
		t.Errorf("got %d %s %v, want %s", status, body, err, want)
	}
	status, _, header, err := send(t, "GET", url+"/health", "")
	if status != 429 || header.Get("Retry-After") != "5" || err != nil {
		t.Errorf("got %d, Retry-After %q, %v; want 429 and 5", status, header.Get("Retry-After"), err)
	}
	if status, body, _, err := send(t, "DELETE", url+"/_faults", ""); status != 200 || body != "{}\n" || err != nil {
		t.Errorf("got %d %s %v, want none left", status, body, err)
	}
	if got := s.Faults(); got != (standin.Faults{}) {
		t.Errorf("got %+v, want none", got)
	}
}

func TestFaultsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		s.Set(standin.Faults{Status: 503, For: standin.Duration(6 * time.Second)})
		time.Sleep(5 * time.Second)
		if got, want := s.Faults(), (standin.Faults{Status: 503, For: standin.Duration(time.Second)}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		time.Sleep(time.Second)
		if got := s.Faults(); got != (standin.Faults{}) {
			t.Errorf("got %+v after their time, want none", got)
		}
	})
}

func TestIdempotencyKeys(t *testing.T) {
	for _, idempotent := range []bool{true, false} {
		s, got, url := newServer(t, idempotent)
		for range 2 {
			if status, _, _, err := send(t, "POST", url+"/api/v1/events", `{"id":"a"}`, "Idempotency-Key", "k"); status != 200 || err != nil {
				t.Fatalf("got %d, %v", status, err)
			}
		}
		want := 2
		if idempotent {
			want = 1
		}
		if len(got.events) != want || s.Stats().Repeated != int64(2-want) {
			t.Errorf("idempotent %v: got %d events and %+v, want %d", idempotent, len(got.events), s.Stats(), want)
		}
	}
	var r recent
	for i := range 50_000 {
		if !r.add(strconv.Itoa(i)) {
			t.Fatalf("key %d: got known, want new", i)
		}
		if r.add(strconv.Itoa(max(0, i-9_999))) {
			t.Fatalf("key %d: got forgotten, want one of the last 10,000 known", i)
		}
	}
	if n := len(r.now) + len(r.old); n > 20_000 {
		t.Errorf("got %d keys kept, want 20,000 at most", n)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"events":[{"id":"a"},{"id":"b"}]}`))
	f.Add([]byte(`{"events":[{"id":"\u0000"}, {}],"x":null}`))
	f.Add([]byte(`{"events":[],"events":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := batch(body)
		if err != nil {
			return
		}
		for _, e := range events {
			if _, err := single(e); err != nil || !bytes.Contains(body, e) {
				t.Errorf("got the event %q of %q", e, body)
			}
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	one := `{"id":"01939f3e-8d5c-7abc-8def-0123456789ab","type":"file_modify","severity":"HIGH","metadata":{"k":"` + strings.Repeat("x", 200) + `"}}`
	body := []byte(`{"events":[` + strings.Repeat(one+",", 99) + one + `]}`)
	s := New(Options{Events: func([]event.Raw, time.Time) {}})
	handler := s.takeEvents(batch)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		w := httptest.NewRecorder()
		if v := handler(w, httptest.NewRequest(http.MethodPost, "/", nil), bytes.Clone(body), standin.Faults{}); v.Fate != standin.Accepted {
			b.Fatal(w.Code, w.Body)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
}
