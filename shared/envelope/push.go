package envelope

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// Push is one push request of Pub/Sub.
type Push struct {
	Message
	ID              string
	Subscription    string // full name
	OrderingKey     string
	PublishTime     time.Time
	DeliveryAttempt int // 0 when the subscription has no dead-letter policy, and for unwrapped pushes: no header has it
}

// Why a request is no push; test with errors.Is. [PushStatus] has the answer to each.
var (
	ErrPushMethod   = errors.New("a push is a POST")
	ErrPushType     = errors.New("the body of a push is application/json")
	ErrPushTooLarge = errors.New("the push is too large")
	ErrPushBody     = errors.New("the body is not a push")
	ErrPushRead     = errors.New("the body could not be read to its end")
)

// PushStatus returns the HTTP status that answers an error of [ReadPush].
func PushStatus(err error) int {
	switch {
	case errors.Is(err, ErrPushMethod):
		return http.StatusMethodNotAllowed
	case errors.Is(err, ErrPushType):
		return http.StatusUnsupportedMediaType
	case errors.Is(err, ErrPushTooLarge):
		return http.StatusRequestEntityTooLarge
	default:
		return http.StatusBadRequest
	}
}

// MaxPush is the size of a push request's body, at most: a message of 10 MB (cloud.google.com/pubsub/quotas) is 13.4 MB
// of base64, and its attributes are within that size.
const MaxPush = 15 << 20

// ReadPush reads a push request, wrapped or unwrapped. An unwrapped one must carry its metadata as headers (the
// subscription's write_metadata); of the headers, those that are attributes of ours become attributes.
func ReadPush(r *http.Request) (Push, error) {
	if r.Method != http.MethodPost {
		return Push{}, fmt.Errorf("%w, not a %.20q", ErrPushMethod, r.Method)
	}
	body := bodies.Get().(*bytes.Buffer)
	defer func() {
		if body.Cap() <= keptCapacity {
			body.Reset()
			bodies.Put(body)
		}
	}()
	if err := readBody(body, r); err != nil {
		return Push{}, err
	}
	if r.Header.Get(headerID) != "" {
		return unwrapped(r.Header, body.Bytes())
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return Push{}, fmt.Errorf("%w, not %.80q; does the subscription unwrap without write_metadata?", ErrPushType, t)
		}
	}
	return wrapped(body.Bytes())
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func readBody(body *bytes.Buffer, r *http.Request) error {
	if r.ContentLength > MaxPush {
		return fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrPushTooLarge, r.ContentLength, MaxPush)
	}
	if r.ContentLength > 0 {
		// Up to a point: what a header claims is not yet sent. MinRead is what ReadFrom wants to find free.
		body.Grow(int(min(r.ContentLength, keptCapacity/2)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(r.Body, MaxPush+1)); err != nil {
		return fmt.Errorf("%w: %w", ErrPushRead, err)
	}
	if body.Len() > MaxPush {
		return fmt.Errorf("%w: more than %d bytes", ErrPushTooLarge, MaxPush)
	}
	return nil
}

// push is the wrapped form (cloud.google.com/pubsub/docs/push#receive_push). The service sends an id and a time under
// two names each.
type push struct {
	Message *struct {
		Data         []byte            `json:"data"`
		Attributes   map[string]string `json:"attributes"`
		ID           string            `json:"messageId"`
		SnakeID      string            `json:"message_id"`
		Published    string            `json:"publishTime"`
		SnakePublish string            `json:"publish_time"`
		OrderingKey  string            `json:"orderingKey"`
	} `json:"message"`
	Subscription    string `json:"subscription"`
	DeliveryAttempt int    `json:"deliveryAttempt"`
}

func wrapped(body []byte) (Push, error) {
	var p push
	if err := json.Unmarshal(body, &p); err != nil {
		return Push{}, fmt.Errorf("%w: %w", ErrPushBody, err)
	}
	m := p.Message
	if m == nil {
		return Push{}, fmt.Errorf("%w: it has no message", ErrPushBody)
	}
	published, err := parseTime(cmp.Or(m.Published, m.SnakePublish))
	if err != nil {
		return Push{}, err
	}
	return Push{
		Message:         Message{Data: m.Data, Attributes: m.Attributes},
		ID:              cmp.Or(m.ID, m.SnakeID),
		Subscription:    p.Subscription,
		OrderingKey:     m.OrderingKey,
		PublishTime:     published,
		DeliveryAttempt: p.DeliveryAttempt,
	}, nil
}

// The headers of an unwrapped push (cloud.google.com/pubsub/docs/payload-unwrapping).
const (
	headerID           = "X-Goog-Pubsub-Message-Id"
	headerSubscription = "X-Goog-Pubsub-Subscription-Name"
	headerPublishTime  = "X-Goog-Pubsub-Publish-Time"
	headerOrderingKey  = "X-Goog-Pubsub-Ordering-Key"
)

func unwrapped(h http.Header, body []byte) (Push, error) {
	published, err := parseTime(h.Get(headerPublishTime))
	if err != nil {
		return Push{}, err
	}
	attributes := make(map[string]string)
	for name, values := range h {
		if name = strings.ToLower(name); len(values) > 0 && isAttribute(name) {
			attributes[name] = values[0]
		}
	}
	return Push{
		Message:      Message{Data: bytes.Clone(body), Attributes: attributes},
		ID:           h.Get(headerID),
		Subscription: h.Get(headerSubscription),
		OrderingKey:  h.Get(headerOrderingKey),
		PublishTime:  published,
	}, nil
}

// isAttribute tells our attributes from the request's own headers: an Authorization must not end in a dead letter.
func isAttribute(header string) bool {
	switch header {
	case attrContentType, attrEncoding, attrCluster, attrNamespace, attrSeverity, attrRule, attrCount, attrAgentID,
		"traceparent", "tracestate":
		return true
	}
	return strings.HasPrefix(header, "ce-")
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: publish time %.40q is not RFC 3339", ErrPushBody, s)
	}
	return t, nil
}
