package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
)

const (
	magic      = "APS\x01"
	headerSize = 24
	stateAt    = 4

	waits     = 0x00
	confirmed = 0xff
)

// MaxRecord is the most bytes of one payload. Pub/Sub takes 10 MB (cloud.google.com/pubsub/quotas).
const MaxRecord = 16 << 20

// castagnoli is the polynomial that amd64 and arm64 have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord writes a record that waits.
func appendRecord(b, payload []byte, events int) []byte {
	h := len(b)
	b = append(b, magic...)
	b = append(b, waits, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(events))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, headerSum(b[h:]))
	return append(b, payload...)
}

func headerSum(h []byte) uint32 {
	return crc32.Update(crc32.Checksum(h[:stateAt], castagnoli), castagnoli, h[stateAt+1:headerSize-4])
}

// entry is a record's place in a segment.
type entry struct {
	off    uint32 // of the header
	length uint32 // of the payload
	events uint32
}

func (e entry) end() int64 { return int64(e.off) + headerSize + int64(e.length) }

var (
	errHeader  = errors.New("no valid record header")
	errTorn    = errors.New("the record is cut short")
	errPayload = errors.New("the record's checksum does not match")
)

// parse reads the record at off of a segment. It returns it with its payload, and whether it is confirmed.
func parse(segment []byte, off int) (e entry, payload []byte, done bool, err error) {
	h := segment[off:]
	if len(h) < headerSize {
		return entry{}, nil, false, errTorn
	}
	if string(h[:len(magic)]) != magic || binary.LittleEndian.Uint32(h[20:]) != headerSum(h) {
		return entry{}, nil, false, errHeader
	}
	length := binary.LittleEndian.Uint32(h[12:])
	if int64(length) > int64(len(h)-headerSize) {
		return entry{}, nil, false, errTorn
	}
	payload = h[headerSize : headerSize+length : headerSize+length]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(h[16:]) {
		return entry{}, nil, false, errPayload
	}
	return entry{uint32(off), length, binary.LittleEndian.Uint32(h[8:])}, payload, h[stateAt] == confirmed, nil
}

// found is what a segment holds.
type found struct {
	entry
	payload []byte
	done    bool
}

// damage tells what of a segment is no record.
type damage struct {
	corrupt int // places in the middle where records were lost
	skipped int // bytes of those
	torn    int // bytes at the end
}

func (d damage) String() string {
	return fmt.Sprintf("%d corrupt places of %d bytes, %d bytes torn off the end", d.corrupt, d.skipped, d.torn)
}

// scan yields the records of a segment in order. After damage it goes on at the next valid record; d is filled in
// while it runs.
func scan(segment []byte, d *damage) iter.Seq[found] {
	return func(yield func(found) bool) {
		bad := -1 // where the damage began
		for off := 0; off < len(segment); {
			e, payload, done, err := parse(segment, off)
			if err != nil {
				if bad < 0 {
					bad = off
				}
				next := bytes.Index(segment[off+1:], []byte(magic))
				if next < 0 {
					break
				}
				off += 1 + next
				continue
			}
			if bad >= 0 {
				d.corrupt++
				d.skipped += off - bad
				bad = -1
			}
			off = int(e.end())
			if !yield(found{e, payload, done}) {
				return
			}
		}
		if bad >= 0 {
			d.torn = len(segment) - bad
		}
	}
}
