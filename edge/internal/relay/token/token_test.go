package token_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/edge/internal/relay/token"
)

// apiServer answers token reviews as kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1
// says: 201 and the review with its status.
type apiServer struct {
	t       *testing.T
	reviews atomic.Int64
	down    atomic.Bool
	hold    chan struct{} // not nil: answers wait for it

	mu     sync.Mutex
	status map[string]authenticationv1.TokenReviewStatus // by token
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
		a.t.Errorf("got %s %s", r.Method, r.URL)
	}
	a.reviews.Add(1)
	if a.hold != nil {
		<-a.hold
	}
	if a.down.Load() {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	var review authenticationv1.TokenReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || !cmp.Equal(review.Spec.Audiences, []string{"apss-relay"}) {
		a.t.Errorf("got the review %+v, %v", review.Spec.Audiences, err)
	}
	a.mu.Lock()
	status, ok := a.status[review.Spec.Token]
	a.mu.Unlock()
	if !ok {
		status.Error = "[invalid bearer token, service account token has been invalidated]"
	}
	review.Status, review.APIVersion, review.Kind = status, "authentication.k8s.io/v1", "TokenReview"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	if err := json.NewEncoder(w).Encode(review); err != nil {
		a.t.Error(err)
	}
}

func (a *apiServer) set(token string, s authenticationv1.TokenReviewStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status[token] = s
}

// RoundTrip answers without a network, so that time is the test's.
func (a *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w.Result(), nil
}

// reviewing runs test with an API server and a reviewer that asks it.
func reviewing(t *testing.T, fresh time.Duration, test func(*apiServer, *token.Reviewer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &apiServer{t: t, status: map[string]authenticationv1.TokenReviewStatus{}}
		r, err := token.New(token.Config{
			API: &rest.Config{Host: "http://api.test", Transport: a}, Audience: "apss-relay", Fresh: fresh, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		test(a, r)
	})
}

// jwt makes a token with these claims; only the API server could tell that it is signed by nobody.
func jwt(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part([]byte(claims)) + "." + part([]byte("signature"))
}

// expires is the same for all tokens of a run: one that is made twice is one.
var expires = time.Now().Add(time.Hour).Unix()

func good(serial int) string {
	return jwt(fmt.Sprintf(`{"aud":["apss-relay"],"exp":%d,"jti":"%d","kubernetes.io":{"pod":{"name":"p"}}}`, expires, serial))
}

func accepted() authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"apss-relay"},
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:shop:till", Extra: map[string]authenticationv1.ExtraValue{
			"authentication.kubernetes.io/pod-name": {"p"}, "authentication.kubernetes.io/pod-uid": {"u1"},
			"authentication.kubernetes.io/node-name": {"n1"},
		}},
	}
}

func TestAPodIsWhatTheAPIServerSays(t *testing.T) {
	reviewing(t, time.Hour, func(a *apiServer, r *token.Reviewer) {
		t := a.t // of the bubble
		a.set(good(1), accepted())
		old := accepted()
		delete(old.User.Extra, "authentication.kubernetes.io/node-name") // before Kubernetes 1.30
		a.set(good(2), old)
		want := token.Identity{Namespace: "shop", Pod: "p", UID: "u1", Node: "n1", ServiceAccount: "till"}
		for range 3 {
			if got, err := r.Authenticate(t.Context(), "10.0.0.1", good(1)); err != nil || *got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}
		want.Node = ""
		if got, err := r.Authenticate(t.Context(), "10.0.0.1", good(2)); err != nil || *got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if n := a.reviews.Load(); n != 2 {
			t.Errorf("got %d reviews for two tokens, want 2", n)
		}
	})
}

func TestRefused(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // as in any bubble of synctest
	claims := func(aud string, end time.Time, pod string) string {
		return jwt(fmt.Sprintf(`{"aud":%s,"exp":%d,"kubernetes.io":{"pod":{"name":%q}}}`, aud, end.Unix(), pod))
	}
	but := func(change func(*authenticationv1.TokenReviewStatus)) *authenticationv1.TokenReviewStatus {
		s := accepted()
		change(&s)
		return &s
	}
	for _, c := range []struct {
		name, token string
		says        *authenticationv1.TokenReviewStatus // the API server; nil: it is not asked
		want        string
	}{
		{"nothing", "", nil, "no token"},
		{"a password", "hunter2", nil, "no JSON Web Token"},
		{"four parts", good(1) + ".x", nil, "no JSON Web Token"},
		{"not base64", "a.!.c", nil, "no JSON Web Token"},
		{"huge", strings.Repeat("x", 20<<10), nil, "more than any"},
		{"of another audience", claims(`["https://kubernetes.default.svc"]`, now.Add(time.Hour), "p"), nil, `"https://kubernetes.default.svc"`},
		{"of another audience alone", claims(`"vault"`, now.Add(time.Hour), "p"), nil, `"vault"`},
		{"expired", claims(`"apss-relay"`, now.Add(-time.Hour), "p"), nil, "expired at"},
		{"for ever", jwt(`{"aud":"apss-relay","kubernetes.io":{"pod":{"name":"p"}}}`), nil, "when it expires"},
		{"of no pod", claims(`"apss-relay"`, now.Add(time.Hour), ""), nil, "not bound to a pod"},
		{"forged or of a deleted pod", good(2), &authenticationv1.TokenReviewStatus{Error: "its pod is not there"}, "its pod is not there"},
		{"accepted by who knows no audiences", good(3), but(func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }), "audience"},
		{"of a person", good(4), but(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "admin" }), "not bound to a pod"},
		{"without a uid", good(5), but(func(s *authenticationv1.TokenReviewStatus) {
			delete(s.User.Extra, "authentication.kubernetes.io/pod-uid")
		}), "not bound to a pod"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reviewing(t, time.Hour, func(a *apiServer, r *token.Reviewer) {
				t := a.t // of the bubble
				want := int64(0)
				if c.says != nil {
					a.set(c.token, *c.says)
					want = 1
				}
				for range 3 {
					_, err := r.Authenticate(t.Context(), "10.0.0.1", c.token)
					var no *token.Refused
					if !errors.As(err, &no) || !strings.Contains(no.Reason, c.want) {
						t.Errorf("got %v, want a refusal with %q", err, c.want)
					}
					if c.token != "" && strings.Contains(fmt.Sprint(err), c.token) {
						t.Errorf("the token stands in %q", err)
					}
				}
				if n := a.reviews.Load(); n != want {
					t.Errorf("got %d reviews, want %d", n, want)
				}
			})
		})
	}
}

