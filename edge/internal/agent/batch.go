package agent

import (
	"bytes"
	"math"
	"time"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/shared/envelope"
)

// packing takes what is due from a buffer and makes the bytes of one message of it. It is used by one goroutine.
type packing interface {
	pack(b *buffer.Buffer, now time.Time) (payload []byte, items int)
}

// oneEach is the packing of alerts: they were sealed when they were put in.
type oneEach struct{}

func (oneEach) pack(b *buffer.Buffer, _ time.Time) (payload []byte, items int) {
	b.Take(1, math.MaxInt, func(i buffer.Item) { payload, items = bytes.Clone(i.Data), 1 })
	return payload, items
}

// roomForAttributes is what a message takes besides its data, usually.
const roomForAttributes = 512

// envelopes is the packing of events: as many as a batch may have, as they are in the buffer, already encoded.
type envelopes struct {
	source       envelope.Source
	count, bytes int
	batch        envelope.Batch
}

func newEnvelopes(s envelope.Source, l Seal) *envelopes {
	return &envelopes{source: s, count: l.Count, bytes: l.Bytes}
}

func (p *envelopes) pack(b *buffer.Buffer, now time.Time) (payload []byte, items int) {
	namespace := ""
	b.Take(p.count, p.bytes, func(i buffer.Item) {
		if namespace != string(i.Tag) { // most are the last one's: no new string for them
			namespace = string(i.Tag)
		}
		p.batch.AppendRaw(i.Data, i.Severity, namespace)
		items++
	})
	if items == 0 {
		return nil, 0
	}
	m := p.batch.Seal(p.source, now)
	return m.AppendBinary(make([]byte, 0, len(m.Data)+roomForAttributes)), items
}
