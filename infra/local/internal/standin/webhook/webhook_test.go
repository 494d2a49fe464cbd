package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The example of the Standard Webhooks' reference libraries.
const (
	secret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	id        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	stamp     = 1614265330
	body      = `{"test": 2432232314}`
	signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestVerify(t *testing.T) {
	other := "whsec_" + strings.Repeat("A", 32)
	for name, tt := range map[string]struct {
		secrets []string
		change  func(http.Header)
		body    string
		away    time.Duration
		want    string // in the error; "": none
	}{
		"as it should be":          {},
		"the key is being rotated": {secrets: []string{other, secret}},
		"several signatures": {change: func(h http.Header) {
			h.Set("Webhook-Signature", "v1a,xxx v1,AAAA not-one "+signature)
		}},
		"another key":       {secrets: []string{other}, want: "no signature"},
		"another body":      {body: `{"test": 2432232315}`, want: "no signature"},
		"another id":        {change: func(h http.Header) { h.Set("Webhook-Id", "msg_x") }, want: "no signature"},
		"another time":      {change: func(h http.Header) { h.Set("Webhook-Timestamp", strconv.Itoa(stamp+1)) }, want: "no signature"},
		"no id":             {change: func(h http.Header) { h.Del("Webhook-Id") }, want: "missing"},
		"no signature":      {change: func(h http.Header) { h.Del("Webhook-Signature") }, want: "missing"},
		"a time in words":   {change: func(h http.Header) { h.Set("Webhook-Timestamp", "now") }, want: "no number"},
		"an old one":        {away: 6 * time.Minute, want: "6m0s away"},
		"one of the future": {away: -6 * time.Minute, want: "6m0s away"},
	} {
		t.Run(name, func(t *testing.T) {
			secrets := tt.secrets
			if secrets == nil {
				secrets = []string{secret}
			}
			s, err := New(secrets...)
			if err != nil {
				t.Fatal(err)
			}
			h := http.Header{}
			h.Set("Webhook-Id", id)
			h.Set("Webhook-Timestamp", strconv.Itoa(stamp))
			h.Set("Webhook-Signature", signature)
			if tt.change != nil {
				tt.change(h)
			}
			text := body
			if tt.body != "" {
				text = tt.body
			}
			err = s.verify(h, []byte(text), time.Unix(stamp, 0).Add(tt.away))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSecrets(t *testing.T) {
	for _, bad := range []string{"whsec_AAA", "whsec_AAAA", "whsec_%", "whsec_" + strings.Repeat("A", 88)} {
		if _, err := New(bad); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("New(%q): got %v, want an error that does not quote it", bad, err)
		}
	}
}

func TestRefusesTheUnsigned(t *testing.T) {
	s, err := New(secret)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hook", strings.NewReader(body)))
	if w.Code != http.StatusUnauthorized || s.Board.Posted() != 0 || s.Counts().Unauthorized != 1 {
		t.Errorf("got %d, %d shown, %+v; want 401 and nothing shown", w.Code, s.Board.Posted(), s.Counts())
	}
}

// TestEachIDOnce: what comes again is accepted and shown once.
func TestEachIDOnce(t *testing.T) {
	s, err := New(secret)
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	s.Taken = func(string, []byte, time.Time) { taken++ }
	for i := range 3 {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, (*s.keys.Load())[0])
		mac.Write([]byte(id + "." + now + "." + body))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hook", strings.NewReader(body))
		r.Header.Set("Webhook-Id", id)
		r.Header.Set("Webhook-Timestamp", now)
		r.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusNoContent {
			t.Fatalf("request %d: got %d %s", i, w.Code, w.Body)
		}
	}
	if all := s.Board.Messages(); len(all) != 1 || all[0].Edits != 2 || all[0].Text != "{\n  \"test\": 2432232314\n}" || taken != 3 {
		t.Errorf("got %+v, %d taken; want one message that came three times", all, taken)
	}
}
