package event

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// What follows writes the scalars of JSON. Nothing written can end a line or speak to a terminal that shows it.

const hexDigits = "0123456789abcdef"

// plain marks the bytes that stand for themselves inside a JSON string.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != 0x7f
	}
	return t
}()

// active reports whether r, which is not ASCII, does something when shown: the C1 control characters, which a terminal
// obeys as it does escape sequences (ECMA-48), and the line and paragraph separators.
func active(r rune) bool { return r < 0xa0 || r == 0x2028 || r == 0x2029 }

// appendString quotes s. Control characters, DEL and C1 included, are escaped; invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			invalid := r == utf8.RuneError && size == 1
			if !invalid && !active(r) {
				i += size
				continue
			}
			b = append(b, s[start:i]...)
			if invalid {
				b = append(b, "\uFFFD"...)
			} else {
				b = appendEscaped(b, r)
			}
			i += size
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = appendEscaped(b, rune(c))
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendInline writes valid JSON that somebody else made as appendString would have: in one line, nothing active.
func appendInline(b, j []byte) []byte {
	start := 0
	for i := 0; i < len(j); {
		c := j[i]
		if c >= ' ' && c < 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRune(j[i:])
		if c > 0x7f && !active(r) {
			i += size
			continue
		}
		b = append(b, j[start:i]...)
		if c >= 0x7f { // inside a string; what is below a space is not, and means nothing outside
			b = appendEscaped(b, r)
		}
		i += size
		start = i
	}
	return append(b, j[start:]...)
}

func appendEscaped(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
}

// appendFloat writes null for what JSON has no number for.
func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

// appendTime writes t as RFC 3339 in UTC with all nine digits of the fraction, so that times sort as text.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 { // RFC 3339 has no such year: the nearest time that it has
		t = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
		if year > 9999 {
			t = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
		}
		year, month, day = t.Date()
	}
	hour, minute, second := t.Clock()
	b = append(b, '"')
	b = appendPadded(b, year, 4)
	b = append(b, '-')
	b = appendPadded(b, int(month), 2)
	b = append(b, '-')
	b = appendPadded(b, day, 2)
	b = append(b, 'T')
	b = appendPadded(b, hour, 2)
	b = append(b, ':')
	b = appendPadded(b, minute, 2)
	b = append(b, ':')
	b = appendPadded(b, second, 2)
	b = append(b, '.')
	b = appendPadded(b, t.Nanosecond(), 9)
	return append(b, 'Z', '"')
}

func appendPadded(b []byte, n, width int) []byte {
	end := len(b) + width
	b = append(b, "000000000"[:width]...)
	for i := end - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}
