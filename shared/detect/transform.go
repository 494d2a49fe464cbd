package detect

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// transform applies one value modifier to every alternative.
func transform(line int, word string, in []pattern, placeholders func(string) ([]string, bool)) ([]pattern, error) {
	var out []pattern
	for _, p := range in {
		var made []pattern
		switch word {
		case "contains":
			made = []pattern{surround(p, true, true)}
		case "startswith":
			made = []pattern{surround(p, false, true)}
		case "endswith":
			made = []pattern{surround(p, true, false)}
		case "windash":
			made = windash(p)
		case "expand":
			var err error
			if made, err = p.expand(placeholders); err != nil {
				return nil, faultf(line, "give its values in the settings", "%v", err)
			}
		default:
			text, ok := p.text()
			if !ok {
				return nil, faultf(line, "escape wildcards with a backslash, and write contains after "+word, "modifier %s cannot encode wildcards", word)
			}
			made = encode(word, text)
		}
		out = append(out, made...)
		if len(out) > maxExpansion {
			return nil, faultf(line, "split the value", "modifier %s makes more than %d values of one", word, maxExpansion)
		}
	}
	if len(out) == 0 {
		return nil, faultf(line, "give it a text", "modifier %s leaves nothing of the value", word)
	}
	return out, nil
}

func encode(word, text string) []pattern {
	switch word {
	case "base64":
		return []pattern{plain(base64.StdEncoding.EncodeToString([]byte(text)))}
	case "base64offset":
		return base64Offsets(text)
	case "utf16be":
		return []pattern{plain(string(appendUTF16(nil, binary.BigEndian, text)))}
	case "utf16":
		return []pattern{plain(string(appendUTF16([]byte{0xff, 0xfe}, binary.LittleEndian, text)))}
	default: // wide, utf16le
		return []pattern{plain(string(appendUTF16(nil, binary.LittleEndian, text)))}
	}
}

func appendUTF16(b []byte, order binary.AppendByteOrder, text string) []byte {
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// base64Offsets returns the digits that text has in common wherever it stands in an encoded text: one form for each of
// the three places that its first byte may have in a group of three.
func base64Offsets(text string) []pattern {
	var out []pattern
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		// A digit that also holds bits of a neighbour differs: skip those of the bytes before, cut those after.
		from := []int{0, 2, 3}[shift]
		to := len(encoded) - []int{0, 3, 2}[(shift+len(text))%3]
		if from < to {
			out = append(out, plain(encoded[from:to]))
		}
	}
	return out
}

// dashes are what the modifier windash takes for one another.
const dashes = "-/–—―"

// windash varies the dash of every flag: one that a word follows and none precedes. A dash inside a word is no flag.
func windash(p pattern) []pattern {
	out := []pattern{nil}
	word := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	for _, q := range p {
		before := rune(0)
		start := 0
		for i, r := range q.text {
			width := utf8.RuneLen(r)
			if width > 0 && strings.ContainsRune(dashes, r) && !word(before) {
				if after, _ := utf8.DecodeRuneInString(q.text[i+width:]); i+width < len(q.text) && word(after) {
					next := make([]pattern, 0, len(out)*len(dashes))
					for _, head := range out {
						for _, dash := range dashes {
							next = append(next, head.join(plain(q.text[start:i]+string(dash))))
						}
					}
					out, start = next, i+width
					if len(out) > maxExpansion {
						return out
					}
				}
			}
			before = r
		}
		rest := part{q.kind, q.text[start:]}
		for i := range out {
			out[i] = out[i].add(rest)
		}
	}
	return out
}

// surround puts stars around p.
func surround(p pattern, before, after bool) pattern {
	if before {
		p = pattern{{kind: anyRun}}.join(p)
	}
	if after {
		p = p.add(part{kind: anyRun})
	}
	return p
}
