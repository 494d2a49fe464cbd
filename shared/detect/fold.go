package detect

import (
	"encoding/binary"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

// Strings are compared after Unicode simple case folding ("ß" is not "ss"; "K", "k" and the Kelvin sign are one), the
// relation of strings.EqualFold. Folding here means: every rune becomes one chosen member of its folding orbit, so that
// comparing, searching and hashing can work on bytes. Bytes that are not UTF-8 stay as they are and equal only
// themselves.

// foldRune returns the member of r's orbit that stands for all of them: the ASCII lower-case letter where there is one,
// else the smallest.
func foldRune(r rune) rune {
	least := r
	for q := unicode.SimpleFold(r); q != r; q = unicode.SimpleFold(q) {
		least = min(least, q)
	}
	if 'A' <= least && least <= 'Z' {
		return least + 'a' - 'A'
	}
	return least
}

// appendFold appends the folded s to b.
func appendFold(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			b = append(b, c)
			i++
			continue
		}
		r, width := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && width == 1 {
			b = append(b, c)
		} else {
			b = utf8.AppendRune(b, foldRune(r))
		}
		i += width
	}
	return b
}

// foldString is appendFold for what is done once.
func foldString(s string) string { return string(appendFold(nil, s)) }

// isFolded reports quickly whether s is ASCII without capitals, so folding would change nothing. It may answer false for
// other strings that folding would not change.
func isFolded(s string) bool {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	i := 0
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		// Per byte, below 0x80: the high bit of w+(0x80-'A') says w >= 'A', that of w+(0x80-'Z'-1) says w > 'Z'.
		if w&high != 0 || ((w+ones*(0x80-'A'))&^(w+ones*(0x80-'Z'-1)))&high != 0 {
			return false
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// stringOf views b as a string. The caller never changes b's bytes while the string is in use.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// charWidth is the width of the first character of s: a rune, or one byte that is not UTF-8.
func charWidth(s string) int {
	if s[0] < utf8.RuneSelf {
		return 1
	}
	_, width := utf8.DecodeRuneInString(s)
	return width
}
