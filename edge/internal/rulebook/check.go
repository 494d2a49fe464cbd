package rulebook

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/detect/rules"
)

// Check prints every fault of the rules at paths, what can never match, which exceptions have expired by now, and how
// many rules are supported. The rules are laid over the pack, so that filters and exceptions may be for rules of the pack.
// It reports whether there was no fault. The error is that something could not be read; the rest is checked all the same.
func Check(w io.Writer, paths []string, now time.Time) (bool, error) {
	parsed, faults, unread := Read(paths)
	if unread != nil && len(parsed) == 0 && len(faults) == 0 {
		return false, unread
	}
	pack, _ := rules.Pack()
	set, more := detect.Compile(detect.Override(pack, parsed), detect.Options{})
	faults = append(faults, more...)
	for _, f := range faults {
		fmt.Fprintln(w, printable(f.Error()))
	}
	for _, r := range parsed {
		if r.Expired(now) {
			fmt.Fprintf(w, "%s:%d: exception %q: note: %s; remove it or give it another date\n", printable(r.File), r.Line, printable(r.Title), expiry(r, now))
		}
	}
	for _, r := range set.Blind() {
		fmt.Fprintf(w, "%s:%d: rule %q: note: it can never match: no sensor fills %s\n", printable(r.File), r.Line, printable(r.Title), strings.Join(r.Needs().Missing, ", "))
	}
	if len(parsed) == 0 && len(faults) == 0 {
		return false, fmt.Errorf("no rule in %s: name files or folders with .yml or .yaml files", strings.Join(paths, ", "))
	}
	// A document has its title or, without one, its line in its faults.
	type document struct {
		file, title string
		line        int
	}
	var bad []document
	for _, f := range faults {
		d := document{file: f.File, title: f.Rule}
		if f.Rule == "" {
			d.line = f.Line
		}
		if !slices.Contains(bad, d) {
			bad = append(bad, d)
		}
	}
	lost := 0 // of those that could be read
	for _, r := range parsed {
		if slices.Contains(bad, document{file: r.File, title: r.Title}) {
			lost++
		}
	}
	total := len(parsed) - lost + len(bad)
	fmt.Fprintf(w, "%d rules: %d supported, %d unsupported\n", total, total-len(bad), len(bad))
	return len(faults) == 0, unread
}

// Test holds the rules at paths, laid over the pack, against the fixtures there. It reports whether all passed.
func Test(w io.Writer, paths []string) (bool, error) {
	cases, err := fixtures(paths)
	if err != nil {
		return false, err
	}
	if len(cases) == 0 {
		return false, fmt.Errorf("no fixture in %s: name files or folders with .test.yaml files", strings.Join(paths, ", "))
	}
	all, faults, err := WithPack(paths)
	if err != nil {
		return false, err
	}
	set, more := detect.Compile(all, detect.Options{})
	faults = append(faults, more...)
	for _, f := range faults {
		fmt.Fprintln(w, printable(f.Error()))
	}
	failed := 0
	for _, c := range cases {
		if c.Rule != "" && !slices.ContainsFunc(all, func(r *detect.Rule) bool { return r.ID == c.Rule }) {
			fmt.Fprintf(w, "%s:%d: there is no rule %q\n", c.File, c.Line, c.Rule)
			failed++
		} else if f := c.Check(set); f != nil {
			fmt.Fprintln(w, f)
			failed++
		}
	}
	fmt.Fprintf(w, "%d fixtures: %d passed, %d failed\n", len(cases), len(cases)-failed, failed)
	return failed == 0 && len(faults) == 0, nil
}

// printable replaces what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\uFFFD'
		}
		return r
	}, s)
}
