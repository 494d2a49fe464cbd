package envelope

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/apss-sensor/apss/shared/event"
)

// Source says who seals a message.
type Source struct {
	AgentID string
	Cluster string
}

// Batch gathers encoded events until they are sealed. The zero value is ready. Not safe for concurrent use.
type Batch struct {
	lines     []byte // NDJSON
	count     int
	severity  event.Severity // the highest
	namespace string         // of the first event
	mixed     bool           // not all are of that namespace
}

// keptCapacity bounds the memory that a buffer may keep between two uses: four times a full batch of DESIGN section 2.
const keptCapacity = 1 << 20

// Append encodes e into the batch.
func (b *Batch) Append(e *event.Event) {
	if b.count == 0 {
		b.namespace = e.PodNamespace
	} else if b.namespace != e.PodNamespace {
		b.mixed = true
	}
	b.severity = max(b.severity, e.Severity)
	b.lines = e.AppendJSON(b.lines)
	b.lines = append(b.lines, '\n')
	b.count++
}

// Len returns the number of events.
func (b *Batch) Len() int { return b.count }

// Size returns the bytes of the events as NDJSON, not compressed.
func (b *Batch) Size() int { return len(b.lines) }

// Seal compresses what was appended into a message, which is the caller's from then on, and empties the batch. It must
// not be called on an empty batch.
func (b *Batch) Seal(s Source, now time.Time) Message {
	if b.count == 0 {
		panic("envelope: Seal of an empty batch")
	}
	attributes := newAttributes(TypeEvents, "application/x-ndjson", s, now)
	attributes[attrEncoding] = "zstd"
	attributes[attrSeverity] = b.severity.String()
	attributes[attrCount] = strconv.Itoa(b.count)
	if !b.mixed {
		set(attributes, attrNamespace, b.namespace)
	}
	m := Message{Data: compress(b.lines), Attributes: attributes}
	kept := b.lines[:0]
	if cap(kept) > keptCapacity {
		kept = nil
	}
	*b = Batch{lines: kept}
	return m
}

// SealAlert makes the message of one alert.
func SealAlert(a *event.Alert, s Source, now time.Time) Message {
	attributes := newAttributes(TypeAlert, "application/json", s, now)
	attributes[attrSeverity] = a.Severity.String()
	attributes[attrCount] = strconv.Itoa(a.Count)
	set(attributes, attrNamespace, a.PodNamespace)
	set(attributes, attrRule, a.RuleID)
	return Message{Data: a.AppendJSON(nil), Attributes: attributes}
}

func newAttributes(kind, contentType string, s Source, now time.Time) map[string]string {
	a := make(map[string]string, 13)
	a[attrSpecVersion] = "1.0"
	a[attrID] = event.NewID()
	a[attrType] = kind
	a[attrTime] = now.UTC().Format(time.RFC3339Nano)
	a[attrContentType] = contentType
	set(a, attrSource, sourceURI(s.AgentID))
	set(a, attrCluster, s.Cluster)
	set(a, attrAgentID, s.AgentID)
	return a
}

// maxValue is the size of an attribute's value in bytes, at most; we use far fewer than the 100 attributes allowed, and
// shorter names than the 256 bytes allowed (cloud.google.com/pubsub/quotas#resource_limits).
const maxValue = 1024

// set adds an attribute, cut to what Pub/Sub takes. An empty one is left out. A value that is not UTF-8 would be
// refused with its whole publish request: attributes are protobuf strings.
func set(attributes map[string]string, name, value string) {
	if value == "" {
		return
	}
	value = strings.ToValidUTF8(value, "\uFFFD")
	if len(value) > maxValue {
		cut := maxValue
		for !utf8.RuneStart(value[cut]) {
			cut--
		}
		value = value[:cut]
	}
	attributes[name] = value
}

// sourceURI is the ce-source of an agent: a network-path reference (RFC 3986 section 4.2), at most maxValue long and
// never cut inside an escape.
func sourceURI(agentID string) string {
	segments := strings.Split(agentID, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	uri := "//apss/" + strings.Join(segments, "/")
	if len(uri) > maxValue {
		uri = uri[:maxValue]
		if i := strings.LastIndexByte(uri[maxValue-2:], '%'); i >= 0 {
			uri = uri[:maxValue-2+i]
		}
	}
	return uri
}

// packer is an encoder and the buffer it writes to. A pool, for an encoder holds far more memory than a batch, and the
// idle agent must get rid of it.
type packer struct {
	encoder *zstd.Encoder
	buffer  []byte
}

var packers = sync.Pool{New: func() any {
	encoder, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedDefault), // see BenchmarkAlternatives
		zstd.WithWindowSize(512<<10),             // holds a full batch
	)
	if err != nil {
		panic("envelope: the options of zstd contradict each other: " + err.Error())
	}
	return &packer{encoder: encoder}
}}

// compress returns data as one zstd frame that states its size.
func compress(data []byte) []byte {
	p := packers.Get().(*packer)
	defer packers.Put(p)
	p.buffer = p.encoder.EncodeAll(data, p.buffer[:0])
	packed := bytes.Clone(p.buffer)
	if cap(p.buffer) > keptCapacity {
		p.buffer = nil
	}
	return packed
}
