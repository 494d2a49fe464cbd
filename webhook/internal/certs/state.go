package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// State is what the replicas share. The zero value is that of an empty Secret.
type State struct {
	CA   *Pair               // signs
	Heir *Pair               // is published, and signs once everyone has had it for the grace
	Old  []*x509.Certificate // signed before CA; what they signed may still be served
	Leaf *Pair               // the webhook's

	Seen     time.Time // since when everyone has Heir; zero: not everyone has
	Promoted time.Time // when CA took over from the last of Old
	Forced   string    // the annotation's value that was acted upon

	Paths Paths // of the reviews
}

// World is what the next state depends on besides the state.
type World struct {
	Now   time.Time
	Names []string // of the webhook's server
	Grace time.Duration
	Force string // a new value asks for a new authority
	// Published are the authorities that everyone who calls us trusts; nil when nobody calls us yet.
	Published []*x509.Certificate
	// Path is what they call; "" when nobody calls us yet. Others says that replicas of another version may run.
	Path   string
	Others bool
}

// Next returns the state that follows s in w, and whether it differs. It does not change s. But for the keys that it draws
// it is a function of its arguments. An error means that no key or certificate could be made.
func (s State) Next(w World) (next State, changed bool, err error) {
	next = s
	if s.CA == nil || !w.Now.Before(s.CA.Cert.NotAfter) {
		// What is trusted stays so for a while: the Secret may have been deleted under running replicas.
		next = State{Promoted: w.Now, Forced: w.Force, Paths: s.Paths}
		for _, c := range w.Published {
			if w.Now.Before(c.NotAfter) {
				next.Old = append(next.Old, c)
			}
		}
		changed = true
		if next.CA, err = authority(w.Now); err != nil {
			return s, false, err
		}
	}
	forced := next.Forced != w.Force
	if forced || !w.Now.Before(due(next.CA.Cert.NotBefore, next.CA.Cert.NotAfter)) {
		if next.Heir == nil {
			changed, next.Seen = true, time.Time{}
			if next.Heir, err = authority(w.Now); err != nil {
				return s, false, err
			}
		}
		changed = changed || forced
		next.Forced = w.Force
	}
	if paths := next.Paths.next(&w, forced); paths != next.Paths {
		next.Paths, changed = paths, true
	}
	changed = next.promote(w) || changed
	if len(next.Old) > 0 && !w.Now.Before(next.Promoted.Add(leafLife+after)) {
		next.Old, changed = nil, true
	}
	if stale(next.Leaf, next.CA, w.Names, w.Now) {
		changed = true
		if next.Leaf, err = leaf(next.CA, w.Names, w.Now); err != nil {
			return s, false, err
		}
	}
	return next, changed, nil
}

// promote makes Heir the CA when it may sign.
func (s *State) promote(w World) (changed bool) {
	switch {
	case s.Heir == nil:
		return false
	case !slices.ContainsFunc(w.Published, s.Heir.Cert.Equal):
		changed, s.Seen = !s.Seen.IsZero(), time.Time{}
		return changed
	case s.Seen.IsZero():
		s.Seen = w.Now
		return true
	case w.Now.Before(s.Seen.Add(w.Grace)):
		return false
	}
	s.Old = append(slices.Clip(s.Old), s.CA.Cert)
	s.CA, s.Heir = s.Heir, nil
	s.Seen, s.Promoted = time.Time{}, w.Now
	return true
}

// stale reports whether a server's certificate is to be replaced.
func stale(l, ca *Pair, names []string, now time.Time) bool {
	return l == nil || !l.by(ca) || !isFor(l.Cert, names) || !now.Before(due(l.Cert.NotBefore, l.Cert.NotAfter))
}

// Bundle is whom to trust, as PEM: the same bytes for the same state.
func (s State) Bundle() []byte {
	certs := slices.Clone(s.Old)
	if s.CA != nil {
		certs = append(certs, s.CA.Cert)
	}
	if s.Heir != nil {
		certs = append(certs, s.Heir.Cert)
	}
	return encodeCerts(certs...)
}

