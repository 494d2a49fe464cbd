package dispatch

import (
	"container/heap"
	"container/list"
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Source is where messages come from. What Receive returned stays leased to the caller, however long, until Done.
type Source interface {
	// Receive blocks until there is a message or ctx ends, and returns up to limit of them.
	Receive(ctx context.Context, limit int) ([]Message, error)
	// Done drops a message for good.
	Done(ctx context.Context, lease string) error
}

// Publisher takes dead letters.
type Publisher interface {
	Publish(ctx context.Context, topic string, m Message) error
}

// Options are what the service does not let a user set. Zero values take the defaults named here.
type Options struct {
	Transport      http.RoundTripper // a transport with a connection for each request in flight
	MaxInFlight    int               // requests out at once: 1,000
	MaxHeld        int               // messages taken from the source and not yet done: 10,000
	MaxPushBackoff time.Duration     // the service's 60 s
	Grace          time.Duration     // for requests in flight when Run ends: 2 s
	Log            *slog.Logger      // slog.Default()
}

// Stats counts what happened since the start and what is in hand now, in messages; Events counts what the messages'
// attribute "count" says they carry.
type Stats struct {
	Received     int64 // from the source, without what the filter dropped
	Filtered     int64
	Requests     int64
	Acked        int64
	Failed       int64
	Expired      int64
	DeadLettered int64
	Held         int // received and neither acked nor dead-lettered
	HeldEvents   int
	Oldest       time.Time // when the first of those was published that are held; zero: none is
	InFlight     int
	Window       int
	Paused       bool
	BackedOff    bool   // by push backoff
	LastFailure  string // reason of the last request that was not acknowledged
}

// Dispatcher pushes one subscription. Make it with New; Run it once; the other methods are for any goroutine.
type Dispatcher struct {
	sub    Subscription
	filter Filter
	source Source
	dead   Publisher
	opts   Options

	mu     sync.Mutex
	paused bool
	stats  Stats
	wake   chan struct{}
}

// New returns a dispatcher of sub. It checks the filter only: tests want ack deadlines that the service would refuse;
// see [Subscription.Validate].
func New(sub Subscription, source Source, dead Publisher, o Options) (*Dispatcher, error) {
	filter, err := ParseFilter(sub.Filter)
	if err != nil {
		return nil, err
	}
	o.MaxInFlight = orDefault(o.MaxInFlight, 1_000)
	o.MaxHeld = orDefault(o.MaxHeld, 10_000)
	o.MaxPushBackoff = orDefault(o.MaxPushBackoff, maxPushBackoff)
	o.Grace = orDefault(o.Grace, 2*time.Second)
	if o.Transport == nil {
		o.Transport = &http.Transport{MaxIdleConnsPerHost: o.MaxInFlight, IdleConnTimeout: time.Minute, DisableCompression: true}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Dispatcher{sub: sub, filter: filter, source: source, dead: dead, opts: o, wake: make(chan struct{}, 1)}, nil
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Pause lets no new request start until Resume; those in flight end as they would.
func (d *Dispatcher) Pause() { d.setPaused(true) }

// Resume ends a Pause.
func (d *Dispatcher) Resume() { d.setPaused(false) }

func (d *Dispatcher) setPaused(v bool) {
	d.mu.Lock()
	d.paused = v
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Stats returns the counters of this moment.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Paused = d.paused
	return s
}

// held is a message in hand.
type held struct {
	Message
	attempt int // of the last request
	due     time.Time
	events  int
	place   *list.Element
}

type result struct {
	*held
	verdict verdict
	reason  string
}

// Run pushes until ctx ends; then nothing new starts, requests in flight have Options.Grace to end, and what was not
// acknowledged stays with the source.
func (d *Dispatcher) Run(ctx context.Context) {
	r := run{Dispatcher: d, pace: newPace(d.opts.MaxInFlight, d.opts.MaxPushBackoff),
		wants: make(chan int), arrived: make(chan []Message), results: make(chan result)}
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	var receiver sync.WaitGroup
	receiver.Go(func() { r.receive(ctx) })
	r.loop(ctx, requests)

	grace := time.AfterFunc(d.opts.Grace, cancel)
	defer grace.Stop()
	for r.inFlight > 0 {
		r.settle(<-r.results)
	}
	receiver.Wait()
	r.publishStats()
}

// run is the state of Run; all of it but the channels belongs to the goroutine of Run.
type run struct {
	*Dispatcher
	wants   chan int       // how many messages the receiver may fetch
	arrived chan []Message // what it fetched
	results chan result

	pace      pace
	ready     []*held   // never tried
	waiting   dueHeap   // to be tried again
	held      list.List // of *held, as they came, which is nearly as they were published
	heldEvent int
	inFlight  int
	fetching  bool
	counters  Stats
}

// receive fetches as many messages as the loop wants, and tries again after trouble.
func (r *run) receive(ctx context.Context) {
	for {
		var limit int
		select {
		case limit = <-r.wants:
		case <-ctx.Done():
			return
		}
		messages, err := r.source.Receive(ctx, limit)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.opts.Log.Warn("receiving from the broker", "subscription", r.sub.Name, "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return
			}
		}
		select {
		case r.arrived <- messages:
		case <-ctx.Done():
			return
		}
	}
}

// loop runs until ctx ends. The context of requests outlives it by the grace.
func (r *run) loop(ctx, requests context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(r.start(requests, time.Now()))
		r.publishStats()
		var wants chan int
		room := r.opts.MaxHeld - r.held.Len()
		if !r.fetching && room > 0 {
			wants = r.wants
		}
		select {
		case wants <- room:
			r.fetching = true
		case messages := <-r.arrived:
			r.fetching = false
			r.take(requests, messages)
		case res := <-r.results:
			r.settle(res)
		case <-timer.C:
		case <-r.wake:
		case <-ctx.Done():
		}
	}
}

// start starts every request that may start now and returns how long nothing else can, if nothing happens.
func (r *run) start(requests context.Context, now time.Time) time.Duration {
	const idle = time.Hour
	r.mu.Lock()
	paused := r.paused
	r.mu.Unlock()
	if paused || r.inFlight >= r.pace.size() {
		return idle
	}
	if wait := r.pace.until.Sub(now); wait > 0 {
		return wait
	}
	for r.inFlight < r.pace.size() {
		var h *held
		switch {
		case len(r.waiting) > 0 && !r.waiting[0].due.After(now):
			h = heap.Pop(&r.waiting).(*held)
		case len(r.ready) > 0:
			h, r.ready[0] = r.ready[0], nil
			r.ready = r.ready[1:]
		case len(r.waiting) > 0:
			return r.waiting[0].due.Sub(now)
		default:
			return idle
		}
		h.attempt++
		r.inFlight++
		r.counters.Requests++
		go func() { r.results <- r.deliver(requests, h) }() // settle takes every result, also after Run's context ended
	}
	return idle
}

// take counts messages in, and drops those that the filter refuses: the service acknowledges them itself.
func (r *run) take(ctx context.Context, messages []Message) {
	for _, m := range messages {
		if !r.filter.Match(m.Attributes) {
			r.counters.Filtered++
			if err := r.source.Done(ctx, m.Lease); err != nil {
				r.opts.Log.Warn("acknowledging a filtered message", "id", m.ID, "error", err)
			}
			continue
		}
		events, _ := strconv.Atoi(m.Attributes["count"]) // 0 for what is not ours
		r.counters.Received++
		h := &held{Message: m, events: events}
		h.place = r.held.PushBack(h)
		r.heldEvent += events
		r.ready = append(r.ready, h)
	}
}

// deliver makes one attempt and, where it was the last, the dead letter. When that cannot be published, the message
// stays and is tried again, as the service does.
func (r *run) deliver(ctx context.Context, h *held) result {
	v, reason := r.sub.push(ctx, r.opts.Transport, h.Message, h.attempt)
	if v != acked && r.sub.DeadLetterTopic != "" && h.attempt >= r.sub.MaxDeliveryAttempts && ctx.Err() == nil {
		err := r.dead.Publish(ctx, r.sub.DeadLetterTopic, r.sub.deadLetter(h.Message, h.attempt))
		if err == nil {
			v = deadLettered
		} else {
			r.opts.Log.Warn("publishing a dead letter", "id", h.ID, "error", err)
		}
	}
	if v == acked || v == deadLettered {
		if err := r.source.Done(ctx, h.Lease); err != nil {
			// The broker will deliver it again: at least once.
			r.opts.Log.Warn("acknowledging a message", "id", h.ID, "error", err)
		}
	}
	return result{h, v, reason}
}

// settle takes the result of an attempt.
func (r *run) settle(res result) {
	now := time.Now()
	r.inFlight--
	switch res.verdict {
	case acked:
		r.counters.Acked++
		r.pace.success()
		r.drop(res.held)
		return
	case deadLettered:
		r.counters.DeadLettered++
		r.drop(res.held)
	case expired:
		r.counters.Expired++
	case failed:
		r.counters.Failed++
	}
	r.counters.LastFailure = res.reason
	r.pace.failure(now)
	if res.verdict != deadLettered {
		res.due = now.Add(r.sub.retryDelay(res.attempt))
		heap.Push(&r.waiting, res.held)
	}
}

func (r *run) drop(h *held) {
	r.held.Remove(h.place)
	r.heldEvent -= h.events
}

func (r *run) publishStats() {
	s := r.counters
	s.Held, s.HeldEvents, s.InFlight, s.Window = r.held.Len(), r.heldEvent, r.inFlight, r.pace.size()
	if first := r.held.Front(); first != nil {
		s.Oldest = first.Value.(*held).PublishTime
	}
	s.BackedOff = time.Now().Before(r.pace.until)
	r.mu.Lock()
	r.stats = s
	r.mu.Unlock()
}

// dueHeap orders what waits for its next attempt by when that is due.
type dueHeap []*held

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(*held)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
