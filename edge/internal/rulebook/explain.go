package rulebook

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apss-sensor/apss/edge/internal/tier"
	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/event"
)

// List prints a table of rules: id, level, technique and title. Filters and exceptions, which have no level, say what they
// are and since when they have expired.
func List(w io.Writer, rules []*detect.Rule, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tLEVEL\tTECHNIQUE\tTITLE")
	rules = slices.Clone(rules)
	slices.SortStableFunc(rules, func(a, b *detect.Rule) int { return strings.Compare(a.ID, b.ID) })
	for _, r := range rules {
		level, title := r.Severity.String(), printable(r.Title)
		if r.Kind == detect.Filter {
			level = "filter"
		}
		if !r.Expires.IsZero() {
			title += " (" + expiry(r, now) + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", printable(r.ID), level, r.Technique(), title)
	}
	return table.Flush()
}

// expiry says until when an exception holds or held.
func expiry(r *detect.Rule, now time.Time) string {
	verb := "expires after "
	if r.Expired(now) {
		verb = "not applied: expired after "
	}
	return verb + r.Expires.AddDate(0, 0, -1).Format(time.DateOnly)
}

// Explain prints what the rule with that id, name or title is about, what it needs, at which tier it works, and what is
// excepted from it; of a filter or an exception, which rules it is for.
func Explain(w io.Writer, rules []*detect.Rule, name string, now time.Time) error {
	r := find(rules, name)
	if r == nil {
		return fmt.Errorf("there is no rule %q; apss-rules list shows those that are there", name)
	}
	about := r.Severity.String() + ", " + r.Kind.String()
	if r.Kind == detect.Filter {
		about = "filter"
	}
	if !r.Expires.IsZero() {
		about += ", " + expiry(r, now)
	}
	fmt.Fprintf(w, "%s  %s\n%s, line %d of %s\n", printable(r.ID), printable(r.Title), about, r.Line, r.File)
	section := func(title string, lines ...string) {
		if len(lines) == 0 || len(lines) == 1 && lines[0] == "" {
			return
		}
		fmt.Fprintf(w, "\n%s\n", title)
		for _, line := range lines {
			fmt.Fprintf(w, "    %s\n", printable(line))
		}
	}
	section("Meaning", wrap(r.Description)...)
	if r.Kind == detect.Filter {
		section("For", wrap(strings.Join(excepted(rules, r), ", "))...)
		return nil
	}
	section("ATT&CK", strings.Join(append(slices.Clone(r.Tactics), r.Techniques...), ", "))
	parts := r.Parts(func(name string) *detect.Rule { return find(rules, name) })
	for _, part := range parts {
		needs := part.Needs()
		of := ""
		if part != r {
			of = " (" + part.ID + ")"
		}
		section("Events"+of, wrap(join(needs.Types))...)
		section("Fields"+of, wrap(strings.Join(needs.Fields, ", "))...)
		section("Fields that no sensor fills"+of, wrap(strings.Join(needs.Missing, ", "))...)
	}
	tiers := make([]string, 0, 4)
	for _, t := range []tier.Tier{tier.Node, tier.PodFull, tier.SameUID, tier.Limited} {
		line := fmt.Sprintf("%-13s %s", t, coverage(parts, t))
		if t == tier.SameUID {
			line += ", of processes with the agent's uid"
		}
		tiers = append(tiers, line)
	}
	section("Tiers", tiers...)
	set, _ := detect.Compile(rules, detect.Options{})
	var exceptions []string
	for _, f := range set.Exceptions(r) {
		line := f.ID + "  " + f.Title
		if !f.Expires.IsZero() {
			line += " (" + expiry(f, now) + ")"
		}
		exceptions = append(exceptions, line)
	}
	section("Exceptions", exceptions...)
	section("May err on", r.FalsePositives...)
	section("What to do", r.Actions...)
	section("References", r.References...)
	return nil
}

// excepted are the ids of the rules that f is for.
func excepted(rules []*detect.Rule, f *detect.Rule) []string {
	set, _ := detect.Compile(rules, detect.Options{})
	var ids []string
	for _, r := range rules {
		if slices.Contains(set.Exceptions(r), f) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func find(rules []*detect.Rule, name string) *detect.Rule {
	for _, fits := range []func(*detect.Rule) bool{
		func(r *detect.Rule) bool { return r.ID == name },
		func(r *detect.Rule) bool { return strings.EqualFold(r.ID, name) || r.Name == name && name != "" },
		func(r *detect.Rule) bool { return strings.EqualFold(r.Title, name) },
	} {
		if i := slices.IndexFunc(rules, fits); i >= 0 {
			return rules[i]
		}
	}
	return nil
}

// coverage is the worst of the parts'.
func coverage(parts []*detect.Rule, t tier.Tier) detect.Coverage {
	worst := detect.Live
	for _, part := range parts {
		worst = max(worst, part.Coverage(t.Sight()))
	}
	return worst
}

func join(types []event.Type) string {
	names := make([]string, 0, len(types))
	for _, t := range types {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// wrap breaks s into lines of at most 100 bytes, as far as its words allow.
func wrap(s string) []string {
	const width = 100
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
