package integration

import (
	"errors"
	"fmt"
	"slices"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/setting"
)

// Route says which events and alerts an integration takes: those that match every list that is not empty. The zero
// value takes all.
//
// What an event or alert does not say is "", which only the pattern "*" matches. A severity that cannot be read passes:
// better one too many than a lost one.
type Route struct {
	MinSeverity event.Severity `yaml:"min_severity"`
	Types       []Glob         `yaml:"types"` // of the event; of an alert: of the event that it carries
	Rules       []Glob         `yaml:"rules"` // any of an event's, or the alert's
	Namespaces  []Glob         `yaml:"namespaces"`
	Clusters    []Glob         `yaml:"clusters"`
}

// All reports whether r takes everything.
func (r *Route) All() bool {
	return r.MinSeverity == event.Info && len(r.Types) == 0 && len(r.Rules) == 0 && len(r.Namespaces) == 0 && len(r.Clusters) == 0
}

// MatchAlert reports whether r takes a.
func (r *Route) MatchAlert(a *event.Alert) bool {
	var t event.Type
	if a.Event != nil {
		t = a.Event.Type
	}
	return a.Severity >= r.MinSeverity && takes(r.Types, t) && takes(r.Rules, a.RuleID) &&
		takes(r.Namespaces, a.PodNamespace) && takes(r.Clusters, a.Cluster)
}

// MatchEvent reports whether r takes e, which must be valid JSON as the envelope's reader hands it out. It reads no
// further into e than it needs to, and allocates nothing unless strings are escaped.
func (r *Route) MatchEvent(e event.Raw) bool {
	want := r.members()
	if want == 0 {
		return true
	}
	s := scanner{data: e}
	for s.next() {
		m := memberOf(s.name)
		if m&want == 0 {
			continue
		}
		if !r.takesMember(m, s.value) {
			return false
		}
		if want &^= m; want == 0 {
			return true
		}
	}
	// What e does not say. A missing severity passes.
	for m := memberType; m <= memberCluster; m <<= 1 {
		if want&m != 0 && !takes(r.globs(m), "") {
			return false
		}
	}
	return true
}

// member is a set of an event's members that routes look at.
type member uint8

const (
	memberSeverity member = 1 << iota
	memberType
	memberRules
	memberNamespace
	memberCluster
)

func memberOf(name []byte) member {
	switch string(name) {
	case "severity":
		return memberSeverity
	case "type":
		return memberType
	case "rules":
		return memberRules
	case "pod_namespace":
		return memberNamespace
	case "cluster":
		return memberCluster
	}
	return 0
}

// members are those that r looks at.
func (r *Route) members() (set member) {
	if r.MinSeverity > event.Info {
		set = memberSeverity
	}
	for m := memberType; m <= memberCluster; m <<= 1 {
		if len(r.globs(m)) > 0 {
			set |= m
		}
	}
	return set
}

func (r *Route) globs(m member) []Glob {
	switch m {
	case memberType:
		return r.Types
	case memberRules:
		return r.Rules
	case memberNamespace:
		return r.Namespaces
	case memberCluster:
		return r.Clusters
	default:
		return nil
	}
}

// takesMember reports whether r takes an event whose member m has this JSON value.
func (r *Route) takesMember(m member, value []byte) bool {
	switch m {
	case memberSeverity:
		var s event.Severity
		return s.UnmarshalText(text(value)) != nil || s >= r.MinSeverity
	case memberRules:
		none := true
		for rule := range elements(value) {
			none = false
			if takes(r.Rules, text(rule)) {
				return true
			}
		}
		return none && takes(r.Rules, "")
	default:
		return takes(r.globs(m), text(value))
	}
}

// takes reports whether one of globs matches s; no globs match everything.
func takes[S ~string | ~[]byte](globs []Glob, s S) bool {
	for _, g := range globs {
		if match(g, s) {
			return true
		}
	}
	return len(globs) == 0
}

// validate reports patterns of types that match no type.
func (r *Route) validate() error {
	types := event.Types()
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	var errs []error
	for _, g := range r.Types {
		if slices.ContainsFunc(names, g.Match) {
			continue
		}
		err := fmt.Errorf("types: %q matches no type of event", string(g))
		if near := setting.Nearest(string(g), names); near != "" {
			err = fmt.Errorf("%w; did you mean %s?", err, near)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Glob is a pattern of a whole text: "*" stands for any number of bytes, "?" for one, everything else for itself. Case
// matters.
type Glob string

// maxGlob and maxName bound the work of a match: cluster names of GKE are at most 40 bytes long, names of Kubernetes 253.
const (
	maxGlob = 256
	maxName = 1024
)

// UnmarshalText implements [encoding.TextUnmarshaler].
func (g *Glob) UnmarshalText(text []byte) error {
	if len(text) == 0 || len(text) > maxGlob {
		return fmt.Errorf("a pattern has 1 to %d bytes, not %d", maxGlob, len(text))
	}
	*g = Glob(text)
	return nil
}

// Match reports whether g matches s. What is longer than 1 KiB is no name: only "*" matches it.
func (g Glob) Match(s string) bool { return match(g, s) }

func match[S ~string | ~[]byte](g Glob, s S) bool {
	if len(s) > maxName {
		return g == "*"
	}
	i, j := 0, 0         // in g and s
	star, after := -1, 0 // the last "*" in g, and where in s what follows it was tried
	for j < len(s) {
		switch {
		case i < len(g) && g[i] == '*':
			star, after = i, j
			i++
		case i < len(g) && (g[i] == '?' || g[i] == s[j]):
			i, j = i+1, j+1
		case star >= 0:
			after++
			i, j = star+1, after
		default:
			return false
		}
	}
	for i < len(g) && g[i] == '*' {
		i++
	}
	return i == len(g)
}
