// Package token proves by its service account token which pod speaks.
//
// The proof is the API server's: a TokenReview (kubernetes.io/docs/reference/kubernetes-api/authentication-resources/
// token-review-v1) for our audience, in whose answer the pod's name and uid, and from Kubernetes 1.30 on the node's name
// (on by default then, GA in 1.32: KEP-4193), stand in fields that no pod can write. A token that can not pass by what it
// says of itself is refused before the API server is asked.
//
// What was proved is kept until the token expires, and asked again every [Config.Fresh]: a deleted pod's token is refused
// from then on. While the API server cannot be asked, what is kept goes on to hold, and what is not is [ErrUnavailable].
// One review at a time is under way for a token, and reviews are limited in all. What is refused is limited by the address
// that it comes from: one pod that makes up tokens does not use up the reviews of all others.
//
// Limits: at most [maxKept] proofs and as many refusals are kept, by a hash of the token; the token itself is kept nowhere.
package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

const (
	// maxKept bounds what is remembered; a cluster has at most 150,000 pods (kubernetes.io/docs/setup/best-practices/cluster-large),
	// and a relay serves a part of them. Each takes some 300 bytes.
	maxKept = 50_000
	// refusedFor is how long a refusal is kept: a token that becomes good (clocks, a slow API server's cache) waits no longer.
	refusedFor = 10 * time.Second
	// maxToken is more than a projected token's size, about 1 KiB.
	maxToken = 16 << 10
	// reviewTimeout bounds one question to the API server.
	reviewTimeout = 3 * time.Second
	// askAgain is the time between two questions about a kept token while the API server does not answer.
	askAgain = 15 * time.Second
	// Reviews in a second, and at once after a quiet time: what a relay that starts meets.
	reviewRate, reviewBurst = 100, 1000
)

// ErrUnavailable says that nobody can tell now whether a token is good.
var ErrUnavailable = errors.New("tokens cannot be checked now")

// Refused says why a token is not accepted, for a person. It holds nothing of the token's signature.
type Refused struct{ Reason string }

// Error returns the reason.
func (r *Refused) Error() string { return r.Reason }

// Identity is a pod, as the API server attests it.
type Identity struct {
	Namespace, Pod, UID string
	Node                string // empty where the cluster does not attest it
	ServiceAccount      string
}

// Config says whom to ask.
type Config struct {
	API      *rest.Config
	Audience string
	Fresh    time.Duration // after which a kept token is asked about again
	Logger   *slog.Logger
	// Asked is called after each review with what it came to, one of [Results]. It may be nil.
	Asked func(result string)
}

// What a review comes to.
const (
	accepted    = "accepted"
	refused     = "refused"
	unavailable = "unavailable"
)

// Results are what a review can come to.
func Results() []string { return []string{accepted, refused, unavailable} }

// Reviewer is safe for concurrent use.
type Reviewer struct {
	c       Config
	client  rest.Interface
	reviews *rate.Limiter

	mu      sync.Mutex
	proofs  map[key]*proof
	refused map[key]refusal
	flights map[key]*flight
	from    map[string]debt
}

type key [sha256.Size]byte

// proof is an accepted token.
type proof struct {
	who   *Identity
	ends  time.Time // the token's
	fresh time.Time // until then nobody needs to be asked
}

type refusal struct {
	err *Refused
	end time.Time
}

// flight is a review that is under way. What it came to may be read when done is closed.
type flight struct {
	done chan struct{}
	who  *Identity
	err  error
}

// New returns a reviewer. It does not ask anything yet.
func New(c Config) (*Reviewer, error) {
	api := rest.CopyConfig(c.API)
	scheme := runtime.NewScheme()
	if err := authenticationv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("preparing token reviews: %w", err)
	}
	version := authenticationv1.SchemeGroupVersion
	api.APIPath, api.GroupVersion, api.UserAgent = "/apis", &version, "apss-relay"
	api.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	api.ContentType, api.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	api.WarningHandler = rest.NoWarnings{}
	api.QPS = -1 // ours is the limit
	client, err := rest.RESTClientFor(api)
	if err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	if c.Asked == nil {
		c.Asked = func(string) {}
	}
	return &Reviewer{
		c: c, client: client, reviews: rate.NewLimiter(reviewRate, reviewBurst),
		proofs: map[key]*proof{}, refused: map[key]refusal{}, flights: map[key]*flight{}, from: map[string]debt{},
	}, nil
}

