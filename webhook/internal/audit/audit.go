// Package audit tells who created which pod, and who ran something in one: admission_pod and admission_exec events.
//
// [Audit.Observe] puts what it gets into a queue, bounded in number and bytes, and returns; what does not fit is
// dropped and counted. [Audit.Run] makes events of it, batches them (100 events or a second) and publishes; what cannot be
// published is tried again while the queue takes what comes, and given up only when we end or Pub/Sub will never take it.
//
// Limits. An event says what was attempted: a later webhook or quota may have refused it. The API server calls again
// when a later webhook changed the pod, each time with another uid: metadata.dedupe is equal for what is the same in the
// eyes of a person. Of a command only the program is told: its arguments may hold secrets, and the agent in the pod, which
// takes these out, tells of them. Lists and strings are cut to bounds.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/webhook/internal/admission"
	"github.com/apss-sensor/apss/webhook/internal/decide"
)

// Publisher takes a message and returns nil when it is safe. Its errors are outcomes.
type Publisher interface {
	Publish(ctx context.Context, m envelope.Message) error
}

// Counter counts.
type Counter interface{ Add(n int64) }

// Config says who tells. All fields are required.
type Config struct {
	Cluster   string
	AgentID   string
	Node      string // may be empty
	Queue     int    // requests and events that may wait
	Publisher Publisher
	// Dropped counts what found no room, or could never be published; Published what was.
	Dropped, Published Counter
	Log                *slog.Logger
}

// maxBytes bounds the objects that wait.
const maxBytes = 32 << 20

// A batch is sealed with so many events, or so long after its first.
const (
	sealCount = 100
	sealAfter = time.Second
)

// Audit is made by New. Its methods may be called concurrently.
type Audit struct {
	cfg   Config
	queue chan item
	bytes atomic.Int64
}

// item is a request, or an event that is made already.
type item struct {
	at       time.Time
	request  admission.Request
	decision decide.Decision
	event    *event.Event
}

// New returns an Audit that does nothing before Run.
func New(c Config) *Audit { return &Audit{cfg: c, queue: make(chan item, c.Queue)} }

// Observe takes a request for pods or for running something in one; others are passed over. q stays as it is from then on.
func (a *Audit) Observe(q *admission.Request, d *decide.Decision) {
	if kindOf(q) == "" {
		return
	}
	size := int64(len(q.Object))
	if a.bytes.Add(size) > maxBytes {
		a.bytes.Add(-size)
		a.cfg.Dropped.Add(1)
		return
	}
	a.put(item{at: time.Now(), request: *q, decision: *d})
}

// Tell takes an event that lacks only id, cluster and agent.
func (a *Audit) Tell(e *event.Event) { a.put(item{event: e}) }

func (a *Audit) put(i item) {
	select {
	case a.queue <- i:
	default:
		a.bytes.Add(-int64(len(i.request.Object)))
		a.cfg.Dropped.Add(1)
	}
}

// Run publishes until ctx ends, and then for at most grace what is in hand.
func (a *Audit) Run(ctx context.Context, grace time.Duration) {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	defer stop()
	var batch envelope.Batch
	seal := time.NewTimer(sealAfter)
	seal.Stop()
	for {
		select {
		case i := <-a.queue:
			if a.add(&batch, i); batch.Len() == 1 {
				seal.Reset(sealAfter)
			}
			if batch.Len() < sealCount {
				continue
			}
		case <-seal.C:
		case <-ctx.Done():
			a.rest(last, &batch)
			return
		}
		a.publish(last, &batch)
	}
}

// rest publishes what waits at the end.
func (a *Audit) rest(ctx context.Context, batch *envelope.Batch) {
	for {
		select {
		case i := <-a.queue:
			if a.add(batch, i); batch.Len() < sealCount {
				continue
			}
			a.publish(ctx, batch)
		default:
			a.publish(ctx, batch)
			return
		}
	}
}

func (a *Audit) add(batch *envelope.Batch, i item) {
	a.bytes.Add(-int64(len(i.request.Object)))
	e := i.event
	if e == nil {
		e = describe(&i)
	}
	e.ID, e.Cluster, e.AgentID = event.NewID(), a.cfg.Cluster, a.cfg.AgentID
	batch.Append(e)
}

// publish sends the batch, and does not return before it is safe or given up.
func (a *Audit) publish(ctx context.Context, batch *envelope.Batch) {
	n := int64(batch.Len())
	if n == 0 {
		return
	}
	message := batch.Seal(envelope.Source{AgentID: a.cfg.AgentID, Cluster: a.cfg.Cluster}, time.Now())
	const longest = 30 * time.Second
	for pause := time.Second; ; pause = min(2*pause, longest) {
		err := a.cfg.Publisher.Publish(ctx, message)
		if err == nil {
			a.cfg.Published.Add(n)
			return
		}
		var o *outcome.Error
		if errors.As(err, &o) && o.Class == outcome.Permanent || ctx.Err() != nil {
			a.cfg.Dropped.Add(n)
			a.cfg.Log.ErrorContext(ctx, "admission events are lost", "events", n, "error", err.Error())
			return
		}
		a.cfg.Log.WarnContext(ctx, "admission events could not be published; it is tried again", "events", n, "error", err.Error())
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// Lines is a Publisher that prints the events, one each line, for a person.
type Lines struct{ W io.Writer }

// Publish implements Publisher.
func (l Lines) Publish(_ context.Context, m envelope.Message) error {
	events, err := m.Events(nil)
	if err != nil {
		return fmt.Errorf("reading what was just sealed: %w", err)
	}
	for _, e := range events {
		if _, err := l.W.Write(append(e[:len(e):len(e)], '\n')); err != nil {
			return fmt.Errorf("printing events: %w", err)
		}
	}
	return nil
}

// Nowhere is a Publisher for who wants no events.
type Nowhere struct{}

// Publish implements Publisher.
func (Nowhere) Publish(context.Context, envelope.Message) error { return nil }
