package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

// The service's limits of a publish request, https://docs.cloud.google.com/pubsub/quotas#resource_limits
const (
	maxMessages      = 1_000
	maxMessageBytes  = 10_000_000
	defaultMaxBytes  = 512 << 20
	clearPstestAfter = 10_000
)

// server is pstest with queues in front of it.
type server struct {
	pstest   *pstest.Server
	log      *slog.Logger
	maxBytes int64
	bytes    atomic.Int64 // held by all queues
	clearing sync.WaitGroup
	refusal  atomic.Pointer[status.Status] // of every publish request; nil: none

	mu     sync.Mutex
	topics map[string]*topic
	boxes  map[string]*box // by the subscription's name
	ids    int64
	kept   int // messages that pstest keeps
}

type topic struct {
	queues     []*queue
	boxes      []*box
	subscribed bool // by a client, in pstest
}

func startServer(o Options, log *slog.Logger) (_ *server, err error) {
	s := &server{log: log, maxBytes: o.MaxBytes, topics: make(map[string]*topic), boxes: make(map[string]*box)}
	if s.maxBytes == 0 {
		s.maxBytes = defaultMaxBytes
	}
	addr := o.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	defer func() { // pstest has no other way to say that it cannot listen
		if r := recover(); r != nil {
			err = fmt.Errorf("starting Pub/Sub on %s: %v", addr, r)
		}
	}()
	s.pstest = pstest.NewServerWithAddress(addr,
		pstest.ServerReactorOption{FuncName: "Publish", Reactor: reactor(s.onPublish)},
		pstest.ServerReactorOption{FuncName: "CreateSubscription", Reactor: reactor(s.onSubscribe)},
		pstest.ServerReactorOption{FuncName: "Pull", Reactor: reactor(s.onPull)},
		pstest.ServerReactorOption{FuncName: "Acknowledge", Reactor: reactor(s.onAcknowledge)},
		pstest.ServerReactorOption{FuncName: "ModifyAckDeadline", Reactor: reactor(s.onModify)})
	return s, nil
}

func (s *server) addr() string { return s.pstest.Addr }

func (s *server) close() error {
	s.clearing.Wait()
	return s.pstest.Close()
}

func (s *server) subscribe(name string) *queue {
	q := &queue{server: s, leased: make(map[string]int), wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topic(name)
	t.queues = append(t.queues, q)
	return q
}

func (s *server) topic(name string) *topic {
	t := s.topics[name]
	if t == nil {
		t = new(topic)
		s.topics[name] = t
	}
	return t
}

// reactor is a hook of pstest, which calls it under its own lock.
type reactor func(request any) (handled bool, response any, err error)

func (r reactor) React(request any) (bool, any, error) { return r(request) }

func (s *server) onSubscribe(request any) (bool, any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topic(request.(*pubsubpb.Subscription).GetTopic()).subscribed = true
	return false, nil, nil
}

func (s *server) onPublish(request any) (bool, any, error) {
	req := request.(*pubsubpb.PublishRequest)
	size, err := check(req)
	if err != nil {
		return true, nil, err
	}
	if refusal := s.refusal.Load(); refusal != nil {
		return true, nil, refusal.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[req.GetTopic()]
	if t == nil || len(t.queues)+len(t.boxes) == 0 && t.subscribed {
		return false, nil, nil
	}
	size *= int64(len(t.queues))
	if s.bytes.Add(size) > s.maxBytes {
		s.bytes.Add(-size)
		return true, nil, status.Errorf(codes.ResourceExhausted, "%d MiB of messages wait already", s.maxBytes>>20)
	}
	now := time.Now()
	resp := new(pubsubpb.PublishResponse)
	for _, m := range req.GetMessages() {
		s.ids++
		id := strconv.FormatInt(s.ids, 10)
		resp.MessageIds = append(resp.MessageIds, id)
		for _, q := range t.queues {
			q.push(dispatch.Message{ID: id, Lease: id, Data: m.GetData(), Attributes: maps.Clone(m.GetAttributes()),
				OrderingKey: m.GetOrderingKey(), PublishTime: now})
		}
		for _, b := range t.boxes {
			b.put(id, m, now)
		}
	}
	if !t.subscribed {
		return true, resp, nil
	}
	if s.kept += len(req.GetMessages()); s.kept >= clearPstestAfter {
		s.kept = 0
		s.clearing.Go(s.pstest.ClearMessages) // takes the lock that is held here
	}
	return false, nil, nil
}

// check returns the size of a request that the service would take.
func check(req *pubsubpb.PublishRequest) (size int64, err error) {
	if n := len(req.GetMessages()); n == 0 || n > maxMessages {
		return 0, status.Errorf(codes.InvalidArgument, "%d messages in a request: must be from 1 to %d", n, maxMessages)
	}
	for i, m := range req.GetMessages() {
		if len(m.GetData()) == 0 && len(m.GetAttributes()) == 0 {
			return 0, status.Errorf(codes.InvalidArgument, "message %d has neither data nor attributes", i)
		}
		size += messageSize(m.GetData(), m.GetAttributes())
	}
	if size > maxMessageBytes {
		return 0, status.Errorf(codes.InvalidArgument, "%d bytes in a request: must be %d at most", size, maxMessageBytes)
	}
	return size, nil
}

func messageSize(data []byte, attributes map[string]string) int64 {
	size := len(data)
	for k, v := range attributes {
		size += len(k) + len(v)
	}
	return int64(size)
}

// queue is a subscription in this process. Its bound is the server's.
type queue struct {
	server *server
	wake   chan struct{} // holds one token while waiting may have something

	mu      sync.Mutex
	waiting []dispatch.Message
	leased  map[string]int // sizes of what was received and is not done
}

func (q *queue) push(m dispatch.Message) {
	q.mu.Lock()
	q.waiting = append(q.waiting, m)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Receive implements [dispatch.Source].
func (q *queue) Receive(ctx context.Context, limit int) ([]dispatch.Message, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.wake:
		}
		if messages := q.pop(limit); len(messages) > 0 {
			return messages, nil
		}
	}
}

func (q *queue) pop(limit int) []dispatch.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(limit, len(q.waiting))
	messages := q.waiting[:n:n]
	if q.waiting = q.waiting[n:]; len(q.waiting) > 0 {
		q.signal()
	} else {
		q.waiting = nil // lets go of the array under it
	}
	for _, m := range messages {
		q.leased[m.Lease] = int(messageSize(m.Data, m.Attributes))
	}
	return messages
}

// Done implements [dispatch.Source].
func (q *queue) Done(_ context.Context, lease string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.server.bytes.Add(-int64(q.leased[lease]))
	delete(q.leased, lease)
	return nil
}

// Backlog implements [Source].
func (q *queue) Backlog() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}
