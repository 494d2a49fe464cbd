package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/edge/internal/relay/fair"
	"github.com/apss-sensor/apss/edge/internal/relay/token"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/telemetry"
)

const (
	// answerWithin bounds a request; an agent waits a little longer.
	answerWithin = 15 * time.Second
	// roomWithin is how long a request may wait for room.
	roomWithin = 3 * time.Second
	// bodyWithin is how long a body may take once there is room for it.
	bodyWithin = 5 * time.Second
	// usualRatio is how much larger a message's events are than their usual zstd.
	usualRatio = 8
	// podShare is the part of all room that one pod may hold.
	podShare = 8
)

// Authenticator tells whose a token is, as [token.Reviewer] does.
type Authenticator interface {
	Authenticate(ctx context.Context, from, token string) (*token.Identity, error)
}

// Publisher is one of package publish.
type Publisher interface {
	Publish(ctx context.Context, m envelope.Message) error
}

// Config is a relay. All of it must be set.
type Config struct {
	Cluster   string
	AgentID   string // the relay's own, for what it seals and says itself
	Tokens    Authenticator
	Publisher Publisher
	Seal      Seal
	// Apart says which namespaces get messages of their own. A message of several has no attribute namespace: filters that
	// let that pass lose nothing, but are pushed more than they want.
	Apart     func(namespace string) bool
	Pod       PodLimits
	Room      int   // bytes of events in hand, at most; alerts have a quarter of it besides
	MaxBody   int64 // bytes of a request
	Telemetry *telemetry.Telemetry
}

// Relay is the handler of requests. Safe for concurrent use.
type Relay struct {
	c              Config
	log            *slog.Logger // for what anybody can cause
	pods           *pods
	groups         *groups
	events, alerts *fair.Gate
	unpacking      chan struct{} // holds one for each message that is being unpacked
	works          sync.Pool     // *work
	metrics        *metrics
}

// New returns a relay.
func New(c Config) (*Relay, error) {
	r := &Relay{
		c: c, log: slog.New(telemetry.Limit(c.Telemetry.Logger().Handler(), time.Minute)),
		events: fair.New(c.Room), alerts: fair.New(c.Room / 4),
		unpacking: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
	}
	r.pods = newPods(&r.c)
	var err error
	if r.metrics, err = newMetrics(c.Telemetry, r); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	r.groups = newGroups(&r.c, r.metrics)
	r.works.New = func() any { return new(work) }
	return r, nil
}

// Handler serves POST /v1/events.
func (r *Relay) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/events", func(w http.ResponseWriter, req *http.Request) {
		a := r.take(w, req)
		r.metrics.answered(a)
		a.write(w)
	})
	return mux
}

// take does all for one request.
func (r *Relay) take(w http.ResponseWriter, req *http.Request) answer {
	ctx, cancel := context.WithTimeout(req.Context(), answerWithin)
	defer cancel()
	bearer, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	from, _, _ := net.SplitHostPort(req.RemoteAddr)
	who, err := r.c.Tokens.Authenticate(ctx, from, bearer)
	if err != nil {
		a := unauthenticated(err)
		r.log.Warn("a sender's token is not accepted", "address", req.RemoteAddr, "error", err)
		return a
	}
	kind := req.Header.Get("ce-type")
	size := req.ContentLength
	switch {
	case kind != envelope.TypeEvents && kind != envelope.TypeAlert:
		return refused(http.StatusBadRequest, reasonContent, fmt.Sprintf("the header ce-type is %.40q, want %q or %q", kind, envelope.TypeEvents, envelope.TypeAlert))
	case size < 0:
		return answer{status: http.StatusLengthRequired, reason: reasonContent, text: "the request has no Content-Length"}
	case size > r.c.MaxBody:
		return refused(http.StatusRequestEntityTooLarge, reasonSize, fmt.Sprintf("the message has %d bytes, allowed are %d", size, r.c.MaxBody))
	}
	gate, room := r.events, int(size)*usualRatio
	if kind == envelope.TypeAlert {
		gate, room = r.alerts, int(size)*2
	}
	p := r.pods.get(who)
	leave, why := p.enter(time.Now(), room)
	if leave == nil {
		return why
	}
	defer leave()
	grant, err := acquire(ctx, gate, who.UID, room)
	if err != nil {
		return later(reasonRoom, "the relay has no room: what came before waits for Pub/Sub")
	}
	defer grant.Release()

	k := r.works.Get().(*work)
	k.reset()
	reuse := true
	defer func() {
		if reuse && cap(k.out) <= keptWork {
			r.works.Put(k)
		}
	}()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWithin)) // a test's recorder has none
	if err := k.read(req.Body, int(size)); err != nil {
		return answer{status: http.StatusBadRequest, reason: reasonCut, text: "the body broke off"}
	}
	m := envelope.Message{Data: k.body, Attributes: map[string]string{"ce-type": kind, "content-encoding": req.Header.Get("content-encoding")}}
	if kind == envelope.TypeAlert {
		return r.alert(ctx, p, m)
	}
	if a := r.prepare(ctx, p, grant, k, m); a != nil {
		return *a
	}
	err = r.groups.publish(ctx, item{events: k.events, severity: k.severity, namespace: who.Namespace}, len(k.out))
	reuse = settled(err)
	p.told(k.conflict, err == nil)
	if err == nil {
		r.metrics.accept(k)
	}
	return verdict(err)
}

func acquire(ctx context.Context, g *fair.Gate, flow string, bytes int) (*fair.Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, roomWithin)
	defer cancel()
	return g.Acquire(ctx, flow, bytes)
}

