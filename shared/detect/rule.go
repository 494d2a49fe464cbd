package detect

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// Kind tells what a document is.
type Kind uint8

// The kinds of documents.
const (
	Detection   Kind = iota // matches single events
	Correlation             // matches what other rules matched
	Filter                  // keeps other rules from matching
)

// String returns detection, correlation or filter.
func (k Kind) String() string {
	switch k {
	case Correlation:
		return "correlation"
	case Filter:
		return "filter"
	default:
		return "detection"
	}
}

// Rule is one Sigma document. Its exported fields are never changed after [Parse].
type Rule struct {
	Kind Kind
	// ID is the document's id, else its name, else its title.
	ID          string
	Name        string
	Title       string
	Description string
	Author      string
	Status      string
	// File is as given to Parse; Line is the document's first.
	File string
	Line int

	// Severity is the document's level: informational is Info, and so is none.
	Severity event.Severity
	// Techniques are the ATT&CK ids of the tags in the tags' order, for instance T1059.004; Tactics are the names, for
	// instance "Command and Control".
	Techniques, Tactics []string
	Tags                []string
	FalsePositives      []string
	References          []string
	Fields              []string

	// Actions and GroupBy are ours, below the key apss: what the reader of an alert should do, and the fields whose
	// values belong to an incident's fingerprint.
	Actions, GroupBy []string

	// Expires is when an exception ends to hold for events; zero is never.
	Expires time.Time

	exception   bool // a filter in its simple form
	source      *logsource
	detection   *detection
	correlation *correlation
	targets     []string // of a filter: ids or names; nil is every rule
	doc         *document
}

// Expired reports whether the document is an exception that holds no more.
func (r *Rule) Expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// Technique is the first of Techniques, or empty.
func (r *Rule) Technique() string { return first(r.Techniques) }

// Tactic is the first of Tactics, or empty.
func (r *Rule) Tactic() string { return first(r.Tactics) }

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

var techniqueTag = regexp.MustCompile(`^t\d{4}(\.\d{3})?$`)

// otherATTACK are tags of groups, software, data sources, mitigations and assets (tags appendix).
var otherATTACK = regexp.MustCompile(`^(g|s|ds|m|a|ta|det|an|c)\d{3,}(\.\d+)?$`)

// attack reads ATT&CK's tactics and techniques from tags.
func attack(tags []string) (techniques, tactics []string) {
	for _, tag := range tags {
		name, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(tag)), "attack.")
		switch {
		case !ok || name == "" || otherATTACK.MatchString(name):
		case techniqueTag.MatchString(name):
			techniques = append(techniques, strings.ToUpper(name))
		default:
			words := strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' })
			for i, w := range words {
				if w != "and" {
					words[i] = strings.ToUpper(w[:1]) + w[1:]
				}
			}
			tactics = append(tactics, strings.Join(words, " "))
		}
	}
	return techniques, tactics
}

var levels = map[string]event.Severity{
	"": event.Info, "informational": event.Info, "low": event.Low, "medium": event.Medium, "high": event.High,
	"critical": event.Critical,
}

// Needs is what a detection rule must be given.
type Needs struct {
	// Types are the events it can match; empty means it can never match here.
	Types []event.Type
	// Fields are our names of the fields it asks for, sorted.
	Fields []string
	// Missing are Sigma's names of fields that it asks for and that no sensor of ours fills, sorted.
	Missing []string
}

// Needs returns what the rule needs. Of a correlation rule it is empty: ask the rules it refers to.
func (r *Rule) Needs() Needs {
	var n Needs
	if r.detection == nil {
		return n
	}
	for _, t := range r.source.types {
		if tree := r.detection.tree.simplify(fixedBy(t)); tree.op != opFalse {
			n.Types = append(n.Types, t)
			tree.leaves(func(l *leaf) { n.Fields = append(n.Fields, l.fields()...) })
		}
	}
	r.detection.tree.leaves(func(l *leaf) {
		for _, f := range []*field{l.field, l.ref} {
			if f != nil && f.load == nil {
				n.Missing = append(n.Missing, f.name)
			}
		}
	})
	slices.Sort(n.Fields)
	slices.Sort(n.Missing)
	n.Fields, n.Missing = slices.Compact(n.Fields), slices.Compact(n.Missing)
	return n
}

// fields are the names of what the leaf reads.
func (l *leaf) fields() []string {
	names := []string{l.field.name}
	if l.ref != nil {
		names = append(names, l.ref.name)
	}
	return names
}

// RefersTo returns the ids or names of the rules that a correlation rule is about, nil of another.
func (r *Rule) RefersTo() []string {
	if r.correlation == nil {
		return nil
	}
	return slices.Clone(r.correlation.rules)
}

// Parts returns the rules that r comes down to: itself, or those that a correlation refers to, and theirs. Find returns the
// rule of an id or name, nil when there is none.
func (r *Rule) Parts(find func(name string) *Rule) []*Rule {
	all := []*Rule{r}
	for i := 0; i < len(all); i++ {
		if all[i].correlation == nil {
			continue
		}
		for _, name := range all[i].correlation.rules {
			if part := find(name); part != nil && !slices.Contains(all, part) {
				all = append(all, part)
			}
		}
	}
	return slices.DeleteFunc(all, func(r *Rule) bool { return r.Kind == Correlation })
}

// Coverage says how much of a rule can work.
type Coverage uint8

// The degrees of coverage.
const (
	// Live rules have all they ask for.
	Live Coverage = iota
	// Degraded rules can still match, but miss what depends on absent events or fields.
	Degraded
	// Blind rules can never match.
	Blind
)

// String returns live, degraded or blind.
func (c Coverage) String() string {
	switch c {
	case Degraded:
		return "degraded"
	case Blind:
		return "blind"
	default:
		return "live"
	}
}

// Sight is what can be seen where rules are to work. A nil func sees everything.
type Sight struct {
	Type func(event.Type) bool
	// Field is asked for names as in [Needs].Fields: what is known of a process often is not of the owner of a socket.
	Field func(t event.Type, name string) bool
}

// Coverage decides how much of a detection rule can work with what is seen. It treats a field that is not seen as one
// that never has a value: a condition that then cannot be true makes the rule blind. Negations of what is not seen hold,
// so a degraded rule may match more than meant as well as less.
func (r *Rule) Coverage(s Sight) Coverage {
	if r.detection == nil {
		return Live
	}
	alive, lost := false, false
	for _, t := range r.source.types {
		tree := r.detection.tree.simplify(fixedBy(t))
		if tree.op == opFalse {
			continue
		}
		if s.Type != nil && !s.Type(t) {
			lost = true
			continue
		}
		seen := tree.simplify(func(l *leaf) (bool, bool) {
			for _, name := range l.fields() {
				if s.Field != nil && !s.Field(t, name) {
					lost = true
					return false, true
				}
			}
			return false, false
		})
		alive = alive || seen.op != opFalse
	}
	if !alive {
		return Blind
	}
	if lost || len(r.Needs().Missing) > 0 || r.detection.partly() {
		return Degraded
	}
	return Live
}
