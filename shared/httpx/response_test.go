package httpx

import (
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func TestOutcome(t *testing.T) {
	classes := map[outcome.Class][]int{
		outcome.OK:    {200, 201, 202, 204, 299},
		outcome.Auth:  {401, 403},
		outcome.Split: {400, 413, 422},
		outcome.Retry: {
			101, 300, 301, 302, 303, 307, 308, 402, 404, 405, 408, 409, 410, 418, 425, 429, 451, 500, 501, 502, 503, 504, 599, 600, 999,
		},
	}
	for class, statuses := range classes {
		for _, status := range statuses {
			r := Response{Status: status, Header: http.Header{"Retry-After": {"7"}}, Body: []byte(" what\n went wrong ")}
			err := r.Outcome()
			if class == outcome.OK {
				if err != nil {
					t.Errorf("%d: got %v want nil", status, err)
				}
				continue
			}
			e, ok := errors.AsType[*outcome.Error](err)
			if !ok {
				t.Errorf("%d: got %v want an outcome", status, err)
				continue
			}
			after := time.Duration(0)
			if class == outcome.Retry {
				after = 7 * time.Second
			}
			if e.Class != class || e.Status != status || e.After != after {
				t.Errorf("%d: got %v %d after %s want %v %d after %s", status, e.Class, e.Status, e.After, class, status, after)
			}
			text := "what went wrong"
			if status >= 300 && status < 400 {
				text = "redirects are not followed"
			}
			if !strings.HasPrefix(e.Reason, fmt.Sprintf("HTTP %d", status)) || !strings.HasSuffix(e.Reason, ": "+text) {
				t.Errorf("%d: got reason %q want the status and %q", status, e.Reason, text)
			}
		}
	}
	if got, want := (&Response{Status: 503}).Outcome().Error(), "retry: HTTP 503 Service Unavailable"; got != want {
		t.Errorf("without a body: got %q want %q", got, want)
	}
}

func TestExcerpt(t *testing.T) {
	long := strings.Repeat("é", 300)
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{" \r\n\t ", ""},
		{"ok", "ok"},
		{"{\n  \"error\": \"bad\"\n}\n", `{ "error": "bad" }`},
		{"a\x00b\x1b[31mc\x7f", `a\x00b\x1b[31mc\x7f`},
		{"a\xffb\xc3", `a\xffb\xc3`},
		{"\u202eevil\u200b", `\u202eevil\u200b`},
		{"\u2028line\u0085", "line"},
		{"\ufffd", "\ufffd"},
		{long, strings.Repeat("é", 199) + "…"},
		{strings.Repeat("x", 199), strings.Repeat("x", 199)},
	} {
		if got := excerpt([]byte(c.in)); got != c.want {
			t.Errorf("%q: got %q want %q", c.in, got, c.want)
		}
	}
}

func FuzzExcerpt(f *testing.F) {
	for _, s := range []string{"", "a\nb", "\xff\xfe", "\u202e", strings.Repeat("\x00", 100), strings.Repeat("long ", 100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := excerpt(body)
		if n := utf8.RuneCountInString(got); n > maxExcerpt || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q: got %d runes %q", body, n, got)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value string
		want  time.Duration
	}{
		{"", 0}, {"0", 0}, {"120", 2 * time.Minute}, {" 5 ", 5 * time.Second}, {"007", 7 * time.Second},
		{"3600", time.Hour}, {"3601", time.Hour}, {"99999999999999999999999999", time.Hour},
		{"-1", 0}, {"+1", 0}, {"1.5", 0}, {"1e3", 0}, {"5 s", 0}, {"soon", 0}, {"٣", 0}, {"1,2", 0},
		{"Sun, 22 Nov 2026 10:00:30 GMT", 30 * time.Second},
		{"Sunday, 22-Nov-26 10:00:30 GMT", 30 * time.Second},
		{"Sun Nov 22 10:00:30 2026", 30 * time.Second},
		{"Sun, 22 Nov 2026 09:59:59 GMT", 0},
		{"Fri, 31 Dec 9999 23:59:59 GMT", time.Hour},
		{"Mon, 01 Jan 0001 00:00:00 GMT", 0},
		{"2026-11-22T10:00:30Z", 0},
	} {
		if got := RetryAfter(http.Header{"Retry-After": {c.value}}, now); got != c.want {
			t.Errorf("%q: got %s want %s", c.value, got, c.want)
		}
	}
	if got := RetryAfter(nil, now); got != 0 {
		t.Errorf("no header: got %s want 0", got)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{
		"120", "0", "-1", "18446744073709551616", "Sun, 22 Nov 2026 10:00:30 GMT", "Sunday, 22-Nov-26 10:00:30 GMT",
		"Sun Nov 22 10:00:30 2026", "Sun, 22 Nov 2026 10:00:30 EST", "soon",
	} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		got := RetryAfter(http.Header{"Retry-After": {value}}, now)
		if got < 0 || got > time.Hour {
			t.Fatalf("%q: got %s want between 0 and an hour", value, got)
		}
		if value == "" || strings.Trim(value, "0123456789") != "" {
			return
		}
		seconds, _ := new(big.Int).SetString(value, 10)
		if want := min(seconds.Cmp(big.NewInt(3600)), 0) < 0; want && got != time.Duration(seconds.Int64())*time.Second {
			t.Fatalf("%q: got %s", value, got)
		} else if !want && got != time.Hour {
			t.Fatalf("%q: got %s want an hour", value, got)
		}
	})
}

