package relay

import (
	"sync"
	"time"

	"github.com/apss-sensor/apss/edge/internal/relay/stamp"
	"github.com/apss-sensor/apss/edge/internal/relay/token"
	"github.com/apss-sensor/apss/shared/event"
)

type claim = stamp.Claim

// PodLimits bound what one pod may ask for.
type PodLimits struct {
	Requests      int     // at the same time
	Events, Bytes float64 // in a second, unpacked, over time; at once ten times of it
}

const (
	// forgetAfter is how long a pod that does not speak is known, quiet how long it counts as one that speaks.
	forgetAfter = 10 * time.Minute
	quiet       = 5 * time.Minute
	// conflictEvery bounds the events about one pod that says to be another.
	conflictEvery = 5 * time.Minute
)

// pods are those that speak. They are as many as the API server attests.
type pods struct {
	c *Config

	mu    sync.Mutex
	known map[string]*pod // by uid
	swept time.Time
}

func newPods(c *Config) *pods { return &pods{c: c, known: make(map[string]*pod)} }

// pod is one that speaks.
type pod struct {
	c       *Config
	who     token.Identity
	agentID string
	stamp   *stamp.Stamp

	mu            sync.Mutex
	last          time.Time
	running, held int // requests, and the room that they asked for
	events, bytes bucket
	toldAt        time.Time // of a conflict
	untold        int       // events that claimed to be elsewhere since
}

// get returns the state of a pod.
func (ps *pods) get(who *token.Identity) *pod {
	now := time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.known[who.UID]
	if p == nil || p.who != *who { // its node may be known only now
		if now.Sub(ps.swept) > time.Minute {
			ps.swept = now
			ps.sweep(now)
		}
		id := ps.c.Cluster + "/" + who.Pod
		p = &pod{
			c: ps.c, who: *who, agentID: id,
			stamp:  stamp.New(stamp.Place{AgentID: id, Cluster: ps.c.Cluster, Node: who.Node, Pod: who.Pod, Namespace: who.Namespace}),
			events: bucket{rate: ps.c.Pod.Events}, bytes: bucket{rate: ps.c.Pod.Bytes},
		}
		ps.known[who.UID] = p
	}
	p.mu.Lock()
	p.last = now
	p.mu.Unlock()
	return p
}

func (ps *pods) sweep(now time.Time) {
	for uid, p := range ps.known {
		p.mu.Lock()
		gone := p.running == 0 && now.Sub(p.last) > forgetAfter
		p.mu.Unlock()
		if gone {
			delete(ps.known, uid)
		}
	}
}

// speaking returns how many pods spoke lately.
func (ps *pods) speaking() (n int64) {
	now := time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.known {
		p.mu.Lock()
		if now.Sub(p.last) <= quiet {
			n++
		}
		p.mu.Unlock()
	}
	return n
}

// enter lets one request in, which asks for room; leave must be called when it is over. Without leave the answer says why
// not.
func (p *pod) enter(now time.Time, room int) (leave func(), why answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch wait := max(p.events.debt(now), p.bytes.debt(now)); {
	case p.running >= p.c.Pod.Requests:
		return nil, later(reasonRequests, "the pod has too many requests under way")
	case wait > 0:
		a := later(reasonRate, "the pod sends more than its share")
		a.after = wait
		return nil, a
	case p.running > 0 && p.held+room > p.c.Room/podShare:
		return nil, later(reasonShare, "the pod's requests under way take more than its share of the relay's room")
	}
	p.running++
	p.held += room
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
		p.held -= room
	}, answer{}
}

// spend takes what a request turned out to have off the pod's rates.
func (p *pod) spend(now time.Time, events, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events.spend(now, float64(events))
	p.bytes.spend(now, float64(bytes))
}

// burst is how many seconds of its rate a bucket holds: what a pod has gathered in an outage goes faster than usual.
const burst = 10

// bucket is a token bucket that may be overdrawn: what a request costs is known when it was unpacked.
type bucket struct {
	rate  float64 // in a second
	level float64
	at    time.Time // of level; zero: full
}

func (b *bucket) fill(now time.Time) {
	if b.at.IsZero() {
		b.level = b.rate * burst
	} else if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.level = min(b.level+passed*b.rate, b.rate*burst)
	}
	b.at = now
}

// debt returns how long it takes until b is not overdrawn.
func (b *bucket) debt(now time.Time) time.Duration {
	b.fill(now)
	return time.Duration(max(-b.level/b.rate, 0) * float64(time.Second))
}

func (b *bucket) spend(now time.Time, n float64) {
	b.fill(now)
	b.level -= n
}

// conflict returns the event about n events that claimed to be elsewhere, or nil while one was told not long ago. Told must
// follow an event.
func (p *pod) conflict(now time.Time, claims []claim, n int) *event.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.untold += n
	if !p.toldAt.IsZero() && now.Sub(p.toldAt) < conflictEvery {
		return nil
	}
	severity := event.Medium // another cluster's or agent's name may be a setting
	claimed := make(map[string]any, len(claims))
	for _, c := range claims {
		claimed[c.Member] = c.Value
		if c.Member != "cluster" && c.Member != "agent_id" {
			severity = event.High
		}
	}
	e := &event.Event{
		ID: event.NewID(), AgentID: p.c.AgentID, Type: event.AgentIdentityConflict, Severity: severity, Timestamp: now,
		Cluster: p.c.Cluster, NodeName: p.who.Node, PodName: p.who.Pod, PodNamespace: p.who.Namespace,
		Metadata: map[string]any{
			"claimed": claimed, "events": p.untold, "pod_uid": p.who.UID, "service_account": p.who.ServiceAccount,
			"reason": "the pod's token proves where it is; its events said something else, which was written over",
		},
	}
	p.toldAt, p.untold = now, 0
	return e
}

// told notes whether the event about a conflict, if there was one, was published.
func (p *pod) told(conflict, published bool) {
	if !conflict || published {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toldAt = time.Time{}
}
