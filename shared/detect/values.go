package detect

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// values are what one field holds in one event. An empty string is no value: the contract does not tell an empty field
// from one that is not known, so to rules it is null, does not exist, and equals the empty text. Everything has a text, since Sigma
// compares as strings; numbers and times keep themselves beside it.
//
// A values is used again for every event; its texts may live in its own memory and are good until the next load.
type values struct {
	texts  []string
	number int64 // when isNumber: the one value
	when   time.Time
	addr   netip.Addr // of the one text, when asked for
	buf    []byte

	isNumber, addrKnown bool
}

func (v *values) reset() {
	v.texts, v.buf = v.texts[:0], v.buf[:0]
	v.when = time.Time{}
	v.isNumber, v.addrKnown = false, false
}

func (v *values) text(s string) {
	if s != "" {
		v.texts = append(v.texts, s)
	}
}

// own turns what was appended to v.buf since start into a value.
func (v *values) own(start int) { v.texts = append(v.texts, stringOf(v.buf[start:])) }

func (v *values) int(n int64) {
	v.number, v.isNumber = n, len(v.texts) == 0
	start := len(v.buf)
	v.buf = strconv.AppendInt(v.buf, n, 10)
	v.own(start)
}

func (v *values) uint(n uint64) {
	if n <= math.MaxInt64 {
		v.int(int64(n))
		return
	}
	start := len(v.buf)
	v.buf = strconv.AppendUint(v.buf, n, 10)
	v.own(start)
}

// float writes whole numbers as integers: a number that went through JSON is the same as before.
func (v *values) float(f float64) {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		v.int(int64(f))
		return
	}
	start := len(v.buf)
	v.buf = strconv.AppendFloat(v.buf, f, 'g', -1, 64)
	v.own(start)
}

func (v *values) bool(b bool) {
	if b {
		v.texts = append(v.texts, "true")
	} else {
		v.texts = append(v.texts, "false")
	}
}

func (v *values) time(t time.Time) {
	if t.IsZero() {
		return
	}
	v.when = t.UTC()
	start := len(v.buf)
	v.buf = v.when.AppendFormat(v.buf, "2006-01-02T15:04:05.000000000Z07:00") // as the contract writes it
	v.own(start)
}

// any takes what event.Event.Metadata may hold.
func (v *values) any(x any) {
	switch x := x.(type) {
	case string:
		v.text(x)
	case bool:
		v.bool(x)
	case int:
		v.int(int64(x))
	case int8:
		v.int(int64(x))
	case int16:
		v.int(int64(x))
	case int32:
		v.int(int64(x))
	case int64:
		v.int(x)
	case uint:
		v.uint(uint64(x))
	case uint8:
		v.uint(uint64(x))
	case uint16:
		v.uint(uint64(x))
	case uint32:
		v.uint(uint64(x))
	case uint64:
		v.uint(x)
	case float32:
		v.float(float64(x))
	case float64:
		v.float(x)
	case time.Time:
		v.time(x)
	case []string:
		for _, s := range x {
			v.text(s)
		}
	case []any:
		for _, e := range x {
			if _, nested := e.([]any); !nested {
				v.any(e)
			}
		}
	}
	if len(v.texts) != 1 {
		v.isNumber = false
	}
}

// address returns the IP address that the texts[i] is.
func (v *values) address(i int) netip.Addr {
	if len(v.texts) == 1 && v.addrKnown {
		return v.addr
	}
	addr := parseAddr(v.texts[i])
	if len(v.texts) == 1 {
		v.addr, v.addrKnown = addr, true
	}
	return addr
}

// parseAddr returns the zero Addr for what is none. An IPv4 address mapped into IPv6 is that IPv4 address. A zone is cut
// off first: it says nothing about the network, and netip would allocate for it.
func parseAddr(s string) netip.Addr {
	s, _, _ = strings.Cut(s, "%")
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}