// TestNothingLeaks sends requests full of secrets to receivers that fail in every way or repeat what they got, and
// looks for a trace of them in whatever a program may print.
func TestNothingLeaks(t *testing.T) {
	secrets := []string{"T0SECRET1", "B0SECRET2", "x7secretpath", "s3cretuser", "s3cretpass", "s3crettoken", "s3cretbearer", "s3cretapikey", "s3cretinbody", "%2Fs3cret", "/s3cret"}
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		status := http.StatusNotFound
		switch r.URL.Query().Get("do") {
		case "redirect":
			status = http.StatusFound
		case "cut":
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, r.RequestURI)
			return
		case "headers":
			r.URL.Path = ""
		}
		w.Header().Set("Location", r.RequestURI)
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(status)
		switch r.URL.Query().Get("do") {
		case "headers":
			fmt.Fprintf(w, "%v", r.Header)
		case "body":
			_, _ = w.Write(body)
		case "json":
			fmt.Fprintf(w, `{"path":%q}`, strings.ReplaceAll(r.RequestURI, "/", `\/`))
		default:
			fmt.Fprintf(w, "The requested URL %s (%s?%s) was not found for %s", r.RequestURI, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"))
		}
	})
	plain, secure := httptest.NewServer(echo), httptest.NewUnstartedServer(echo)
	secure.Config.ErrorLog = quiet()
	secure.StartTLS()
	t.Cleanup(func() { plain.Close(); secure.Close() })
	addr := plain.Listener.Addr().String()

	c := newClient(t, Options{Timeout: 100 * time.Millisecond})
	for _, base := range []string{
		"http://CRED@" + addr, "http://CRED@" + addr + "?redirect", "http://CRED@" + addr + "?headers", "http://CRED@" + addr + "?body",
		"http://CRED@" + addr + "?json", "http://CRED@" + addr + "?cut",
		"https://CRED@" + addr, "https://CRED@" + secure.Listener.Addr().String(), "ftp://CRED@" + addr, "http://CRED@apss.invalid",
		"http://CRED@127.0.0.1:0", strings.Replace(closedPort, "://", "://CRED@", 1),
		strings.Replace(raw(t, func(net.Conn) {}), "://", "://CRED@", 1),
	} {
		base, do, _ := strings.Cut(base, "?")
		base = strings.Replace(base, "CRED", "s3cretuser:s3cretpass", 1)
		url := base + "/services/T0SECRET1/B0SECRET2/x7secretpath%2Fs3cret?token=s3crettoken&do=" + do
		for _, auth := range []string{"", "Bearer s3cretbearer", "Splunk s3cretbearer", "bad\ns3cretbearer"} {
			req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(`{"key":"s3cretinbody"}`))
			if err != nil {
				t.Fatal(err)
			}
			if auth != "" {
				req.Header.Set("Authorization", auth)
			}
			req.Header.Set("X-Api-Key", "s3cretapikey")
			r, err := c.Do(t.Context(), req)
			if err == nil {
				err = r.Outcome(secret.New("s3cretinbody"))
			}
			if err == nil {
				t.Fatalf("%s: got no error", base)
			}
			var b strings.Builder
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
				fmt.Fprintf(&b, verb+"\n", err)
				if r != nil {
					fmt.Fprintf(&b, verb+" "+verb+"\n", r, *r)
				}
				for e := err; e != nil; e = errors.Unwrap(e) {
					fmt.Fprintf(&b, verb+"\n", e)
				}
				fmt.Fprintf(&b, verb+"\n", *outcome.From(err))
			}
			for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
				slog.New(h).Error("sending", "error", err, "response", r, "outcome", outcome.From(err))
			}
			for _, s := range secrets {
				if printed := b.String(); strings.Contains(printed, s) || strings.Contains(printed, fmt.Sprintf("%x", s)) {
					t.Errorf("%s with %q: %q leaked in\n%s", base, auth, s, printed)
					break
				}
			}
		}
	}
}

func TestRedactKeepsPlainWords(t *testing.T) {
	req, _ := http.NewRequest(http.MethodPost, "https://h/api/v1/events/batch", nil)
	req.Header.Set("Content-Type", "application/json")
	r := Response{Status: 400, request: req, Body: []byte("events[3] in a batch of v1 has no type; application/json is fine")}
	if got := string(r.redact(r.Body, nil)); got != string(r.Body) {
		t.Errorf("got %q want it unchanged", got)
	}
}
