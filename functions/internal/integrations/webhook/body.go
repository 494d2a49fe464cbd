package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/apss-sensor/apss/functions/internal/jsonapi"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// The types of messages, those of the Pub/Sub messages that they came in.
const (
	typeAlert  = "apss.alert.v1"
	typeEvents = "apss.events.v1"
)

// What a body that is too large is cut to: at first texts of maxText characters and lists of maxItems, each halved until
// it fits.
const (
	maxText, minText   = 32 << 10, 64
	maxItems, minItems = 1 << 10, 32 // an alert has fewer members than minItems
)

// alertBody is what is sent of a, whose JSON is data.
func (c *client) alertBody(a *event.Alert, data []byte) ([]byte, error) {
	at := a.Timestamp
	build := func(data []byte, cut string) ([]byte, error) { return envelope(at, data, cut), nil }
	if c.body != nil {
		build = func(data []byte, cut string) ([]byte, error) { return c.body.execute(data, cut, c.maxBody) }
	}
	body, err := build(data, "")
	for text, items := maxText, maxItems; tooLarge(body, err, c.maxBody); text, items = text/2, max(items/2, minItems) {
		if text < minText {
			return nil, &outcome.Error{Class: outcome.Permanent, Reason: fmt.Sprintf("the alert does not fit into max_body, %d bytes", c.maxBody)}
		}
		var smaller []byte
		if smaller, err = cutJSON(data, text, items); err != nil {
			return nil, err
		}
		body, err = build(smaller, fmt.Sprintf("texts are cut to %d characters and lists to %d items: max_body is %d bytes", text, items, c.maxBody))
	}
	return body, err
}

func tooLarge(body []byte, err error, limit int) bool {
	return errors.Is(err, errTooLarge) || err == nil && len(body) > limit
}

// envelope is a message by the specification: what it is, when it happened, and the data as they are.
func envelope(at time.Time, data []byte, cut string) []byte {
	b := appendHead(make([]byte, 0, len(data)+128), typeAlert, at)
	if cut != "" {
		b = fmt.Appendf(b, `"truncated":%q,`, cut)
	}
	b = append(b, `"data":`...)
	b = append(b, data...)
	return append(b, '}')
}

// eventsBody is a message of events, each as it is.
func eventsBody(events []event.Raw, at time.Time) []byte {
	size := 128
	for _, e := range events {
		size += len(e) + 1
	}
	b := append(appendHead(make([]byte, 0, size), typeEvents, at), `"data":{"events":[`...)
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e...)
	}
	return append(b, `]}}`...)
}

func appendHead(b []byte, kind string, at time.Time) []byte {
	if y := at.UTC().Year(); y < 0 || y > 9999 { // RFC 3339 section 1
		at = time.Time{}
	}
	return fmt.Appendf(b, `{"type":%q,"timestamp":%q,`, kind, at.UTC().Format(time.RFC3339Nano))
}

// cutJSON is data with no text longer than text and no list or object of more than items.
func cutJSON(data []byte, text, items int) ([]byte, error) {
	v, err := decode(data)
	if err != nil {
		return nil, err
	}
	return jsonapi.Encode(cut(v, text, items))
}

func cut(v any, text, items int) any {
	switch v := v.(type) {
	case string:
		return message.Cut(v, text)
	case []any:
		v = v[:min(len(v), items)]
		for i := range v {
			v[i] = cut(v[i], text, items)
		}
		return v
	case map[string]any:
		smaller := make(map[string]any, min(len(v), items))
		for _, name := range slices.Sorted(maps.Keys(v))[:min(len(v), items)] {
			smaller[message.Cut(name, text)] = cut(v[name], text, items)
		}
		return smaller
	}
	return v
}

// decode reads JSON. Its numbers are json.Number.
func decode(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, &outcome.Error{Class: outcome.Permanent, Reason: "the alert's JSON cannot be read again", Err: err}
	}
	return v, nil
}
