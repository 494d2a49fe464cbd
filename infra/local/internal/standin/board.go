package standin

import (
	"slices"
	"sync"
	"time"
)

// Message is something that a person sees at a receiver, as it looks now.
type Message struct {
	ID    string // the receiver's own
	Key   string // what several may have in common: a dedup key
	Title string
	Text  string // all that is shown, in lines, the title among them
	State string // "" or a word of the receiver's: "open", "resolved"
	// Edits count how often it was changed in place, Thread are the replies below it.
	Edits       int
	Thread      []string
	At, Changed time.Time
}

// Board remembers what a receiver shows, the newest messages of it. Safe for concurrent use.
type Board struct {
	// Changed is told of each message that is new or has changed; nil: nobody is. It must not call the board.
	Changed func(Message)

	mu       sync.Mutex
	messages []*Message // oldest first
	posted   int
}

// boardLength is how many messages a Board keeps.
const boardLength = 2_000

// Post adds a message, whose At and Changed it sets.
func (b *Board) Post(m Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.At = time.Now()
	m.Changed = m.At
	b.posted++
	b.messages = append(b.messages[max(0, len(b.messages)-boardLength+1):], &m)
	b.tell(&m)
}

// Change changes the newest message for which which returns true, and reports whether there is one.
func (b *Board) Change(which func(*Message) bool, change func(*Message)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range slices.Backward(b.messages) {
		if which(m) {
			change(m)
			m.Changed = time.Now()
			b.tell(m)
			return true
		}
	}
	return false
}

func (b *Board) tell(m *Message) {
	if b.Changed != nil {
		b.Changed(m.clone())
	}
}

func (m *Message) clone() Message {
	c := *m
	c.Thread = slices.Clone(m.Thread)
	return c
}

// Messages returns those that are kept, oldest first.
func (b *Board) Messages() []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Message, len(b.messages))
	for i, m := range b.messages {
		all[i] = m.clone()
	}
	return all
}

// Posted is how many messages there ever were.
func (b *Board) Posted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.posted
}
