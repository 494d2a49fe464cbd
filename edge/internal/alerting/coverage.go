package alerting

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/shared/detect"
)

// Coverage is how many of the rules can work where the agent runs, and why the others cannot, or not fully.
type Coverage struct {
	Live     int `json:"live"`
	Degraded int `json:"degraded"`
	Blind    int `json:"blind"`
	// Why tells by id what keeps a rule from being live: the blind ones first, at most [MaxWhy] of all.
	BlindRules    map[string]string `json:"blind_rules,omitempty"`
	DegradedRules map[string]string `json:"degraded_rules,omitempty"`
	// Unlisted are those of Degraded and Blind that there was no room for.
	Unlisted int `json:"unlisted,omitzero"`
}

// MaxWhy is how many rules a coverage explains: a heartbeat stays small where an agent sees little.
const MaxWhy = 50

// cover decides the coverage of rules, of correlations by the rules they come down to. Where there are several sights, a
// rule that is not live in each is degraded, unless it is blind in all.
func cover(all []*detect.Rule, named map[string]*detect.Rule, sights []detect.Sight) Coverage {
	if len(sights) == 0 {
		sights = []detect.Sight{{}} // everything
	}
	c := Coverage{BlindRules: map[string]string{}, DegradedRules: map[string]string{}}
	type shaded struct{ id, why string }
	var blind, degraded []shaded
	find := func(name string) *detect.Rule { return named[name] }
	for _, r := range all {
		best, worst, why, parts := detect.Blind, detect.Live, "", r.Parts(find)
		for _, s := range sights {
			here := detect.Live
			for _, part := range parts {
				got := part.Coverage(s)
				if here = max(here, got); got > worst {
					worst, why = got, reason(part, s)
				}
			}
			best = min(best, here)
		}
		if best < detect.Blind {
			worst = min(worst, detect.Degraded)
		}
		switch worst {
		case detect.Blind:
			blind = append(blind, shaded{r.ID, why})
		case detect.Degraded:
			degraded = append(degraded, shaded{r.ID, why})
		default:
			c.Live++
		}
	}
	c.Blind, c.Degraded = len(blind), len(degraded)
	room := MaxWhy
	for _, list := range []struct {
		of   []shaded
		into map[string]string
	}{{blind, c.BlindRules}, {degraded, c.DegradedRules}} {
		for _, x := range list.of {
			if room == 0 {
				c.Unlisted++
				continue
			}
			list.into[x.id] = x.why
			room--
		}
	}
	return c
}

// reason says what a rule misses.
func reason(r *detect.Rule, s detect.Sight) string {
	needs := r.Needs()
	var events, fields []string
	for _, t := range needs.Types {
		if s.Type != nil && !s.Type(t) {
			events = append(events, string(t))
			continue
		}
		for _, f := range needs.Fields {
			if s.Field != nil && !s.Field(t, f) && !slices.Contains(fields, f) {
				fields = append(fields, f)
			}
		}
	}
	var why []string
	for _, miss := range []struct {
		what  string
		names []string
	}{
		{"not seen here: %s", events},
		{"not readable here: %s", fields},
		{"filled by no sensor: %s", needs.Missing},
	} {
		if len(miss.names) > 0 {
			why = append(why, fmt.Sprintf(miss.what, strings.Join(miss.names, ", ")))
		}
	}
	if len(why) == 0 {
		why = append(why, "a part of its condition can never hold")
	}
	return strings.Join(why, "; ")
}
