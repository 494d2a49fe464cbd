package spool

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	suffix = ".seg"
	// maxSegment is the largest file that is read as a segment; one holds SegmentBytes and at most one record more.
	maxSegment = MaxSegmentBytes + headerSize + MaxRecord
)

// segment is one file. Its fields are guarded by the spool's mutex.
type segment struct {
	id   uint64
	file *os.File // nil until needed
	size int64
	gone bool // removed

	waiting, out tally   // not confirmed; of these, handed out
	index        []entry // of what waits to be handed out; kept for the cursor's and the newest segment only
	indexed      bool
}

// forget lets go of what can be had from the disk again.
func (g *segment) forget() {
	closeFile(g.file)
	g.file, g.index, g.indexed = nil, nil, false
}

// tally counts records.
type tally struct{ records, events, bytes int64 }

func (t *tally) add(e entry)    { t.records++; t.events += int64(e.events); t.bytes += int64(e.length) }
func (t *tally) remove(e entry) { t.records--; t.events -= int64(e.events); t.bytes -= int64(e.length) }

func segmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, suffix) }

// list returns the numbers of the segments in dir, oldest first. What is not a segment's name is not ours.
func list(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []uint64
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), suffix)
		if id, err := strconv.ParseUint(hex, 16, 64); ok && err == nil && segmentName(id) == e.Name() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// readSegment reads f whole, into room if it is large enough.
func readSegment(f *os.File, room []byte) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSegment {
		return nil, fmt.Errorf("%s is no segment: %d bytes, %s", f.Name(), info.Size(), info.Mode())
	}
	data := slices.Grow(room[:0], int(info.Size()))[:info.Size()]
	n, err := f.ReadAt(data, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return data[:n], err
}

// Unconfirmed yields what waits in dir, oldest first. It takes no lock and changes nothing: it can be used beside the
// owner, and then sees a state somewhere between its start and its end.
func Unconfirmed(dir string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		ids, err := list(dir)
		if err != nil {
			yield(Record{}, err)
			return
		}
		for _, id := range ids {
			data, err := readFile(filepath.Join(dir, segmentName(id)))
			if errors.Is(err, os.ErrNotExist) {
				continue // confirmed meanwhile
			}
			if err != nil {
				if !yield(Record{}, err) {
					return
				}
				continue
			}
			var d damage
			for r := range scan(data, &d) {
				if !r.done && !yield(Record{Payload: r.payload, Events: int(r.events)}, nil) {
					return
				}
			}
		}
	}
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer closeFile(f)
	return readSegment(f, nil)
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close() // what was written is in the page cache; there is nobody to tell
	}
}