// Authenticate returns the pod whose token this is, which came from an address. The error is a *[Refused] or wraps [ErrUnavailable], or ctx's.
func (r *Reviewer) Authenticate(ctx context.Context, from, token string) (*Identity, error) {
	if token == "" {
		return nil, &Refused{"there is no token: send Authorization: Bearer with the pod's projected token"}
	}
	if len(token) > maxToken {
		return nil, &Refused{fmt.Sprintf("the token has %d bytes, more than any that Kubernetes makes", len(token))}
	}
	k := key(sha256.Sum256([]byte(token)))
	now := time.Now()
	r.mu.Lock()
	kept := r.proofs[k]
	if kept != nil && !now.Before(kept.ends) {
		delete(r.proofs, k)
		kept = nil
	}
	if kept != nil && now.Before(kept.fresh) {
		r.mu.Unlock()
		return kept.who, nil
	}
	if no, ok := r.refused[k]; ok && now.Before(no.end) {
		r.mu.Unlock()
		return nil, no.err
	}
	f, flying := r.flights[k]
	if flying {
		r.mu.Unlock()
		if kept != nil { // who waits for the answer is another
			return kept.who, nil
		}
		select {
		case <-f.done:
			return f.who, f.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f = &flight{done: make(chan struct{})}
	r.flights[k] = f
	r.mu.Unlock()
	r.fly(ctx, k, from, token, f)
	return f.who, f.err
}

// fly reviews token and keeps what that came to.
func (r *Reviewer) fly(ctx context.Context, k key, from, token string, f *flight) {
	f.err = fmt.Errorf("%w: the review broke off", ErrUnavailable) // unless it does not
	var said claims
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.flights, k)
		r.keep(k, f, &said)
		close(f.done)
	}()
	said, ok := parse(token)
	if !ok {
		f.err = &Refused{"the token is not a service account's: it is no JSON Web Token"}
		return
	}
	if why := said.fault(r.c.Audience, time.Now()); why != "" {
		f.err = &Refused{why}
		return
	}
	if !r.charge(from, k, time.Now()) {
		f.err = fmt.Errorf("%w: too many tokens from %s were refused", ErrUnavailable, from)
		return
	}
	// Others wait for the answer, and the next request needs it: it does not end with this one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
	defer cancel()
	f.who, f.err = r.review(ctx, token)
	var no *Refused
	switch {
	case f.err == nil:
		r.c.Asked(accepted)
	case errors.As(f.err, &no):
		r.c.Asked(refused)
	default:
		r.c.Asked(unavailable)
	}
	if no == nil {
		r.refund(from)
	}
}

// keep remembers what a flight came to. While nobody can tell, a kept proof holds. It is called with r.mu held.
func (r *Reviewer) keep(k key, f *flight, said *claims) {
	now := time.Now()
	var no *Refused
	switch {
	case f.err == nil:
		makeRoom(r.proofs, func(p *proof) bool { return !now.Before(p.ends) })
		r.proofs[k] = &proof{who: f.who, ends: said.expiry(), fresh: now.Add(r.c.Fresh)}
	case errors.As(f.err, &no):
		delete(r.proofs, k)
		makeRoom(r.refused, func(n refusal) bool { return !now.Before(n.end) })
		r.refused[k] = refusal{no, now.Add(refusedFor)}
	default:
		if kept := r.proofs[k]; kept != nil {
			r.c.Logger.Warn("a token could not be checked again; what is known of it holds until it expires", "error", f.err)
			kept.fresh = now.Add(askAgain)
			f.who, f.err = kept.who, nil
		}
	}
}

// makeRoom sees to it that m takes one more: what is over goes first, then any.
func makeRoom[K comparable, V any](m map[K]V, over func(V) bool) {
	if len(m) < maxKept {
		return
	}
	for k, v := range m {
		if over(v) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) < maxKept-maxKept/10 { // not for each one again
			return
		}
		delete(m, k)
	}
}

// The extra fields of a pod's token (k8s.io/apiserver/pkg/authentication/serviceaccount).
const (
	extraPod  = "authentication.kubernetes.io/pod-name"
	extraUID  = "authentication.kubernetes.io/pod-uid"
	extraNode = "authentication.kubernetes.io/node-name"
)

// review asks the API server.
func (r *Reviewer) review(ctx context.Context, token string) (*Identity, error) {
	if err := r.reviews.Wait(ctx); err != nil {
		return nil, fmt.Errorf("%w: too many tokens are new at once", ErrUnavailable)
	}
	var answer authenticationv1.TokenReview
	err := r.client.Post().Resource("tokenreviews").MaxRetries(0).Body(&authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{r.c.Audience}},
	}).Do(ctx).Into(&answer)
	if err != nil { // the request's URL, and no token, may stand in it
		return nil, fmt.Errorf("%w: asking the API server: %w", ErrUnavailable, err)
	}
	return identify(&answer.Status, r.c.Audience)
}

// identify reads the answer to a review.
func identify(s *authenticationv1.TokenReviewStatus, audience string) (*Identity, error) {
	if !s.Authenticated {
		return nil, &Refused{fmt.Sprintf("the API server does not accept the token (expired, forged, or its pod is gone): %.200s", s.Error)}
	}
	// An API server that knows no audiences names none, and has then not looked at them.
	found := false
	for _, a := range s.Audiences {
		found = found || a == audience
	}
	if !found {
		return nil, &Refused{fmt.Sprintf("the token is not valid for the audience %q", audience)}
	}
	account, ok := strings.CutPrefix(s.User.Username, "system:serviceaccount:")
	namespace, name, _ := strings.Cut(account, ":")
	one := func(field string) string {
		if v := s.User.Extra[field]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
	who := &Identity{Namespace: namespace, Pod: one(extraPod), UID: one(extraUID), Node: one(extraNode), ServiceAccount: name}
	if !ok || namespace == "" || who.Pod == "" || who.UID == "" {
		return nil, &Refused{"the token is not bound to a pod: project one (serviceAccountToken)"}
	}
	return who, nil
}
