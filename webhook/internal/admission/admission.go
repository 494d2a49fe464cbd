// Package admission answers the API server's AdmissionReviews, which come at a path that only it knows.
//
// Promise: every review is allowed. What goes wrong here (a pod that cannot be read, a namespace that is not known, a
// panic) costs the pod its agent, never its start, and is counted by its reason. Who is refused is decided by policies,
// which a sensor is not.
//
// Flow: body (at most [MaxBody]) -> AdmissionReview v1 -> inject.Injector -> answer; what is to be told about the pod goes
// to [Config.Observe], which must not wait. There is no side effect of a dry run. Who asks at another path is answered that
// the pod is allowed, from the first bytes of the review, and nothing more is done.
package admission

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/inject"
)

// MaxBody bounds a review: the API server takes objects of 3 MiB at most (etcd's and its own request limit,
// k8s.io/apiserver DefaultMaxRequestBodyBytes), and a review of a creation holds one.
const MaxBody = 3<<20 + 64<<10

// Config is what a Handler needs. All fields but Path, Observe and Ready are required.
type Config struct {
	// Path reports whether reviews at a path are an API server's. Nil: all are.
	Path func(path string) bool
	// Injector returns the one that is in force: it changes with the relay's authority.
	Injector func() *inject.Injector
	// Ready returns nil when the cluster is known; until then no pod is injected. Nil: it always is.
	Ready func() error
	// Namespace returns the labels of a namespace; false when they are not known.
	Namespace func(name string) (map[string]string, bool)
	Cluster   func() decide.Cluster
	// Observe is told of each request that is no dry run. It must not wait, nor change what it gets, but may keep it.
	Observe func(r *Request, d *decide.Decision)
	// InFlight bounds the reviews that are worked on at the same time, and those that one address sends; others wait.
	InFlight int
	Log      *slog.Logger
	Meter    metric.Meter
}

// Handler answers reviews. Safe for concurrent use.
type Handler struct {
	cfg      Config
	senders  senders
	turns    chan struct{}
	buffers  sync.Pool
	reviews  metric.Int64Counter
	other    metric.AddOption // of reviews that come elsewhere
	duration metric.Float64Histogram
}

// New returns a handler. It fails only when the meter does.
func New(c Config) (*Handler, error) {
	reviews, err1 := c.Meter.Int64Counter("apss.admission.reviews", metric.WithDescription("Admission reviews, by the reason of the decision."))
	duration, err2 := c.Meter.Float64Histogram("apss.admission.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1),
		metric.WithDescription("Time from a review's last byte to its answer."))
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("metrics of admission: %w", err)
	}
	return &Handler{
		cfg: c, senders: senders{each: c.InFlight, known: map[string]*sender{}}, turns: make(chan struct{}, c.InFlight), reviews: reviews, duration: duration,
		other:   metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", string(decide.Elsewhere)))),
		buffers: sync.Pool{New: func() any { return new(buffers) }},
	}, nil
}

// buffers are reused between reviews.
type buffers struct{ body, answer []byte }

// keep is the largest buffer that is kept.
const keep = 1 << 20

// bodyWithin bounds the time that a body may take. The API server has the whole of it when it calls, and waits 3 s by the
// chart's configuration.
const bodyWithin = 5 * time.Second

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.cfg.Path != nil && !h.cfg.Path(r.URL.Path) {
		h.elsewhere(w, r)
		return
	}
	leave, ok := h.senders.enter(r.Context(), r)
	if !ok {
		return // the API server gave up
	}
	defer leave()
	b, _ := h.buffers.Get().(*buffers)
	defer func() {
		if cap(b.body) <= keep && cap(b.answer) <= keep {
			h.buffers.Put(b)
		}
	}()
	status, err := b.read(w, r)
	if err != nil {
		h.refuse(w, r, status, err)
		return
	}
	select { // what is read is worked on without waiting for anybody
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-r.Context().Done():
		return
	}
	begin := time.Now()
	request, err := parse(b.body)
	if err != nil {
		h.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	a := h.review(r, request)
	b.answer = a.append(b.answer[:0])
	attributes := metric.WithAttributes(attribute.String("reason", a.reason))
	h.reviews.Add(r.Context(), 1, attributes)
	h.duration.Record(r.Context(), time.Since(begin).Seconds(), attributes)
	write(w, b.answer)
}

