package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// binaryVersion is the first byte of a message as bytes.
const binaryVersion = 1

// AppendBinary appends m to b as bytes that [ParseMessage] reads: a version byte, the number of attributes, names and
// values in the order of names, the data; numbers are uvarints, strings and data are led by their length. Equal
// messages are equal bytes.
func (m Message) AppendBinary(b []byte) []byte {
	b = append(b, binaryVersion)
	b = binary.AppendUvarint(b, uint64(len(m.Attributes)))
	for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
		b = appendField(b, name)
		b = appendField(b, m.Attributes[name])
	}
	return appendField(b, m.Data)
}

func appendField[T ~string | ~[]byte](b []byte, field T) []byte {
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

// ParseMessage reads what [Message.AppendBinary] wrote. The message's data is a part of b. What is cut off, has bytes
// left over or another version is refused; it cannot tell flipped bits inside a field, that takes a checksum around it.
func ParseMessage(b []byte) (Message, error) {
	r := reader{rest: b}
	if v := r.version(); r.err == nil && v != binaryVersion {
		return Message{}, fmt.Errorf("parsing message: version %d, want %d", v, binaryVersion)
	}
	var m Message
	if n := r.count(); n > 0 {
		m.Attributes = make(map[string]string, min(n, 16))
		last := ""
		for i := 0; i < n && r.err == nil; i++ {
			name, value := string(r.field()), string(r.field())
			if i > 0 && name <= last && r.err == nil {
				r.err = fmt.Errorf("attribute %.40q comes after %.40q", name, last)
			}
			m.Attributes[name] = value
			last = name
		}
	}
	m.Data = r.field()
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes left over", len(r.rest))
	}
	if r.err != nil {
		return Message{}, fmt.Errorf("parsing message: %w", r.err)
	}
	return m, nil
}

var errTruncated = errors.New("it is cut off")

// reader takes fields off rest until the first error.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) version() byte {
	if len(r.rest) == 0 {
		r.err = errTruncated
		return 0
	}
	v := r.rest[0]
	r.rest = r.rest[1:]
	return v
}

// count returns a number that is at most the number of bytes left: nothing that is counted here is smaller.
func (r *reader) count() int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > uint64(len(r.rest)-n) {
		r.err = errTruncated
		return 0
	}
	r.rest = r.rest[n:]
	return int(v)
}

func (r *reader) field() []byte {
	n := r.count()
	f := r.rest[:n:n]
	r.rest = r.rest[n:]
	if n == 0 {
		return nil
	}
	return f
}
