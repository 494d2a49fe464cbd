package httpx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/shared/secret"
)

// TestHeard: the last answer is known without the secrets of the request, also when an excerpt ends inside one.
func TestHeard(t *testing.T) {
	const key = "routing-key-0123456789"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "got %s with %s", body, r.Header.Get("Authorization"))
	}))
	defer server.Close()
	c := New(Options{})
	send := func(ctx context.Context, body string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer the-token")
		if _, err := c.Do(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	ctx, heard := Listen(t.Context())
	if status, text := heard.Last(); status != 0 || text != "" {
		t.Errorf("got %d %q before any answer", status, text)
	}
	Hide(t.Context(), secret.New(key)) // nobody listens
	send(t.Context(), "unheard")
	Hide(ctx, secret.New(key))
	send(ctx, "first")
	send(ctx, key)
	if status, text := heard.Last(); status != 202 || !strings.HasPrefix(text, "got [redacted]") || strings.Contains(text, "the-token") {
		t.Errorf("got %d %q, want the last answer without secrets", status, text)
	}
	send(ctx, strings.Repeat("x", maxExcerpt-10)+key)
	if _, text := heard.Last(); strings.Contains(text, "routing") {
		t.Errorf("got %q, want no part of the secret", text)
	}
}
