// Package envelope is the Pub/Sub message of APSS: CloudEvents 1.0 in the Pub/Sub binding's binary mode, holding many
// events (NDJSON, zstd) or one alert (JSON).
//
// The way out: a [Batch] takes events, [Batch.Seal] makes a [Message] of them; [SealAlert] makes one of an alert.
// The way in: [ReadPush] reads what Pub/Sub pushes, [Message.Events] and [Message.Alert] open it. In between a Message
// is bytes wherever it must last: [Message.AppendBinary] and [ParseMessage].
//
// Promises: a sealed message is within Pub/Sub's limits for attributes and valid UTF-8 in all of them, whatever the
// names of a cluster or a node are. Opening never holds more than [MaxUnpacked] of what a message claims or turns out
// to hold, plus a copy of what is accepted. One bad line costs that line, not its neighbours: see [LineError].
//
// Limits: the size of the data is the caller's to keep, by sealing in time: Pub/Sub refuses messages above 10 MB, and
// a consumer refuses more than [MaxUnpacked] or [MaxEvents]. No zstd dictionary: foreign consumers must be able to
// unpack with what their language's library does by default.
package envelope

import (
	"errors"
	"fmt"
	"strings"
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

// The names of attributes. The ce- ones and content-type are CloudEvents' (Pub/Sub protocol binding, section 3.1), the
// rest are for subscription filters.
const (
	attrSpecVersion = "ce-specversion"
	attrID          = "ce-id"
	attrType        = "ce-type"
	attrSource      = "ce-source"
	attrTime        = "ce-time"
	attrContentType = "content-type"
	attrEncoding    = "content-encoding"
	attrCluster     = "cluster"
	attrNamespace   = "namespace"
	attrSeverity    = "severity"
	attrRule        = "rule"
	attrCount       = "count"
	attrAgentID     = "agent_id"
	attrHeartbeats  = "heartbeats" // how many of the events are; absent when none is
)

// Message is a Pub/Sub message: what is published, and what a push brings.
type Message struct {
	Data       []byte
	Attributes map[string]string
}

// LineError lists the lines of a message that are no events while others are. It is an [ErrCorrupt].
type LineError struct {
	Lines []BadLine // all of them, in the message's order; at most [MaxEvents]
	Total int       // lines of the message, good and bad
}

// BadLine is one line that is no event.
type BadLine struct {
	Number int    // counted from 1, blank lines left out
	Reason string // what is wrong with it
	Data   []byte // the line itself, without its end
}

// Error names the first three bad lines.
func (e *LineError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %d of %d events are not JSON objects", ErrCorrupt, len(e.Lines), e.Total)
	for i, l := range e.Lines {
		if i == 3 {
			b.WriteString("; ...")
			break
		}
		fmt.Fprintf(&b, "; event %d: %s", l.Number, l.Reason)
	}
	return b.String()
}

// Unwrap returns [ErrCorrupt].
func (e *LineError) Unwrap() error { return ErrCorrupt }