func write(w http.ResponseWriter, answer []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer) // the API server has gone: nothing is left to do
}

// elsewhere answers what comes at no path of reviews: it may be an API server's that learns of the path late, and its pod
// starts; more likely it is not.
func (h *Handler) elsewhere(w http.ResponseWriter, r *http.Request) {
	h.reviews.Add(r.Context(), 1, h.other)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWithin)) // a test's recorder has none
	var begin [headSize]byte
	n, _ := io.ReadFull(r.Body, begin[:]) // what there is
	uid := uidIn(begin[:n])
	if uid == "" {
		http.NotFound(w, r)
		return
	}
	a := answer{uid: uid, reason: string(decide.Elsewhere)}
	write(w, a.append(nil))
}

// read reads the body. The error comes with the status that says it.
func (b *buffers) read(w http.ResponseWriter, r *http.Request) (status int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, fmt.Errorf("got %s, want a POST of an AdmissionReview", r.Method)
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return http.StatusUnsupportedMediaType, fmt.Errorf("got content type %.60q, want application/json", r.Header.Get("Content-Type"))
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWithin)) // a test's recorder has none
	body := http.MaxBytesReader(w, r.Body, MaxBody)
	b.body = b.body[:0]
	if n := r.ContentLength; n > 0 && n <= MaxBody && int64(cap(b.body)) < n {
		b.body = make([]byte, 0, min(n, keep)) // more when it is there: anybody can announce a lot
	}
	for {
		if len(b.body) == cap(b.body) {
			b.body = append(b.body, 0)[:len(b.body)]
		}
		n, err := body.Read(b.body[len(b.body):cap(b.body)])
		b.body = b.body[:len(b.body)+n]
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return http.StatusOK, nil
		case errors.As(err, &tooLarge):
			return http.StatusRequestEntityTooLarge, fmt.Errorf("the review has more than %d bytes", MaxBody)
		case err != nil:
			return http.StatusBadRequest, fmt.Errorf("reading the review: %w", err)
		}
	}
}

// refuse answers what is no review. The API server then does as its failurePolicy says, which is Ignore.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	h.reviews.Add(r.Context(), 1, metric.WithAttributes(attribute.String("reason", string(decide.Unreadable))))
	h.cfg.Log.WarnContext(r.Context(), "a request is no review", "status", status, "error", err.Error())
	http.Error(w, err.Error(), status)
}

// review decides. It never fails: whatever happens, the pod starts.
func (h *Handler) review(r *http.Request, q *Request) (a answer) {
	a = answer{uid: q.UID}
	d := decide.Decision{Reason: decide.Failed}
	defer func() {
		if v := recover(); v != nil {
			h.cfg.Log.ErrorContext(r.Context(), "a review panicked; the pod starts without an agent", "namespace", q.Namespace, "name", q.Name,
				"panic", v, "stack", string(debug.Stack()))
			a = answer{uid: q.UID}
			d = decide.Decision{Reason: decide.Failed}
		}
		a.reason, a.warnings = string(d.Reason), d.Warnings
		if d.Reason == decide.Injected {
			a.tier, a.less = string(d.Tier), string(d.Less)
		}
	}()
	d, a.patch = h.pod(r, q)
	if h.cfg.Observe != nil && !q.DryRun {
		h.cfg.Observe(q, &d)
	}
	return a
}

func (h *Handler) pod(r *http.Request, q *Request) (decide.Decision, []byte) {
	if q.Kind.Group != "" || q.Kind.Kind != "Pod" || q.SubResource != "" {
		return decide.Decision{Reason: decide.NotAPod}, nil
	}
	if q.Operation != "CREATE" {
		return decide.Decision{Reason: decide.NotACreation}, nil
	}
	if h.cfg.Ready != nil && h.cfg.Ready() != nil {
		return decide.Decision{Reason: decide.Starting}, nil
	}
	ns := decide.Namespace{Name: q.Namespace}
	var known bool
	if ns.Labels, known = h.cfg.Namespace(q.Namespace); !known {
		return decide.Decision{Reason: decide.NamespaceUnknown}, nil
	}
	d, patch, err := h.cfg.Injector().Pod(q.Object, ns, h.cfg.Cluster())
	if err != nil {
		h.cfg.Log.WarnContext(r.Context(), "a pod cannot be read; it starts without an agent", "namespace", q.Namespace, "name", q.Name, "error", err.Error())
	}
	return d, patch
}
