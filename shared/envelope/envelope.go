// Package envelope is the Pub/Sub message of APSS: CloudEvents 1.0 in the Pub/Sub binding's binary mode, holding many
// events (NDJSON, zstd) or one alert (JSON).
package envelope

import (
	"errors"
	"net/http"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// The values of the attribute ce-type.
const (
	TypeEvents = "apss.events.v1"
	TypeAlert  = "apss.alert.v1"
)

// What a consumer accepts, before it refuses.
const (
	MaxUnpacked = 10 << 20 // bytes
	MaxEvents   = 10_000
)

// Why a message is refused; test with errors.Is. All are permanent: the same bytes will never be accepted.
var (
	ErrType     = errors.New("unknown message type")
	ErrEncoding = errors.New("unknown content encoding")
	ErrCorrupt  = errors.New("corrupt message")
	ErrTooLarge = errors.New("message too large")
)

// Message is a Pub/Sub message: what is published, and what a push brings.
type Message struct {
	Data       []byte
	Attributes map[string]string
}

// Source says who seals a message.
type Source struct {
	AgentID string
	Cluster string
}

// Batch gathers encoded events until they are sealed. The zero value is ready. Not safe for concurrent use.
type Batch struct{}

// Append encodes e into the batch.
func (b *Batch) Append(e *event.Event) { panic("unwritten") }

// Len returns the number of events, Size their raw bytes (NDJSON, uncompressed).
func (b *Batch) Len() int { panic("unwritten") }

// Size returns the raw bytes.
func (b *Batch) Size() int { panic("unwritten") }

// Seal compresses what was appended into a message and empties the batch. It must not be called on an empty batch.
func (b *Batch) Seal(s Source, now time.Time) Message { panic("unwritten") }

// SealAlert makes the message of one alert.
func SealAlert(a *event.Alert, s Source, now time.Time) Message { panic("unwritten") }

// Events appends the events of m to dst, undecoded. The events are slices of one buffer of their own.
func (m Message) Events(dst []event.Raw) ([]event.Raw, error) { panic("unwritten") }

// Alert decodes the alert of m.
func (m Message) Alert() (*event.Alert, error) { panic("unwritten") }

// Push is one push request of Pub/Sub.
type Push struct {
	Message
	ID              string
	Subscription    string // full name
	OrderingKey     string
	PublishTime     time.Time
	DeliveryAttempt int // 0 when the subscription has no dead-letter policy
}

// ReadPush reads a push request, wrapped or unwrapped.
func ReadPush(r *http.Request) (Push, error) { panic("unwritten") }
