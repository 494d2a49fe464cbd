// Package stamp writes an attested identity over what events claim.
//
// An event is not decoded for it: a scanner walks the members of its object and the values of the five identity members
// ([Members]) are replaced in place; all other bytes stay as they were. What is missing is added. A name that differs
// from an identity member's by the case of its letters only is taken out, because decoders that ignore case
// (encoding/json is one) would read it as one.
//
// The scanner checks the whole event on its way, because bytes are passed on that nobody else looked at.
//
// Promises: what comes out is a valid JSON object in which each identity member stands once; what is no valid JSON object,
// or nested deeper than 100, comes back as an error.
//
// Limits: workload, container and all below are what the pod says: no token tells of them. Other names that stand twice
// are left to who decodes the event.
package stamp

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/shared/event"
)

// members are the names of what is written over, in the order of Place's fields.
var members = [...]string{"agent_id", "cluster", "node_name", "pod_name", "pod_namespace"}

// Place is an attested identity. An empty field is written too: what is not attested is not said.
type Place struct{ AgentID, Cluster, Node, Pod, Namespace string }

func (p *Place) values() [len(members)]string {
	return [...]string{p.AgentID, p.Cluster, p.Node, p.Pod, p.Namespace}
}

// Claim is what an event said of itself and is not so.
type Claim struct{ Member, Value string }

// maxClaim bounds what is kept of a claim: names in Kubernetes have at most 253 bytes (RFC 1123 subdomains).
const maxClaim = 253

// maxClaims bounds those that are kept of an event: there are thousands of ways to write five names.
const maxClaims = 16

// Stamp writes one identity. Safe for concurrent use.
type Stamp struct {
	place  Place
	values [len(members)]string
	quoted [len(members)][]byte
}

// New returns the stamp of p.
func New(p Place) *Stamp {
	s := &Stamp{place: p, values: p.values()}
	for i, v := range s.values {
		s.quoted[i], _ = jsontext.AppendQuote(nil, v) // its error is about invalid UTF-8, which it has replaced
	}
	return s
}

var errMalformed = errors.New("the event is not a valid JSON object")

// Event appends raw with the identity written over to dst. It returns the event's severity, [event.Info] where it has
// none that is known, and what it claimed that is not so.
func (s *Stamp) Event(dst []byte, raw event.Raw) ([]byte, event.Severity, []Claim, error) {
	w := scanner{b: raw}
	if !w.open() {
		return dst, 0, nil, errMalformed
	}
	var (
		before   = len(dst)
		severity event.Severity
		claims   []Claim
		seen     [len(members)]bool
		copied   int // of raw
	)
	for w.next() {
		name := raw[w.name:w.nameEnd]
		if !w.plain || foldable(name) {
			decoded, lookalike := s.lookalike(name)
			if lookalike {
				return s.rebuild(dst[:before], raw)
			}
			name = decoded
		}
		i := indexOf(name)
		if i < 0 {
			if string(name) == `"severity"` {
				severity = severityOf(raw[w.value:w.end])
			}
			continue
		}
		if seen[i] {
			return s.rebuild(dst[:before], raw)
		}
		seen[i] = true
		if value := raw[w.value:w.end]; !bytes.Equal(value, s.quoted[i]) {
			claims = s.claimed(claims, i, value)
			dst = append(append(dst, raw[copied:w.value]...), s.quoted[i]...)
			copied = w.end
		}
	}
	if w.bad {
		return dst[:before], 0, nil, errMalformed
	}
	dst = append(dst, raw[copied:w.at]...) // up to the closing brace
	comma := !w.first
	for i, was := range seen {
		if was {
			continue
		}
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = s.member(dst, i)
	}
	return append(dst, '}'), severity, claims, nil
}

func (s *Stamp) member(dst []byte, i int) []byte {
	dst = append(append(dst, '"'), members[i]...)
	return append(append(dst, '"', ':'), s.quoted[i]...)
}

