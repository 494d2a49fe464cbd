package forward

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/shared/batch"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// job is one push on its way.
type job struct {
	f         *Forward
	push      envelope.Push
	key       string
	known     marks // done at earlier deliveries
	total     int   // lines of the push
	notRouted int
	positions []int // of the item's events in the push; nil when the item has all of them
}

// letter is a dead letter of the push, and the marks that stand for what is in it.
type letter struct {
	message envelope.Message
	marks   []int
	events  int
	status  int
	reason  string
}

// pick returns the item of those events that are routed and not known to be done.
func (j *job) pick(events []event.Raw) *item {
	it := &item{events: events}
	if route := &j.f.cfg.Route; len(j.known) > 0 || !route.All() {
		it.events, j.positions = make([]event.Raw, 0, len(events)), make([]int, 0, len(events))
		for i, e := range events {
			switch {
			case !route.MatchEvent(e):
				j.notRouted++
			case !j.known.has(i):
				it.events = append(it.events, e)
				j.positions = append(j.positions, i)
			}
		}
	}
	for _, e := range it.events {
		it.size += len(e)
	}
	return it
}

// position is where in the push the item's event i is.
func (j *job) position(i int) int {
	if j.positions == nil {
		return i
	}
	return j.positions[i]
}

// settle publishes what was refused, remembers what is done when the push must come again, and returns Handle's result.
func (j *job) settle(ctx context.Context, it *item, letters []letter, verdict error) error {
	it.mu.Lock()
	finished := it.finished
	if !finished && errors.Is(verdict, batch.ErrUnderWay) {
		it.late = func() {
			j.remember(j.accepted(it))
			j.f.memory.end(j.key)
		}
	} else {
		defer j.f.memory.end(j.key)
	}
	it.mu.Unlock()

	var done marks
	if finished {
		done = j.accepted(it)
		letters = append(letters, j.letters(it)...)
	}
	var buried error
	letters = j.unknown(letters)
	if len(letters) > 0 {
		buried = j.bury(ctx, letters, &done)
	}
	if err := errors.Join(verdict, buried); err != nil {
		j.remember(done)
		if verdict != nil {
			return outcome.From(verdict)
		}
		return &outcome.Error{Class: outcome.Retry, Reason: "dead letters cannot be published", Err: buried}
	}
	if j.key != "" {
		j.f.memory.forget(j.key)
	}
	return nil
}

func (j *job) remember(done marks) {
	if dropped := j.f.memory.remember(time.Now(), j.key, done); dropped > 0 {
		j.f.metrics.forgotten.Add(context.Background(), int64(dropped), j.f.metrics.attributes)
	}
}

// accepted are the positions that the receiver accepted. The item must be finished.
func (j *job) accepted(it *item) (done marks) {
	for i, fate := range it.fates {
		if fate == accepted {
			done.set(j.position(i))
		}
	}
	return done
}

// unknown leaves out letters that were published at an earlier delivery.
func (j *job) unknown(letters []letter) []letter {
	kept := letters[:0]
	for _, l := range letters {
		if !j.known.has(l.marks[0]) {
			kept = append(kept, l)
		}
	}
	return kept
}

// letters makes one letter of all refused events with the same reason; of the whole push when all of it is refused for
// one reason.
func (j *job) letters(it *item) []letter {
	type cause struct {
		status int
		reason string
	}
	var order []cause
	events := make(map[cause][]int)
	for _, r := range it.refusals {
		c := cause{r.status, r.reason}
		if _, seen := events[c]; !seen {
			order = append(order, c)
		}
		events[c] = append(events[c], r.index)
	}
	letters := make([]letter, 0, len(order))
	for _, c := range order {
		l := letter{message: j.push.Message, events: len(events[c]), status: c.status, reason: c.reason}
		raws := make([]event.Raw, 0, len(events[c]))
		for _, i := range events[c] {
			l.marks = append(l.marks, j.position(i))
			raws = append(raws, it.events[i])
		}
		if len(raws) < j.total {
			l.message = part(j.push.Message, raws)
		}
		letters = append(letters, l)
	}
	return letters
}

// topic is what is pushed here, for the letters.
const topic = "events"

// publishing is how many letters of one push are on their way at the same time.
const publishing = 16

// bury publishes letters and adds to done what is safe.
func (j *job) bury(ctx context.Context, letters []letter, done *marks) error {
	ctx, cancel := context.WithTimeout(ctx, j.f.cfg.Bury)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs error
		room = make(chan struct{}, publishing)
	)
	for _, l := range letters {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			err := j.f.cfg.Dead.Publish(ctx, deadletter.Letter{
				Message: l.message, Integration: j.f.cfg.Name, Topic: topic, Subscription: j.push.Subscription, MessageID: j.push.ID,
				DeliveryAttempt: j.push.DeliveryAttempt, Status: l.status, Reason: l.reason,
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = err // one is enough to read: they have one cause
				return
			}
			for _, m := range l.marks {
				done.set(m)
			}
			j.f.metrics.events(ctx, fateDead, l.events)
			j.f.cfg.Log.WarnContext(ctx, "events went to the dead letters", "integration", j.f.cfg.Name, "events", l.events,
				"message_id", j.push.ID, "status", l.status, "reason", l.reason)
		})
	}
	wg.Wait()
	return errs
}

// plainPart is the size from which a part of a message is compressed: below it a person can read a dead letter.
const plainPart = 1 << 20

// part is a message of some of m's events: NDJSON, with m's attributes and an id of its own.
func part(m envelope.Message, events []event.Raw) envelope.Message {
	attributes := maps.Clone(m.Attributes)
	delete(attributes, "content-encoding")
	attributes["ce-id"] = event.NewID()
	attributes["count"] = strconv.Itoa(len(events))
	data := bytes.Join(rawBytes(events), []byte("\n"))
	if len(data) > plainPart {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(data) // a bytes.Buffer does not fail
		_ = w.Close()
		data = packed.Bytes()
		attributes["content-encoding"] = "gzip"
	}
	return envelope.Message{Data: data, Attributes: attributes}
}

func rawBytes(events []event.Raw) [][]byte {
	lines := make([][]byte, len(events))
	for i, e := range events {
		lines[i] = e
	}
	return lines
}
