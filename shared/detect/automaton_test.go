package detect

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// found runs one search and returns the keys it hit, in order.
func found(keys int, search func(*Matcher)) []int32 {
	m := &Matcher{e: &engine{triggerAt: make([]uint32, keys+1)}, hits: make([]uint64, words64(keys))}
	search(m)
	var out []int32
	for k := range int32(keys) {
		if m.hits[k>>6]>>(k&63)&1 != 0 {
			out = append(out, k)
		}
	}
	return out
}

func TestAutomaton(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	word := func(alphabet string, most int) string {
		b := make([]byte, 1+random.IntN(most))
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		return string(b)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	hits := 0
	for _, alphabet := range []string{"ab", "abcdefgh/-. ", string(all)} {
		for range 200 {
			var literals, reversed []literalKey
			for range 1 + random.IntN(60) {
				w := word(alphabet, 6)
				if !slices.ContainsFunc(literals, func(l literalKey) bool { return l.text == w }) {
					literals = append(literals, literalKey{w, int32(len(literals))})
					reversed = append(reversed, literalKey{backwards(w), int32(len(reversed))})
				}
			}
			anywhere, forward, backward := newAutomaton(literals, true), newAutomaton(literals, false), newAutomaton(reversed, false)
			for range 20 {
				text := word(alphabet, 30)
				searches := []struct {
					name   string
					is     func(s, w string) bool
					search func(*Matcher)
				}{
					{"scan", strings.Contains, func(m *Matcher) { anywhere.scan(text, m) }},
					{"starts", strings.HasPrefix, func(m *Matcher) { forward.starts(text, m) }},
					{"ends", strings.HasSuffix, func(m *Matcher) { backward.ends(text, m) }},
				}
				for _, s := range searches {
					var want []int32
					for _, l := range literals {
						if s.is(text, l.text) {
							want = append(want, l.key)
						}
					}
					got := found(len(literals), s.search)
					hits += len(got)
					if !slices.Equal(got, want) {
						t.Fatalf("%s of %q for %q: got %v want %v", s.name, text, literals, got, want)
					}
				}
			}
		}
	}
	if hits < 1000 {
		t.Errorf("only %d hits: the texts show nothing", hits)
	}
}

func TestFoldIsEqualFold(t *testing.T) {
	for r := range rune(unicode.MaxRune + 1) {
		if !utf8.ValidRune(r) {
			continue
		}
		s := string(r)
		folded := foldString(s)
		if !strings.EqualFold(s, folded) || foldString(folded) != folded {
			t.Fatalf("%q folds to %q, which is not its equal or folds again", s, folded)
		}
		for q := unicode.SimpleFold(r); q != r; q = unicode.SimpleFold(q) {
			if foldString(string(q)) != folded {
				t.Fatalf("%q and %q are equal but fold to %q and %q", s, string(q), folded, foldString(string(q)))
			}
		}
	}
	if got := foldString("A\xff\xc3B\xe2\x82"); got != "a\xff\xc3b\xe2\x82" {
		t.Errorf("got %q: bytes that are not UTF-8 changed", got)
	}
}

func TestIsFolded(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for b := range 256 {
				s := []byte(strings.Repeat("z", length))
				s[at] = byte(b)
				want := b < utf8.RuneSelf && !unicode.IsUpper(rune(b))
				if got := isFolded(string(s)); got != want {
					t.Fatalf("%q: got %v want %v", s, got, want)
				}
			}
		}
	}
}
