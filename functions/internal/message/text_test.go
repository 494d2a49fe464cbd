package message

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"bash -i":                   "bash -i",
		"<!channel> @everyone *b*":  "<!channel> @everyone *b*", // the receiver's to escape
		"a\nb\tc\r":                 `a\nb\tc\r`,
		"\x1b[2J\x00\x7f\u0085":     `\x1b[2J\x00\x7f\u0085`,
		"gpj.\u202egnp.exe":         `gpj.\u202egnp.exe`,
		"a\u200bb\u200d\ufeff":      `a\u200bb\u200d\ufeff`,
		"a\u00a0b\u3000c":           `a\u00a0b\u3000c`,
		"\u2028\u3164\u2800\ufe0f":  `\u2028\u3164\u2800\ufe0f`,
		"\U000e0041":                `\U000e0041`,
		"\xff\xfe":                  `\xff\xfe`,
		"\ufffd":                    "\ufffd",
		"😀 é 日本":                    "😀 é 日本",
		"z\u0301\u0302\u0303\u0304": "z\u0301\u0302\u0303" + `\u0304`,
		`back\slash "q" 'q'`:        `back\slash "q" 'q'`,
	} {
		if got := Line(in, 100); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got, want := Text("a\r\nb\n\tc\rd\x00", 100), "a\nb\n\tc\\rd\\x00"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abc", 3, "abc"},
		{strings.Repeat("a", 100), 25, "aaaaaaa… (+93 characters)"},
		{strings.Repeat("😀", 100), 24, "😀😀😀… (+97 characters)"},
		{strings.Repeat("a", 100), 5, "…"},
		{"abc", 0, ""},
	} {
		if got := Cut(tt.in, tt.limit); got != tt.want || length(got) > tt.limit {
			t.Errorf("%q to %d: got %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
	if got, want := Line(strings.Repeat("a", 1<<20), 30), "aaaaaaa… (+1048569 characters)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	double := func(s string) string { return strings.ReplaceAll(s, "&", "&amp;") }
	if got, want := Fit("&&&&&&&&&&&&&&", 40, double), "&amp;&amp;&amp;&amp;… (+10 characters)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestList(t *testing.T) {
	items := []string{"one", "two", "three", "four"}
	for limit, want := range map[int]string{
		100: "one\ntwo\nthree\nfour", 18: "one\ntwo\nthree\nfour", 17: "one\ntwo\n… 2 more", 15: "one\n… 3 more", 10: "… 4 more",
	} {
		if got := List(items, limit, nil); got != want {
			t.Errorf("%d: got %q, want %q", limit, got, want)
		}
	}
	if got, want := List([]string{strings.Repeat("x", 100)}, 90, nil), strings.Repeat("x", 12)+"… (+88 characters)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"bash -i", "a\r\nb\x1b[2J", "\xff\u202e\u200b", "z\u0301\u0302\u0303\u0304", "&<>😀"} {
		f.Add(s, 30)
	}
	escape := func(s string) string { return strings.ReplaceAll(s, "&", "&amp;") }
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit %= 1000
		for name, got := range map[string]string{
			"Line": Line(s, limit), "Text": Text(s, limit), "Fit": Fit(Line(s, 2000), limit, escape), "List": List([]string{Line(s, 200), "b"}, limit, escape),
		} {
			// A list of too little room still says how many it leaves out.
			if n := length(got); n > max(limit, 0) && (name != "List" || got != more(2)) {
				t.Errorf("%s: got %d characters, want at most %d: %q", name, n, limit, got)
			}
			if !utf8.ValidString(got) {
				t.Errorf("%s: not UTF-8: %q", name, got)
			}
			for _, r := range got {
				lineEnd := (r == '\n' || r == '\t') && (name == "Text" || name == "List")
				if !unicode.IsPrint(r) && !lineEnd {
					t.Errorf("%s: holds %q: %q", name, r, got)
				}
			}
		}
	})
}
