package sweetsecurity

import (
	"io"

	"github.com/apss-sensor/apss/shared/event"
)

const (
	bodyHead  = `{"events":[`
	bodyComma = `,`
	bodyTail  = `]}`
)

// body reads as {"events":[...]} straight from the events: what is sent is copied once, into the connection's buffer.
type body struct {
	events []event.Raw
	pieces int    // pieces begun: the head, then event and comma in turn, then the tail
	rest   []byte // what is left of the piece being read
	fixed  [len(bodyHead)]byte
}

// bodyLen is how many bytes a body of events reads.
func bodyLen(events []event.Raw) int64 {
	n := len(bodyHead) + len(bodyTail) + max(0, len(events)-1)*len(bodyComma)
	for _, e := range events {
		n += len(e)
	}
	return int64(n)
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(b.rest) == 0 && !b.advance() {
			return n, io.EOF
		}
		c := copy(p[n:], b.rest)
		b.rest = b.rest[c:]
		n += c
	}
	return n, nil
}

// advance begins the next piece and reports whether there is one.
func (b *body) advance() bool {
	tail := max(2*len(b.events), 1)
	switch {
	case b.pieces == 0:
		b.rest = append(b.fixed[:0], bodyHead...)
	case b.pieces < tail && b.pieces%2 == 1:
		b.rest = b.events[b.pieces/2]
	case b.pieces < tail:
		b.rest = append(b.fixed[:0], bodyComma...)
	case b.pieces == tail:
		b.rest = append(b.fixed[:0], bodyTail...)
	default:
		return false
	}
	b.pieces++
	return true
}
