package event

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// errNoObject is for JSON's null above all, which Go's decoders take for a struct that they leave alone.
var errNoObject = errors.New("it is not a JSON object")

// Decode reads one event. Members it does not know are kept in Extra; duplicate members, invalid UTF-8 and values of
// the wrong kind are refused. It does not [Event.Validate].
func Decode(data []byte) (*Event, error) {
	var e Event
	if err := e.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("decoding event: %w", err)
	}
	return &e, nil
}

// DecodeAlert reads one alert, as [Decode] reads an event.
func DecodeAlert(data []byte) (*Alert, error) {
	var a Alert
	if err := a.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("decoding alert: %w", err)
	}
	return &a, nil
}

// UnmarshalJSON implements [encoding/json.Unmarshaler].
func (e *Event) UnmarshalJSON(data []byte) error {
	if jsontext.Value(data).Kind() != '{' {
		return errNoObject
	}
	type members Event // without this method
	return json.Unmarshal(data, (*members)(e))
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom]: an alert's event is read where it stands, once.
func (e *Event) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return errNoObject
	}
	type members Event // without this method
	return json.UnmarshalDecode(d, (*members)(e))
}

// UnmarshalJSON implements [encoding/json.Unmarshaler].
func (a *Alert) UnmarshalJSON(data []byte) error {
	if jsontext.Value(data).Kind() != '{' {
		return errNoObject
	}
	type members Alert // without this method
	return json.Unmarshal(data, (*members)(a))
}