func TestOneReviewAtATime(t *testing.T) {
	reviewing(t, time.Hour, func(a *apiServer, r *token.Reviewer) {
		t := a.t // of the bubble
		a.hold = make(chan struct{})
		a.set(good(1), accepted())
		gone, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := r.Authenticate(t.Context(), "10.0.0.1", good(1)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Go(func() { _, _ = r.Authenticate(gone, "10.0.0.1", good(1)) }) // whoever goes away takes nobody's answer along
		cancel()
		close(a.hold)
		all.Wait()
		if n := a.reviews.Load(); n != 1 {
			t.Errorf("got %d reviews, want one", n)
		}
	})
}

func TestWhileTheAPIServerIsDown(t *testing.T) {
	reviewing(t, time.Nanosecond, func(a *apiServer, r *token.Reviewer) { // every look is one too late
		a.set(good(1), accepted())
		if _, err := r.Authenticate(t.Context(), "10.0.0.1", good(1)); err != nil {
			t.Fatal(err)
		}
		a.down.Store(true)
		time.Sleep(time.Millisecond)
		for range 3 {
			if got, err := r.Authenticate(t.Context(), "10.0.0.1", good(1)); err != nil || got.Pod != "p" {
				t.Errorf("known before: got %v, %v", got, err)
			}
		}
		if n := a.reviews.Load(); n != 2 {
			t.Errorf("got %d reviews, want one more and then a pause", n)
		}
		if _, err := r.Authenticate(t.Context(), "10.0.0.1", good(2)); !errors.Is(err, token.ErrUnavailable) {
			t.Errorf("not known: got %v, want ErrUnavailable", err)
		}
	})
}

func TestADeletedPodIsRefusedWhenItIsAskedAgain(t *testing.T) {
	reviewing(t, time.Nanosecond, func(a *apiServer, r *token.Reviewer) {
		t := a.t // of the bubble
		a.set(good(1), accepted())
		if _, err := r.Authenticate(t.Context(), "10.0.0.1", good(1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		a.set(good(1), authenticationv1.TokenReviewStatus{Error: "the pod is gone"})
		var no *token.Refused
		if _, err := r.Authenticate(t.Context(), "10.0.0.1", good(1)); !errors.As(err, &no) {
			t.Errorf("got %v, want a refusal", err)
		}
		a.down.Store(true)
		if _, err := r.Authenticate(t.Context(), "10.0.0.1", good(1)); !errors.As(err, &no) {
			t.Errorf("got %v, want it to be refused still", err)
		}
	})
}

// FuzzAuthenticate has the API server refuse everything: no bytes may come through, and no claims may crash.
// Who sends made-up tokens uses up its own reviews, and nobody else's.
func TestAFloodOfForgedTokens(t *testing.T) {
	const allowed = 500
	reviewing(t, time.Hour, func(a *apiServer, r *token.Reviewer) {
		t := a.t // of the bubble
		a.set(good(-1), accepted())
		a.set(good(-2), accepted())
		var unavailable int
		for i := range 2 * allowed {
			if _, err := r.Authenticate(t.Context(), "10.0.0.1", good(i)); errors.Is(err, token.ErrUnavailable) {
				unavailable++
			} else if err == nil {
				t.Fatal("a forged token is accepted")
			}
		}
		if n := a.reviews.Load(); unavailable == 0 || n >= 2*allowed {
			t.Errorf("got %d reviews of %d forged tokens, want fewer", n, 2*allowed)
		}
		if _, err := r.Authenticate(t.Context(), "10.0.0.2", good(-1)); err != nil {
			t.Errorf("a good token from elsewhere: %v", err)
		}
		for range 2 * allowed { // a good one costs nothing
			if _, err := r.Authenticate(t.Context(), "10.0.0.2", good(-2)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzAuthenticate(f *testing.F) {
	f.Add(`{"aud":["apss-relay"],"exp":4000000000,"kubernetes.io":{"pod":{"name":"p"}}}`)
	f.Add(`{"aud":"apss-relay","exp":1e300}`)
	f.Add(`{"aud":[1]}`)
	f.Add(`{"aud":null,"exp":-1,"kubernetes.io":[]}`)
	r, err := token.New(token.Config{
		API: &rest.Config{Host: "http://127.0.0.1:1"}, Audience: "apss-relay", Fresh: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		for _, text := range []string{claims, jwt(claims)} {
			who, err := r.Authenticate(t.Context(), "10.0.0.1", text)
			var no *token.Refused
			if who != nil || !errors.As(err, &no) && !errors.Is(err, token.ErrUnavailable) {
				t.Fatalf("got %v, %v", who, err)
			}
		}
	})
}
