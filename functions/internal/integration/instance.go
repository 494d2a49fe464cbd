package integration

import (
	"errors"
	"fmt"
	"time"
)

// Instance is one entry of the settings document: an integration with its route, and how it is treated. The kind's own
// settings stand beside these keys.
type Instance struct {
	Name    string `yaml:"name"` // unique; a path segment: pushes come to /events/<name> and /alerts/<name>
	Kind    string `yaml:"kind"`
	Enabled bool   `yaml:"enabled"`
	Route   Route  `yaml:"route"`
	Rate    Rate   `yaml:"rate"`
	Group   Group  `yaml:"group"`
	Canary  bool   `yaml:"canary"` // it wants the marked messages that show that the way is open

	// Settings are the kind's own. They are validated when the instance is enabled; of a disabled one strings that are
	// references stay as they are.
	Settings Settings `yaml:"-"`
}

// Rate bounds the calls to a receiver. The zero value does not.
type Rate struct {
	PerMinute float64 `yaml:"per_minute"`
	Burst     int     `yaml:"burst"` // calls at once after a pause; at least 1 where there is a rate
}

// Limited reports whether there is a bound.
func (r Rate) Limited() bool { return r.PerMinute > 0 }

// The widest settings of a rate: what is above them is no limit.
const (
	maxPerMinute = 1e6
	maxBurst     = 1e4
)

func (r Rate) validate() error {
	var errs []error
	if !(r.PerMinute >= 0 && r.PerMinute <= maxPerMinute) { // so that NaN is refused
		errs = append(errs, fmt.Errorf("per_minute is %v, want 0 (no limit) to %v", r.PerMinute, maxPerMinute))
	}
	if r.Burst < 0 || r.Burst > maxBurst {
		errs = append(errs, fmt.Errorf("burst is %d, want 1 to %v", r.Burst, maxBurst))
	}
	return errors.Join(errs...)
}

// Group says how alerts become incidents for people. It means nothing to programs.
type Group struct {
	Window       time.Duration `yaml:"window"`        // repeats within it are one update
	ResolveAfter time.Duration `yaml:"resolve_after"` // of quiet
	DigestEvery  time.Duration `yaml:"digest_every"`  // while the rate is used up
}

// DefaultGroup is an instance's whose document says none.
func DefaultGroup() Group {
	return Group{Window: 5 * time.Minute, ResolveAfter: time.Hour, DigestEvery: time.Minute}
}

func (g Group) validate() error {
	var errs []error
	between := func(key string, d, low, high time.Duration) {
		if d < low || d > high {
			errs = append(errs, fmt.Errorf("%s is %v, want %v to %v", key, d, low, high))
		}
	}
	between("window", g.Window, time.Second, 24*time.Hour)
	between("resolve_after", g.ResolveAfter, time.Minute, 30*24*time.Hour)
	between("digest_every", g.DigestEvery, time.Second, time.Hour)
	if len(errs) == 0 && g.ResolveAfter <= g.Window {
		errs = append(errs, fmt.Errorf("resolve_after is %v, want more than window, %v: an incident would end before its repeats are told",
			g.ResolveAfter, g.Window))
	}
	return errors.Join(errs...)
}
