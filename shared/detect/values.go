package detect

import (
	"fmt"
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

// own makes a value of what was appended to v.buf; buf is v.buf and that.
func (v *values) own(buf []byte) {
	start := len(v.buf)
	v.buf = buf
	v.texts = append(v.texts, stringOf(buf[start:]))
}

func (v *values) int(n int64) {
	v.number, v.isNumber = n, len(v.texts) == 0
	v.own(strconv.AppendInt(v.buf, n, 10))
}

func (v *values) uint(n uint64) {
	if n <= math.MaxInt64 {
		v.int(int64(n))
		return
	}
	v.own(strconv.AppendUint(v.buf, n, 10))
}

// float writes whole numbers as integers: a number that went through JSON is the same as before.
func (v *values) float(f float64) {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		v.int(int64(f))
		return
	}
	v.own(strconv.AppendFloat(v.buf, f, 'g', -1, 64))
}

func (v *values) bool(b bool) { v.texts = append(v.texts, strconv.FormatBool(b)) }

func (v *values) time(t time.Time) {
	if !t.IsZero() {
		v.when = t.UTC()
		v.own(v.when.AppendFormat(v.buf, "2006-01-02T15:04:05.000000000Z07:00")) // as the contract writes it
	}
}

func (v *values) strings(all []string) {
	for _, s := range all {
		v.text(s)
	}
}

// any takes what event.Event.Metadata may hold. What it is given goes to the heap.
func (v *values) any(x any) {
	switch x := x.(type) {
	case string:
		v.text(x)
	case bool:
		v.bool(x)
	case int:
		v.int(int64(x))
	case int64:
		v.int(x)
	case uint64:
		v.uint(x)
	case uint:
		v.uint(uint64(x))
	case float64:
		v.float(x)
	case int8, int16, int32, uint8, uint16, uint32, float32: // a float64 holds every one of them
		f, _ := strconv.ParseFloat(fmt.Sprint(x), 64)
		v.float(f)
	case time.Time:
		v.time(x)
	case []string:
		v.strings(x)
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

// unmapped is the network as values are compared: in IPv4 where it is of mapped addresses.
func unmapped(network netip.Prefix) netip.Prefix {
	if network.Addr().Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-96)
	}
	return network.Masked()
}
