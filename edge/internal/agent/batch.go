package agent

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
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

// envelopes is the packing of events: as many as a batch may have.
type envelopes struct {
	source       envelope.Source
	count, bytes int
	lines        []byte // reused, as is
	packed       []byte
	encoder      *zstd.Encoder
}

func newEnvelopes(s envelope.Source, l Seal) *envelopes {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(512<<10)) // holds a full batch
	if err != nil {
		panic("agent: the options of zstd contradict each other: " + err.Error())
	}
	return &envelopes{source: s, count: l.Count, bytes: l.Bytes, encoder: encoder}
}

// pack seals the events as they are in the buffer, already encoded. The message is the one that [envelope.Batch] makes of
// the same events; its attributes are those of an alert with the batch's severity, place and count, but for its kind.
func (p *envelopes) pack(b *buffer.Buffer, now time.Time) (payload []byte, items int) {
	var like event.Alert
	mixed := false
	p.lines = p.lines[:0]
	b.Take(p.count, p.bytes, func(i buffer.Item) {
		if items++; items == 1 {
			like.Severity, like.PodNamespace = i.Severity, string(i.Tag)
		}
		mixed = mixed || like.PodNamespace != string(i.Tag)
		p.lines = append(append(p.lines, i.Data...), '\n')
	})
	if items == 0 {
		return nil, 0
	}
	if mixed {
		like.PodNamespace = ""
	}
	m := envelope.SealAlert(&like, p.source, now)
	m.Attributes["ce-type"] = envelope.TypeEvents
	m.Attributes["content-type"] = "application/x-ndjson"
	m.Attributes["content-encoding"] = "zstd"
	m.Attributes["count"] = strconv.Itoa(items)
	p.packed = p.encoder.EncodeAll(p.lines, p.packed[:0])
	m.Data = p.packed
	payload = m.AppendBinary(make([]byte, 0, len(m.Data)+roomForAttributes))
	if cap(p.lines) > 4*p.bytes { // one event was far larger than a batch
		p.lines, p.packed = nil, nil
	}
	return payload, items
}
