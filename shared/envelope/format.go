package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// unpack returns the data of m, decompressed; in memory of its own when own is set or they were compressed. The names of
// encodings are those of HTTP (RFC 9110 section 8.4.1); case does not matter.
func (m Message) unpack(own bool) ([]byte, error) {
	if len(m.Data) == 0 {
		return nil, fmt.Errorf("%w: there is no data", ErrCorrupt)
	}
	name := strings.ToLower(m.Attributes[attrEncoding])
	unpack := unpackNone
	switch name {
	case "zstd":
		unpack = unpackZstd
	case "gzip", "x-gzip":
		unpack = unpackGzip
	case "", "none", "identity":
		name = "not compressed"
		if own {
			unpack = unpackCopy
		}
	default:
		return nil, fmt.Errorf("%w: %.40q, accepted are zstd, gzip and none", ErrEncoding, name)
	}
	out, err := unpack(m.Data)
	if len(out) > MaxUnpacked {
		err = errTooMuch
	}
	switch {
	case errors.Is(err, errTooMuch), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, fmt.Errorf("%w: %s: %w", ErrTooLarge, name, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return out, nil
}

var errTooMuch = fmt.Errorf("more than %d bytes unpacked", MaxUnpacked)

func unpackNone(data []byte) ([]byte, error) {
	if len(data) > MaxUnpacked {
		return nil, errTooMuch
	}
	return data, nil
}

func unpackCopy(data []byte) ([]byte, error) {
	data, err := unpackNone(data)
	return bytes.Clone(data), err
}

// maxWindow is the smallest power of two that holds MaxUnpacked.
const maxWindow = 16 << 20

// unzstd decodes for everybody: DecodeAll is safe for concurrent use.
var unzstd = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderMaxMemory(MaxUnpacked),
		zstd.WithDecoderMaxWindow(maxWindow),
		zstd.WithDecodeAllCapLimit(true),
	)
	if err != nil {
		panic("envelope: the options of zstd contradict each other: " + err.Error())
	}
	return d
})

func unpackZstd(data []byte) ([]byte, error) {
	room, err := zstdRoom(data)
	if err != nil {
		return nil, err
	}
	out, err := unzstd().DecodeAll(data, make([]byte, 0, room))
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded) && len(out) > MaxUnpacked:
		return nil, errTooMuch
	case errors.Is(err, zstd.ErrDecoderSizeExceeded): // beyond its own room, so beyond its own claim
		return nil, zstd.ErrFrameSizeExceeded
	}
	return out, err
}

const (
	maxBlock = 128 << 10 // of unpacked data (RFC 8878 section 3.1.1.2.4)
	slack    = 16        // behind the end, for the fast path of the decoder
)

var errClaim = errors.New("a frame claims a size that its blocks do not have")

// zstdRoom returns the capacity to unpack data in. It goes over the headers of all frames and blocks (RFC 8878 section
// 3.1.1) before anything is allocated: a claim counts only where there are blocks to fulfil it.
func zstdRoom(data []byte) (int, error) {
	var known, room uint64 // what the data holds for certain, and at most
	for len(data) > 0 {
		var h zstd.Header
		if err := h.Decode(data); err != nil {
			return 0, err
		}
		data = data[h.HeaderSize:]
		if h.Skippable {
			if uint64(h.SkippableSize) > uint64(len(data)) {
				return 0, io.ErrUnexpectedEOF
			}
			data = data[h.SkippableSize:]
			continue
		}
		least, most, rest, err := zstdBlocks(data)
		switch {
		case err != nil:
			return 0, err
		case h.HasFCS && (h.FrameContentSize < least || h.FrameContentSize > most):
			return 0, errClaim
		case h.HasFCS:
			least, most = h.FrameContentSize, h.FrameContentSize
		}
		known, room = known+least, room+most
		if known > MaxUnpacked {
			return 0, errTooMuch
		}
		if h.HasCheckSum {
			if len(rest) < 4 {
				return 0, io.ErrUnexpectedEOF
			}
			rest = rest[4:]
		}
		data = rest
	}
	if room > keptCapacity {
		room += maxBlock // the one that goes too far is refused after it was unpacked; it must not move the large rest
	}
	return int(min(room, MaxUnpacked+maxBlock)) + slack, nil
}

// zstdBlocks returns how much the blocks of one frame hold at least and at most, and what comes behind them.
func zstdBlocks(data []byte) (least, most uint64, rest []byte, err error) {
	const rle, compressed = 1, 2
	for {
		if len(data) < 3 {
			return 0, 0, nil, io.ErrUnexpectedEOF
		}
		header := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16
		data = data[3:]
		size := int(header >> 3)
		switch header >> 1 & 3 {
		case compressed:
			most += maxBlock
		case rle:
			least, most = least+uint64(size), most+uint64(size)
			size = 1
		default: // as it is; the decoder refuses the reserved kind
			least, most = least+uint64(size), most+uint64(size)
		}
		if size > len(data) {
			return 0, 0, nil, io.ErrUnexpectedEOF
		}
		data = data[size:]
		if header&1 == 1 {
			return least, most, data, nil
		}
	}
}

var gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}

// unpackGzip trusts the trailer first: the size of the last member modulo 2^32 (RFC 1952 section 2.3.1).
func unpackGzip(data []byte) ([]byte, error) {
	if len(data) < 18 { // a header and a trailer
		return nil, io.ErrUnexpectedEOF
	}
	r := gunzips.Get().(*gzip.Reader)
	defer gunzips.Put(r)
	if err := r.Reset(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	// Deflate shrinks at most 1032 to 1 (zlib.net/zlib_tech.html): what claims more is cut off or lies.
	claim := min(int64(binary.LittleEndian.Uint32(data[len(data)-4:])), int64(len(data))*1032, MaxUnpacked)
	out, err := readAll(r, make([]byte, 0, claim+1))
	if !errors.Is(err, io.ErrShortBuffer) {
		return out, err
	}
	if claim == MaxUnpacked {
		return nil, errTooMuch
	}
	// Not the whole was said: there are several members.
	all := make([]byte, len(out), MaxUnpacked+1)
	copy(all, out)
	if out, err = readAll(r, all); errors.Is(err, io.ErrShortBuffer) {
		return nil, errTooMuch
	}
	return bytes.Clone(out), err
}

// readAll appends what r has within dst's capacity, one byte of which stays free, or returns io.ErrShortBuffer.
func readAll(r io.Reader, dst []byte) ([]byte, error) {
	for len(dst) < cap(dst) {
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return dst, io.ErrShortBuffer
}