// The Secret's entries. ca.crt, tls.crt and tls.key are as everyone names them; ca.crt is the bundle.
const (
	keyBundle     = "ca.crt"
	keyLeafCert   = "tls.crt"
	keyLeafKey    = "tls.key"
	keyCACert     = "issuer.crt"
	keyCAKey      = "issuer.key"
	keyNextCert   = "next.crt"
	keyNextKey    = "next.key"
	keyOld        = "old.crt"
	keySeen       = "next-seen"
	keyPromoted   = "issuer-since"
	keyForced     = "rotated-for"
	keyPath       = "path"
	keyNextPath   = "path-next"
	keyLastPath   = "path-last"
	keyPathSince  = "path-since"
	secretEntries = 15
)

// Encode writes s as a Secret's data.
func (s State) Encode() (map[string][]byte, error) {
	data := make(map[string][]byte, secretEntries)
	for _, p := range []struct {
		pair      *Pair
		cert, key string
	}{{s.CA, keyCACert, keyCAKey}, {s.Heir, keyNextCert, keyNextKey}, {s.Leaf, keyLeafCert, keyLeafKey}} {
		if p.pair == nil {
			continue
		}
		var err error
		if data[p.cert], data[p.key], err = p.pair.encode(); err != nil {
			return nil, err
		}
	}
	data[keyBundle] = s.Bundle()
	if len(s.Old) > 0 {
		data[keyOld] = encodeCerts(s.Old...)
	}
	for key, t := range map[string]time.Time{keySeen: s.Seen, keyPromoted: s.Promoted, keyPathSince: s.Paths.Since} {
		if !t.IsZero() {
			data[key] = t.UTC().AppendFormat(nil, time.RFC3339Nano)
		}
	}
	for key, text := range map[string]string{keyForced: s.Forced, keyPath: s.Paths.Now, keyNextPath: s.Paths.Next, keyLastPath: s.Paths.Last} {
		if text != "" {
			data[key] = []byte(text)
		}
	}
	return data, nil
}

// Decode reads a Secret's data; none at all is the zero State.
func Decode(data map[string][]byte) (s State, err error) {
	for _, p := range []struct {
		pair      **Pair
		cert, key string
	}{{&s.CA, keyCACert, keyCAKey}, {&s.Heir, keyNextCert, keyNextKey}, {&s.Leaf, keyLeafCert, keyLeafKey}} {
		if *p.pair, err = parsePair(data[p.cert], data[p.key]); err != nil {
			return State{}, fmt.Errorf("%s and %s of the Secret: %w (remove all of its data to start anew)", p.cert, p.key, err)
		}
	}
	if old := data[keyOld]; len(old) > 0 {
		if s.Old, err = ParseCerts(old); err != nil {
			return State{}, fmt.Errorf("%s of the Secret: %w (remove it)", keyOld, err)
		}
	}
	for key, t := range map[string]*time.Time{keySeen: &s.Seen, keyPromoted: &s.Promoted, keyPathSince: &s.Paths.Since} {
		if text := data[key]; len(text) > 0 {
			if *t, err = time.Parse(time.RFC3339Nano, string(text)); err != nil {
				return State{}, fmt.Errorf("%s of the Secret: %w (remove it)", key, err)
			}
		}
	}
	s.Forced = string(data[keyForced])
	for key, path := range map[string]*string{keyPath: &s.Paths.Now, keyNextPath: &s.Paths.Next, keyLastPath: &s.Paths.Last} {
		if *path = string(data[key]); *path != "" && *path != PlainPath && !secretPath.MatchString(*path) {
			return State{}, fmt.Errorf("%s of the Secret is no path that we make (remove it)", key)
		}
	}
	return s, nil
}
