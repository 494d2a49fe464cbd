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

// format is one content-encoding.
type format struct {
	name string
	// size returns how large data says it is when unpacked, 0 when it does not say. It may lie.
	size func(data []byte) (uint64, error)
	// decode appends the unpacked data to dst within dst's capacity, or returns errFull.
	decode func(dst, data []byte) ([]byte, error)
}

// refuse says which encoding an error is about.
func (f format) refuse(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, f.name, err)
}

// errFull tells that unpacked data did not fit.
var errFull = errors.New("no room for the unpacked data")

// slack is the room behind the end that the zstd decoder needs for its fast path.
const slack = 16

// rooms are for data that does not say how large it is: none of our own.
var rooms = sync.Pool{New: func() any { return new([MaxUnpacked + slack]byte) }}

// format returns how m's data is encoded. The names are those of HTTP (RFC 9110 section 8.4.1), case does not matter.
func (m Message) format() (format, error) {
	switch name := strings.ToLower(m.Attributes[attrEncoding]); name {
	case "zstd":
		return format{"zstd", zstdSize, decodeZstd}, nil
	case "gzip", "x-gzip":
		return format{"gzip", gzipSize, decodeGzip}, nil
	case "", "none", "identity":
		return format{"not compressed", plainSize, decodePlain}, nil
	default:
		return format{}, fmt.Errorf("%w: %.40q, accepted are zstd, gzip and none", ErrEncoding, name)
	}
}

func plainSize(data []byte) (uint64, error) { return uint64(len(data)), nil }

func decodePlain(dst, data []byte) ([]byte, error) { return append(dst, data...), nil }

// zstdSize reads the header of the first frame (RFC 8878 section 3.1.1.1).
func zstdSize(data []byte) (uint64, error) {
	var h zstd.Header
	if err := h.Decode(data); err != nil {
		return 0, err
	}
	if !h.HasFCS {
		return 0, nil
	}
	return h.FrameContentSize, nil
}

// maxWindow is the smallest power of two that holds MaxUnpacked.
const maxWindow = 16 << 20

// unzstd decodes for everybody: a zstd.Decoder is safe for concurrent DecodeAll. Its limits hold whatever a frame claims.
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

func decodeZstd(dst, data []byte) ([]byte, error) {
	out, err := unzstd().DecodeAll(data, dst)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return nil, errFull
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, fmt.Errorf("%w: zstd: its window is larger than %d bytes", ErrTooLarge, maxWindow)
	}
	return out, err
}

// gzipSize reads the trailer: the size of the last member modulo 2^32 (RFC 1952 section 2.3.1).
func gzipSize(data []byte) (uint64, error) {
	if len(data) < 18 { // a header and a trailer
		return 0, io.ErrUnexpectedEOF
	}
	size := uint64(binary.LittleEndian.Uint32(data[len(data)-4:]))
	// Deflate shrinks at most 1032 to 1 (zlib.net/zlib_tech.html). What claims more is cut off or lies.
	return min(size, uint64(len(data))*1032), nil
}

var gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}

func decodeGzip(dst, data []byte) ([]byte, error) {
	r := gunzips.Get().(*gzip.Reader)
	defer gunzips.Put(r)
	if err := r.Reset(bytes.NewReader(data)); err != nil {
		return nil, err
	}
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
	return nil, errFull
}
