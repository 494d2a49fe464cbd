package relay

import (
	"context"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/batch"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Seal says when a message of many pods is published: whichever is reached first.
type Seal struct {
	Count int           // events
	Bytes int           // of the events, not compressed
	After time.Duration // since the first came
}

const (
	// urgentAfter is how long a message with a HIGH event waits for others like it.
	urgentAfter = 5 * time.Millisecond
	// flights is how many messages of one kind are published at the same time.
	flights = 8
)

// item is what one request has for a message.
type item struct {
	events    []event.Raw
	severity  event.Severity // the highest
	namespace string
}

// kind is what tells shared messages apart: all in one have the attributes that filters look at.
type kind struct {
	namespace string // empty for all that share
	urgent    bool   // HIGH and above
}

// groups gather the items of many requests, a group for each kind. A group is there as long as somebody waits in it.
type groups struct {
	c       *Config
	metrics *metrics
	batches sync.Pool // *envelope.Batch

	mu     sync.Mutex
	groups map[kind]*group
}

type group struct {
	*batch.Group[item]
	callers int
}

func newGroups(c *Config, m *metrics) *groups {
	g := &groups{c: c, metrics: m, groups: make(map[kind]*group)}
	g.batches.New = func() any { return new(envelope.Batch) }
	return g
}

// publish hands i, whose events have so many bytes, to the group of its kind and waits for its verdict.
func (g *groups) publish(ctx context.Context, i item, bytes int) error {
	k := kind{urgent: i.severity >= event.High}
	if g.c.Apart(i.namespace) {
		k.namespace = i.namespace
	}
	g.mu.Lock()
	in := g.groups[k]
	if in == nil {
		in = &group{Group: batch.New(g.limits(k), g.flush)}
		g.groups[k] = in
	}
	in.callers++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if in.callers--; in.callers == 0 {
			delete(g.groups, k)
		}
	}()
	return in.Do(ctx, i, batch.Weight{Count: len(i.events), Bytes: bytes})
}

func (g *groups) limits(k kind) batch.Limits {
	l := batch.Limits{
		Count: g.c.Seal.Count, Bytes: g.c.Seal.Bytes, Linger: g.c.Seal.After, Flushes: flights,
		Waiting: 4 * g.c.Room, // room was given before
	}
	if k.urgent {
		l.Linger = min(l.Linger, urgentAfter)
	}
	return l
}

// flush publishes items as one message; when Pub/Sub will never accept that, each for itself.
func (g *groups) flush(ctx context.Context, items []item) []error {
	verdicts := make([]error, len(items))
	err := g.seal(ctx, items)
	for i := range items {
		verdicts[i] = err
		if len(items) > 1 && err != nil && outcome.From(err).Class == outcome.Permanent {
			verdicts[i] = g.seal(ctx, items[i:i+1])
		}
	}
	return verdicts
}

// seal publishes items as one message.
func (g *groups) seal(ctx context.Context, items []item) error {
	b := g.batches.Get().(*envelope.Batch)
	for i := range items {
		for _, e := range items[i].events {
			b.AppendRaw(e, items[i].severity, items[i].namespace)
		}
	}
	fill := max(float64(b.Len())/float64(g.c.Seal.Count), float64(b.Size())/float64(g.c.Seal.Bytes))
	m := b.Seal(envelope.Source{AgentID: g.c.AgentID, Cluster: g.c.Cluster}, time.Now())
	g.batches.Put(b)
	g.metrics.fill.Record(ctx, min(fill, 1))
	return g.send(ctx, m, laneEvents)
}

// send publishes m.
func (g *groups) send(ctx context.Context, m envelope.Message, l lane) error {
	began := time.Now()
	err := g.c.Publisher.Publish(ctx, m)
	g.metrics.published(ctx, l, len(m.Data), time.Since(began), err)
	if err != nil {
		g.metrics.trouble.Error("publishing; the senders keep what it was", "error", err)
	}
	return err
}
