package envelope

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/shared/event"
)

// Events appends the events of m to dst, undecoded. The events are slices of one buffer of their own. Each is a JSON
// object without duplicate members or invalid UTF-8.
//
// When some lines are events and others are not, Events returns the events and a *[LineError] that lists the others.
// With any other error it returns dst as it was.
func (m Message) Events(dst []event.Raw) ([]event.Raw, error) {
	lines, err := m.Lines()
	if err != nil {
		return dst, err
	}
	var (
		before = len(dst)
		bad    []BadLine
		total  int
	)
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte{'\n'})
		line = bytes.Trim(line, " \t\r")
		if len(line) == 0 {
			continue
		}
		if total++; total > MaxEvents {
			return dst[:before], fmt.Errorf("%w: more than %d events", ErrTooLarge, MaxEvents)
		}
		if reason := fault(line); reason != "" {
			bad = append(bad, BadLine{Number: total, Reason: reason, Data: line})
			continue
		}
		dst = append(dst, event.Raw(line[:len(line):len(line)]))
	}
	switch {
	case total == 0:
		return dst, fmt.Errorf("%w: there is no event in it", ErrCorrupt)
	case len(bad) == total:
		return dst, fmt.Errorf("%w: none of its %d lines is an event; event 1: %s", ErrCorrupt, total, bad[0].Reason)
	case len(bad) > 0:
		return dst, &LineError{Lines: bad, Total: total}
	}
	return dst, nil
}

// Lines returns the lines of m's events, unpacked and not looked at, in memory of their own: for who passes them on and
// checks each on the way.
func (m Message) Lines() ([]byte, error) {
	if t := m.Attributes[attrType]; t != TypeEvents {
		return nil, fmt.Errorf("%w: ce-type is %q, want %q", ErrType, t, TypeEvents)
	}
	return m.unpack()
}

// fault says why line is no event, or "".
func fault(line jsontext.Value) string {
	if line[0] != '{' {
		return fmt.Sprintf("it starts with %q instead of {", line[0])
	}
	if line.IsValid() {
		return ""
	}
	d := jsontext.NewDecoder(bytes.NewReader(line))
	if err := d.SkipValue(); err != nil {
		return err.Error()
	}
	return "there is more after the object"
}

// Alert decodes the alert of m.
func (m Message) Alert() (*event.Alert, error) {
	if t := m.Attributes[attrType]; t != TypeAlert {
		return nil, fmt.Errorf("%w: ce-type is %q, want %q", ErrType, t, TypeAlert)
	}
	data, err := m.unpack()
	if err != nil {
		return nil, err
	}
	a, err := event.DecodeAlert(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return a, nil
}
