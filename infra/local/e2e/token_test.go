package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// token has the API server make a token that is bound to a pod.
func (w *world) token(t *testing.T, pod, audience string) string {
	t.Helper()
	p, err := w.client.CoreV1().Pods(w.namespace).Get(w.patience(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.client.CoreV1().ServiceAccounts(w.namespace).CreateToken(w.patience(), "default", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{audience}, BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: p.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

// post sends one event to the relay.
func (w *world) post(ctx context.Context, token string, e *event.Event) (status int, said string, err error) {
	var b envelope.Batch
	b.Append(e)
	m := b.Seal(envelope.Source{AgentID: e.AgentID, Cluster: e.Cluster}, time.Now())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/v1/events", bytes.NewReader(m.Data))
	if err != nil {
		return 0, "", err
	}
	for _, name := range []string{"ce-type", "content-encoding", "content-type"} {
		req.Header.Set(name, m.Attributes[name])
	}
	req.Header.Set("Authorization", "Bearer "+token)
	r, err := w.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, string(text), err
}

func oneEvent() *event.Event {
	return &event.Event{ID: event.NewID(), AgentID: "e2e/x", Type: event.AgentHeartbeat, Timestamp: time.Now(), Cluster: "e2e"}
}

// tokens proves that a token is good for the relay as long as its pod lives, and that no other is.
func (w *world) tokens(t *testing.T) {
	t.Helper()
	doomed := w.pod("doomed", w.container("app", 1000, nil, "/bin/witness", "app"))
	w.run(doomed)
	good := w.token(t, "doomed", "apss-relay")
	head, signature, _ := strings.Cut(good[strings.IndexByte(good, '.')+1:], ".")
	forged := good[:len(good)-len(signature)] + strings.Repeat("A", len(signature))
	for _, c := range []struct {
		name, token string
		status      int
		want        string
	}{
		{"of its pod", good, http.StatusOK, ""},
		{"of another audience", w.token(t, "doomed", "vault"), http.StatusUnauthorized, "vault"},
		{"of the API server", w.token(t, "doomed", "https://kubernetes.default.svc"), http.StatusUnauthorized, "audience"},
		{"forged", forged, http.StatusUnauthorized, "does not accept"},
		{"none", head, http.StatusUnauthorized, "Web Token"},
	} {
		status, said, err := w.post(w.t.Context(), c.token, oneEvent())
		t.Logf("a token %s: %d %s", c.name, status, said)
		if err != nil || status != c.status || !strings.Contains(said, c.want) {
			t.Errorf("a token %s: got %d %q, %v, want %d with %q", c.name, status, said, err, c.status, c.want)
		}
	}
	now := int64(0)
	if err := w.client.CoreV1().Pods(w.namespace).Delete(w.patience(), "doomed", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	w.await("the refusal of a deleted pod's token", func(ctx context.Context) error {
		status, said, err := w.post(ctx, good, oneEvent())
		if err == nil && status != http.StatusUnauthorized {
			err = fmt.Errorf("%d %s", status, said)
		}
		if err == nil {
			t.Logf("a deleted pod's token: %d %s", status, said)
		}
		return err
	})
}