// rebuild is Event for an object that has members which must go: it writes every member anew.
func (s *Stamp) rebuild(dst []byte, raw event.Raw) ([]byte, event.Severity, []Claim, error) {
	w := scanner{b: raw}
	if !w.open() {
		return dst, 0, nil, errMalformed
	}
	var (
		before   = len(dst)
		severity event.Severity
		claims   []Claim
	)
	dst = append(dst, '{')
	for i := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = s.member(dst, i)
	}
	for w.next() {
		name, lookalike := s.lookalike(raw[w.name:w.nameEnd])
		value := raw[w.value:w.end]
		if lookalike {
			if len(claims) < maxClaims {
				claims = append(claims, Claim{clip(string(unquote(name))), clip(text(value))})
			}
			continue
		}
		if i := indexOf(name); i >= 0 {
			claims = s.claimed(claims, i, value)
			continue
		}
		if string(name) == `"severity"` {
			severity = severityOf(value)
		}
		dst = append(append(append(dst, ','), raw[w.name:w.nameEnd]...), ':')
		dst = append(dst, value...)
	}
	if w.bad {
		return dst[:before], 0, nil, errMalformed
	}
	return append(dst, '}'), severity, claims, nil
}

// claimed adds what value says of member i, if it says anything else.
func (s *Stamp) claimed(claims []Claim, i int, value []byte) []Claim {
	if v := text(value); v != "" && v != s.values[i] && len(claims) < maxClaims {
		return append(claims, Claim{members[i], clip(v)})
	}
	return claims
}

// Alert writes the identity over what a and its event say, and returns what they claimed that is not so. The fingerprint
// is bound to the namespace: whoever speaks for one cannot repeat, or resolve, an incident of another.
func (s *Stamp) Alert(a *event.Alert) (claims []Claim) {
	set := func(i int, v *string) {
		if *v != "" && *v != s.values[i] {
			claims = append(claims, Claim{members[i], clip(*v)})
		}
		*v = s.values[i]
	}
	place := func(cluster, node, pod, namespace *string) {
		set(1, cluster)
		set(2, node)
		set(3, pod)
		set(4, namespace)
	}
	place(&a.Cluster, &a.NodeName, &a.PodName, &a.PodNamespace)
	a.Extra = s.without(a.Extra)
	a.Fingerprint = event.Fingerprint(a.Fingerprint, &event.Event{Cluster: s.place.Cluster, PodNamespace: s.place.Namespace})
	if e := a.Event; e != nil {
		set(0, &e.AgentID)
		place(&e.Cluster, &e.NodeName, &e.PodName, &e.PodNamespace)
		e.Extra = s.without(e.Extra)
	}
	return claims
}

// without returns extra, an object or nothing, without members that look like an identity's.
func (s *Stamp) without(extra jsontext.Value) jsontext.Value {
	w := scanner{b: extra}
	if !w.open() {
		return nil
	}
	out := jsontext.Value{'{'}
	for w.next() {
		if name, lookalike := s.lookalike(extra[w.name:w.nameEnd]); lookalike || indexOf(name) >= 0 {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, extra[w.name:w.nameEnd]...), ':'), extra[w.value:w.end]...)
	}
	return append(out, '}')
}

// indexOf returns which member name, quoted, is; -1 for none. The lengths of the names differ.
func indexOf(name []byte) int {
	for i := range members {
		if len(name) == len(members[i])+2 && string(name[1:len(name)-1]) == members[i] {
			return i
		}
	}
	return -1
}

// foldable reports whether name may be an identity member's but for the case of its letters; one that is written in
// lower case and ASCII is what it is.
func foldable(name []byte) bool {
	for _, c := range name {
		if c >= 'A' && c <= 'Z' || c >= 0x80 {
			return true
		}
	}
	return false
}

// lookalike returns name, quoted, without escapes, and whether it is an identity member's but for the case of letters.
func (s *Stamp) lookalike(name []byte) (decoded []byte, is bool) {
	if bytes.IndexByte(name, '\\') >= 0 {
		name = append(append([]byte{'"'}, unquote(name)...), '"')
	}
	inner := name[1 : len(name)-1]
	for _, m := range members {
		if string(inner) != m && bytes.EqualFold(inner, []byte(m)) {
			return name, true
		}
	}
	return name, false
}

// severityOf reads a value as a severity; Info where it is none.
func severityOf(value []byte) (s event.Severity) {
	if len(value) > 2 && value[0] == '"' {
		if err := s.UnmarshalText(value[1 : len(value)-1]); err != nil {
			return event.Info
		}
	}
	return s
}

// text returns what a value says: a string's content, nothing for null, else the JSON itself.
func text(value []byte) string {
	switch {
	case len(value) > 0 && value[0] == '"':
		return string(unquote(value))
	case string(value) == "null":
		return ""
	}
	return string(value)
}

func unquote(value []byte) []byte {
	out, _ := jsontext.AppendUnquote(nil, value) // of what is invalid it returns the valid part
	return out
}

func clip(s string) string {
	if len(s) > maxClaim {
		s = s[:maxClaim]
	}
	return s
}