// prepare unpacks m and writes p's identity over its events, into k. It returns an answer when that is all.
func (r *Relay) prepare(ctx context.Context, p *pod, grant *fair.Grant, k *work, m envelope.Message) *answer {
	lines, err := r.unpack(ctx, m)
	if err != nil {
		p.spend(time.Now(), 1, wasted(err, len(m.Data)))
		return new(unopened(err))
	}
	if !grant.Grow(2 * len(lines)) {
		return new(later(reasonRoom, "the relay has no room for what the message unpacks to"))
	}
	err = k.stamp(p, lines)
	p.spend(time.Now(), len(k.ends)+k.bad, max(len(k.out), len(lines))) // what is no event is work too
	if err != nil {
		return new(unopened(err))
	}
	if !grant.Grow(len(lines) + len(k.out)) {
		return new(later(reasonRoom, "the relay has no room for what the message unpacks to"))
	}
	r.metrics.malformed.Add(int64(k.bad))
	if len(k.ends) == 0 {
		return new(refused(http.StatusBadRequest, reasonContent, "none of the lines is an event"))
	}
	if k.lies > 0 {
		r.metrics.conflicts.Add(int64(k.lies))
		if e := p.conflict(time.Now(), k.claims, k.lies); e != nil {
			r.log.Warn("a pod says to be another", "pod", p.who.Namespace+"/"+p.who.Pod, "claims", k.claims)
			k.conflict = true
			k.add(e.AppendJSON(k.out), e.Severity)
		}
	}
	k.slice()
	return nil
}

// wasted is what a message of so many bytes that could not be opened counts as: a pod that sends nothing else is slowed down
// too.
func wasted(err error, size int) int {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded): // it was not looked at
		return 0
	case errors.Is(err, envelope.ErrTooLarge):
		return envelope.MaxUnpacked
	}
	return size * usualRatio
}

func (r *Relay) unpack(ctx context.Context, m envelope.Message) ([]byte, error) {
	select {
	case r.unpacking <- struct{}{}:
		defer func() { <-r.unpacking }()
		return m.Lines()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// alert publishes one alert, as what its pod is.
func (r *Relay) alert(ctx context.Context, p *pod, m envelope.Message) answer {
	p.spend(time.Now(), 1, len(m.Data)) // whatever it turns out to be
	a, err := m.Alert()
	if err != nil {
		return unopened(err)
	}
	if a.RuleID == "" || a.Fingerprint == "" { // any object decodes as an alert
		return refused(http.StatusBadRequest, reasonContent, "it is no alert: it names no rule, or has no fingerprint")
	}
	claims := p.stamp.Alert(a)
	source := envelope.Source{AgentID: p.agentID, Cluster: r.c.Cluster}
	if len(claims) > 0 {
		r.metrics.conflicts.Add(1)
		if e := p.conflict(time.Now(), claims, 1); e != nil {
			r.log.Warn("a pod says to be another", "pod", p.who.Namespace+"/"+p.who.Pod, "claims", claims)
			i := item{events: []event.Raw{e.AppendJSON(nil)}, severity: e.Severity, namespace: p.who.Namespace}
			err := r.groups.publish(ctx, i, len(i.events[0]))
			p.told(true, err == nil)
			if err != nil {
				return verdict(err)
			}
		}
	}
	err = r.groups.send(ctx, envelope.SealAlert(a, source, time.Now()), laneAlerts)
	if err == nil {
		r.metrics.accepted[laneAlerts].Add(1)
	}
	return verdict(err)
}

// keptWork bounds the memory that a work keeps for the next request.
const keptWork = 1 << 20

// work is what one request is worked on with.
type work struct {
	body     []byte
	out      []byte // the events as they go out
	ends     []int  // of each, in out
	events   []event.Raw
	severity event.Severity // the highest
	bad      int            // lines that are no events
	lies     int            // events that claim to be elsewhere
	claims   []claim        // of the first of them
	conflict bool           // an event about it is among the others
}

func (k *work) reset() {
	clear(k.events) // they may be parts of an out that is gone
	*k = work{body: k.body[:0], out: k.out[:0], ends: k.ends[:0], events: k.events[:0]}
}

func (k *work) read(from io.Reader, size int) error {
	if cap(k.body) < size {
		k.body = make([]byte, size)
	}
	k.body = k.body[:size]
	_, err := io.ReadFull(from, k.body)
	return err
}

var errTooMany = fmt.Errorf("%w: more than %d events", envelope.ErrTooLarge, envelope.MaxEvents)

// stamp writes p's identity over each of lines, and leaves out what is no event.
func (k *work) stamp(p *pod, lines []byte) error {
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte{'\n'})
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(k.ends)+k.bad == envelope.MaxEvents {
			return errTooMany
		}
		out, severity, claims, err := p.stamp.Event(k.out, line)
		if err != nil {
			k.bad++
			continue
		}
		if len(claims) > 0 {
			if k.lies++; k.claims == nil {
				k.claims = claims
			}
		}
		k.add(out, severity)
	}
	return nil
}

// add notes that out has one event more.
func (k *work) add(out []byte, severity event.Severity) {
	k.out = out
	k.ends = append(k.ends, len(out))
	k.severity = max(k.severity, severity)
}

// slice cuts out into events, once it does not move any more.
func (k *work) slice() {
	from := 0
	for _, end := range k.ends {
		k.events = append(k.events, event.Raw(k.out[from:end:end]))
		from = end
	}
}

// unopened is the answer to a message that could not be opened.
func unopened(err error) answer {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return later(reasonRoom, "the relay is busy")
	case errors.Is(err, envelope.ErrTooLarge):
		return refused(http.StatusRequestEntityTooLarge, reasonSize, err.Error())
	}
	return refused(http.StatusBadRequest, reasonContent, err.Error())
}
