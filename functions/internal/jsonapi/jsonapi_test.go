package jsonapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

func TestOutcome(t *testing.T) {
	for want, statuses := range map[outcome.Class][]int{
		outcome.OK:        {200, 201, 202, 204},
		outcome.Permanent: {400, 413, 422},
		outcome.Auth:      {401, 403, 404, 410},
		outcome.Retry:     {301, 308, 402, 405, 408, 409, 418, 425, 429, 451, 500, 503, 599},
	} {
		for _, status := range statuses {
			err := Outcome(&httpx.Response{Status: status})
			got := outcome.OK
			if err != nil {
				got = outcome.From(err).Class
			}
			if got != want {
				t.Errorf("%d: got %v, want %v", status, err, want)
			}
		}
	}
}

func TestDo(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, strings.Join([]string{r.Method, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body)}, "|"))
	}))
	defer server.Close()
	client := httpx.New(httpx.Options{})
	defer client.Close()
	body, err := Encode(map[string]string{"a": "<&>"})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		method string
		bearer secret.Value
		body   []byte
		want   string
	}{
		{http.MethodPost, secret.New("k"), body, `POST|Bearer k|application/json; charset=utf-8|{"a":"<&>"}`},
		{http.MethodGet, secret.Value{}, nil, "GET|||"},
	} {
		got = nil
		if _, err := Do(t.Context(), client, call.method, server.URL, call.bearer, call.body); err != nil || len(got) != 1 || got[0] != call.want {
			t.Errorf("got %q, %v, want %q", got, err, call.want)
		}
	}
	_, err = Do(t.Context(), client, http.MethodGet, "https://host/s3cr3t\x00", secret.Value{}, nil)
	if e := outcome.From(err); e == nil || e.Class != outcome.Auth || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("got %v, want an auth that does not quote the URL", err)
	}
}

func TestEncode(t *testing.T) {
	if _, err := Encode(func() {}); err == nil || outcome.From(err).Class != outcome.Permanent {
		t.Errorf("got %v, want a permanent error", err)
	}
}
