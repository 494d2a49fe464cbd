package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strings"
)

// The state file is a header and then records, the later one of a path being the true one:
//
//	length of the body, 4 bytes little endian | CRC-32C of the body, likewise | body
//
// A body is one of
//
//	'r' watched path...            the paths whose files the records are, each with its length before it
//	'p' path, state                the path has this state
//	'd' path                       the path is no more
const (
	header       = "apss file baseline 1\n"
	recordCovers = 'r'
	recordPut    = 'p'
	recordDelete = 'd'
	// maxBody holds a path and a link target, each of PATH_MAX, 4096 bytes, at the most (limits.h), and all watched
	// paths together.
	maxBody = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends a record whose body is what f appends.
func appendRecord(b []byte, f func([]byte) []byte) []byte {
	start := len(b)
	b = f(append(b, make([]byte, 8)...))
	body := b[start+8:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(body, castagnoli))
	return b
}

func appendCovers(b []byte, paths []string) []byte {
	return appendRecord(b, func(b []byte) []byte {
		b = append(b, recordCovers)
		for _, p := range paths {
			b = appendString(b, p)
		}
		return b
	})
}

// appendState appends that path has the state st, or that it is no more.
func appendState(b []byte, path string, st *state) []byte {
	return appendRecord(b, func(b []byte) []byte {
		if st.kind == absent {
			return appendString(append(b, recordDelete), path)
		}
		b = appendString(append(b, recordPut), path)
		racy := byte(0)
		if st.racy {
			racy = 1
		}
		b = append(b, byte(st.kind), byte(st.hashing), racy)
		for _, v := range [...]int64{st.size, st.mtime, st.ctime} {
			b = binary.AppendVarint(b, v)
		}
		for _, v := range [...]uint64{st.dev, st.ino, uint64(st.mode), uint64(st.uid), uint64(st.gid), uint64(st.nlink)} {
			b = binary.AppendUvarint(b, v)
		}
		b = appendString(b, st.link)
		if st.hashing == hashed {
			b = append(b, st.sum[:]...)
		}
		return b
	})
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode calls covers and put for the records in data. It returns how many bytes of it are whole: what follows is a
// tail that was torn by a crash. An error means that data is no state file, or damaged before its end.
func decode(data []byte, covers func([]string), put func(path string, st state)) (whole int, err error) {
	if len(data) < len(header) && bytes.HasPrefix([]byte(header), data) {
		return 0, nil
	}
	if !bytes.HasPrefix(data, []byte(header)) {
		return 0, errors.New("it does not start like a state file")
	}
	at := len(header)
	for at < len(data) {
		rest := data[at:]
		if len(rest) < 8 || isZero(rest) { // zeros: the file grew, its data did not reach the disk
			return at, nil
		}
		size := int(binary.LittleEndian.Uint32(rest))
		if size > maxBody || size == 0 {
			return at, fmt.Errorf("the record at byte %d has an impossible length", at)
		}
		if len(rest) < 8+size {
			return at, nil
		}
		body := rest[8 : 8+size]
		if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(rest[4:]) {
			if len(rest) == 8+size {
				return at, nil
			}
			return at, fmt.Errorf("the record at byte %d has another checksum", at)
		}
		if err := decodeBody(body, covers, put); err != nil {
			return at, fmt.Errorf("the record at byte %d: %w", at, err)
		}
		at += 8 + size
	}
	return at, nil
}

func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

var errBody = errors.New("its body makes no sense")

func decodeBody(body []byte, covers func([]string), put func(string, state)) error {
	r := reader{rest: body[1:]}
	switch body[0] {
	case recordCovers:
		var paths []string
		for len(r.rest) > 0 && !r.bad {
			paths = append(paths, r.path())
		}
		if r.bad {
			return errBody
		}
		covers(paths)
	case recordDelete:
		path := r.path()
		if r.bad || len(r.rest) > 0 {
			return errBody
		}
		put(path, state{})
	case recordPut:
		path := r.path()
		var st state
		flags := r.take(3)
		if r.bad || flags[0] == byte(absent) || int(flags[0]) >= len(kindNames) || flags[1] > byte(hashed) || flags[2] > 1 {
			return errBody
		}
		st.kind, st.hashing, st.racy = kind(flags[0]), hashing(flags[1]), flags[2] == 1
		st.size, st.mtime, st.ctime = r.varint(), r.varint(), r.varint()
		st.dev, st.ino = r.uvarint(), r.uvarint()
		st.mode, st.uid, st.gid, st.nlink = r.uint32(), r.uint32(), r.uint32(), r.uint32()
		st.link = r.string()
		if st.hashing == hashed {
			copy(st.sum[:], r.take(len(st.sum)))
		}
		if r.bad || len(r.rest) > 0 {
			return errBody
		}
		put(path, st)
	default:
		return errBody
	}
	return nil
}

// reader takes values from a body; bad is true once one was not there.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return make([]byte, min(n, 32))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uvarint()
	r.bad = r.bad || v > 1<<32-1
	return uint32(v)
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return ""
	}
	return string(r.take(int(n)))
}

func (r *reader) path() string {
	p := r.string()
	r.bad = r.bad || !strings.HasPrefix(p, "/") || filepath.Clean(p) != p
	return p
}
