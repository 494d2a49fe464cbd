package event

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Raw is one event as JSON, not decoded: what Forward passes on.
type Raw []byte

// idPrefix is how every event starts that [Event.AppendJSON] wrote.
const (
	idPrefix = `{"id":"`
	idLength = 36 // of a UUID as text, RFC 9562 section 4
)

// ID returns the event's id. Of events written by [Event.AppendJSON] it reads the first 44 bytes only.
func (r Raw) ID() (string, error) {
	if id, ok := r.leadingID(); ok {
		return id, nil
	}
	return r.searchID()
}

func (r Raw) leadingID() (string, bool) {
	const end = len(idPrefix) + idLength
	if len(r) <= end || string(r[:len(idPrefix)]) != idPrefix || r[end] != '"' {
		return "", false
	}
	id := r[len(idPrefix):end]
	for _, c := range id {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false // an escape, for instance: let the parser see it
		}
	}
	return string(id), true
}

func (r Raw) searchID() (string, error) {
	d := jsontext.NewDecoder(bytes.NewReader(r))
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != '{' {
		return "", errors.New("reading an event's id: the event is not a JSON object")
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return "", fmt.Errorf("reading an event's id: %w", err)
		}
		if name.String() != "id" {
			if err := d.SkipValue(); err != nil {
				return "", fmt.Errorf("reading an event's id: %w", err)
			}
			continue
		}
		value, err := d.ReadToken()
		if err != nil {
			return "", fmt.Errorf("reading an event's id: %w", err)
		}
		if value.Kind() != '"' || value.String() == "" {
			return "", errors.New("reading an event's id: it is not a string with something in it")
		}
		return value.String(), nil
	}
	return "", errors.New("reading an event's id: it has none")
}
