package envelope

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
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

// Batch gathers encoded events until they are sealed. The zero value is ready. It keeps what sealing works with, some
// MiB, from one Seal to the next. Not safe for concurrent use.
type Batch struct {
	lines     []byte // NDJSON
	count     int
	severity  event.Severity // the highest
	namespace string         // of the first event
	mixed     bool           // not all are of that namespace
	beats     int            // heartbeats

	encoder *zstd.Encoder
	packed  []byte
}

// keptCapacity bounds the memory that a buffer may keep between two uses: four times a full batch of DESIGN section 2.
const keptCapacity = 1 << 20

// Append encodes e into the batch.
func (b *Batch) Append(e *event.Event) {
	b.note(e.Severity, e.PodNamespace, e.Type == event.AgentHeartbeat)
	b.lines = append(e.AppendJSON(b.lines), '\n')
}

// AppendRaw adds an event that is encoded already and has this severity and pod namespace.
func (b *Batch) AppendRaw(r event.Raw, severity event.Severity, namespace string) {
	b.note(severity, namespace, isHeartbeat(r))
	b.lines = append(append(b.lines, r...), '\n')
}

// typeKey is how the type stands in an encoded event: before it are only texts, inside which quotes are escaped.
const typeKey = `"type":"`

// isHeartbeat looks at an event as [event.Event.AppendJSON] encodes it.
func isHeartbeat(r event.Raw) bool {
	i := bytes.Index(r, []byte(typeKey))
	return i >= 0 && bytes.HasPrefix(r[i+len(typeKey):], []byte(event.AgentHeartbeat+`"`))
}

func (b *Batch) note(severity event.Severity, namespace string, beat bool) {
	if beat {
		b.beats++
	}
	if b.count == 0 {
		b.namespace = namespace
	} else if b.namespace != namespace {
		b.mixed = true
	}
	b.severity = max(b.severity, severity)
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
	if b.beats > 0 {
		attributes[attrHeartbeats] = strconv.Itoa(b.beats)
	}
	if b.encoder == nil {
		b.encoder = newEncoder()
	}
	b.packed = b.encoder.EncodeAll(b.lines, b.packed[:0])
	m := Message{Data: bytes.Clone(b.packed), Attributes: attributes}
	*b = Batch{lines: b.lines[:0], encoder: b.encoder, packed: b.packed}
	if cap(b.lines) > keptCapacity {
		b.lines, b.packed = nil, nil
	}
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
	a := make(map[string]string, 14)
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

// newEncoder writes frames that state their size.
func newEncoder() *zstd.Encoder {
	encoder, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedFastest), // see BenchmarkAlternatives
		zstd.WithWindowSize(256<<10),             // holds a full batch
		zstd.WithLowerEncoderMem(true),
	)
	if err != nil {
		panic("envelope: the options of zstd contradict each other: " + err.Error())
	}
	return encoder
}
