package forward

import (
	"container/list"
	"math/bits"
	"sync"
	"time"
)

const (
	// maxRemembered messages are remembered, at most 1,250 bytes each: one bit for each of [envelope.MaxEvents].
	maxRemembered = 10_000
	// rememberFor outlasts the longest pause before a redelivery: the retry policy's backoff ends at 600 s, the ack
	// deadline at 600 s (cloud.google.com/pubsub/docs/handling-failures, .../docs/lease-management).
	rememberFor = 20 * time.Minute
)

// marks are positions in a message.
type marks []uint64

func (m marks) has(i int) bool { return i/64 < len(m) && m[i/64]&(1<<(i%64)) != 0 }

func (m *marks) set(i int) {
	for len(*m) <= i/64 {
		*m = append(*m, 0)
	}
	(*m)[i/64] |= 1 << (i % 64)
}

func (m marks) count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// memory knows, of messages that will be delivered again, what is done already. Messages are immutable, so positions
// are enough. It is one instance's: another instance of the function, or this one after a restart, sends a redelivered
// message whole. A message answered with 2xx is forgotten, so that an operator can replay it.
//
// It also knows the messages that are being delivered: one that comes again meanwhile, because its push was given up, must
// wait for what the first delivery comes to.
type memory struct {
	mu       sync.Mutex
	underWay map[string]struct{}
	known    map[string]*list.Element // of *remembered
	order    list.List                // oldest first
}

type remembered struct {
	message string
	done    marks
	until   time.Time
}

// begin reports whether message may be delivered now: false while an earlier delivery is under way. An empty message always
// may.
func (m *memory) begin(message string) bool {
	if message == "" {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, busy := m.underWay[message]; busy {
		return false
	}
	if m.underWay == nil {
		m.underWay = make(map[string]struct{})
	}
	m.underWay[message] = struct{}{}
	return true
}

// end says that the delivery that began is over.
func (m *memory) end(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.underWay, message)
}

// recall returns what is done of message. The result must not be changed.
func (m *memory) recall(now time.Time, message string) marks {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[message]
	if e == nil || now.After(e.Value.(*remembered).until) {
		return nil
	}
	return e.Value.(*remembered).done
}

// remember adds done to what is done of message, and returns how many messages were forgotten to have room.
func (m *memory) remember(now time.Time, message string, done marks) (dropped int) {
	if message == "" || done.count() == 0 {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[message]; e != nil {
		old := e.Value.(*remembered).done
		for i := range old { // a new slice: recall hands the old one out
			for len(done) <= i {
				done = append(done, 0)
			}
			done[i] |= old[i]
		}
		m.drop(e)
	}
	for e := m.order.Front(); e != nil; e = m.order.Front() {
		expired := now.After(e.Value.(*remembered).until)
		if !expired && m.order.Len() < maxRemembered {
			break
		}
		if !expired {
			dropped++
		}
		m.drop(e)
	}
	if m.known == nil {
		m.known = make(map[string]*list.Element)
	}
	m.known[message] = m.order.PushBack(&remembered{message, done, now.Add(rememberFor)})
	return dropped
}

// forget drops message: it will not come again.
func (m *memory) forget(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[message]; e != nil {
		m.drop(e)
	}
}

func (m *memory) drop(e *list.Element) {
	delete(m.known, e.Value.(*remembered).message)
	m.order.Remove(e)
}
