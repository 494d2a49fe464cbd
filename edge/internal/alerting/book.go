package alerting

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/edge/internal/rulebook"
	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/detect/rules"
)

// book is rules in force, and what goes with them. It is never changed.
type book struct {
	loaded      time.Time
	rules       []*detect.Rule // that can match
	filters     int
	set         *detect.Set
	idle        chan *evaluator // not a sync.Pool, which forgets them at every collection
	correlation *correlation
	matched     map[*detect.Rule]*atomic.Int64
	loud        []*detect.Rule // those whose coverage counts
	named       map[string]*detect.Rule
	coverage    Coverage
	problems    []string // what is wrong with rules and folders that are not in it
}

// maxIdle is how many evaluators are kept: more than there are goroutines of sensors that emit at the same time.
const maxIdle = 16

// digest tells one state of the folders from another.
type digest [sha256.Size]byte

// library reads rules, and reads none twice that has not changed: then it is the same *detect.Rule too.
type library struct {
	dirs []string
	pack bool

	mu    sync.Mutex // held while loading
	seen  digest     // of the state that was loaded or refused last
	base  []*detect.Rule
	shelf map[string]leaf // by file

	news news
}

// news is what came of the loads. Nobody waits for a load to read it.
type news struct {
	mu              sync.Mutex
	loaded, refused int64
	faults          []string // new ones of the state that was refused last; nil when it was taken
}

func (n *news) taken() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loaded, n.faults = n.loaded+1, nil
}

func (n *news) refuse(faults []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused, n.faults = n.refused+1, faults
}

func (n *news) read() (loaded, refused int64, faults []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.loaded, n.refused, n.faults
}

// leaf is a file as it was parsed.
type leaf struct {
	sum    digest
	rules  []*detect.Rule
	faults []*detect.Error
}

// Reload reads the folders and takes their rules into force, unless nothing has changed or the change has a fault that
// the rules in force have not. It reports whether other rules are in force now.
func (g *Engine) Reload() bool {
	l := &g.library
	l.mu.Lock()
	defer l.mu.Unlock()
	before := g.book.Load()
	if before != nil && l.look() == l.seen {
		return false
	}
	set, all, problems := l.load()
	if before != nil {
		if fresh := slices.DeleteFunc(slices.Clone(problems), func(p string) bool { return slices.Contains(before.problems, p) }); len(fresh) > 0 {
			l.news.refuse(fresh)
			eachOf(fresh, func(p string) {
				g.log.Error("the rules' folders have a new fault: the rules in force stay", "problem", p)
			})
			return false
		}
	}
	b := g.bind(set, all, problems, before)
	g.book.Store(b)
	l.news.taken()
	eachOf(problems, func(p string) {
		g.log.Error("a rule or a folder of rules is left out, the others are in force", "problem", p)
	})
	g.log.Info("rules are in force", "live", b.coverage.Live, "degraded", b.coverage.Degraded, "blind", b.coverage.Blind,
		"filters", b.filters, "folders", l.dirs)
	return true
}

// maxSaid bounds the problems of one load in the log, and maxListed those in a heartbeat.
const (
	maxSaid   = 50
	maxListed = 5
)

// eachOf hands out the problems that are to be said.
func eachOf(problems []string, say func(problem string)) {
	for _, p := range problems[:min(len(problems), maxSaid)] {
		say(p)
	}
	if more := len(problems) - maxSaid; more > 0 {
		say(fmt.Sprintf("and %d more", more))
	}
}

// look returns the state of the folders.
func (l *library) look() digest {
	all := sha256.New()
	err := rulebook.Files(l.dirs, func(name string, data []byte) { sum(all, name, sha256.Sum256(data)) })
	return whole(all, err)
}

func sum(all hash.Hash, name string, data digest) {
	fmt.Fprintf(all, "%q", name) // a hash never returns an error
	all.Write(data[:])
}

func whole(all hash.Hash, err error) digest {
	if err != nil {
		fmt.Fprintf(all, "%q", err.Error())
	}
	return digest(all.Sum(nil))
}

// load reads and compiles. The problems are those of documents and folders, one line each.
func (l *library) load() (*detect.Set, []*detect.Rule, []string) {
	var faults []*detect.Error
	if l.pack && l.base == nil {
		l.base, faults = rules.Pack()
	}
	all := l.base
	shelf := map[string]leaf{}
	state := sha256.New()
	var over []*detect.Rule
	err := rulebook.Files(l.dirs, func(name string, data []byte) {
		f := leaf{sum: sha256.Sum256(data)}
		if old, ok := l.shelf[name]; ok && old.sum == f.sum {
			f = old
		} else {
			f.rules, f.faults = detect.Parse(name, data)
		}
		sum(state, name, f.sum)
		shelf[name] = f
		over, faults = append(over, f.rules...), append(faults, f.faults...)
	})
	l.shelf, l.seen = shelf, whole(state, err)
	all = detect.Override(all, over)
	set, more := detect.Compile(all, detect.Options{})
	faults = append(faults, more...)
	unread := flat(err)
	problems := make([]string, 0, len(unread)+len(faults))
	for _, e := range unread {
		problems = append(problems, e.Error())
	}
	for _, f := range faults {
		problems = append(problems, f.Error())
	}
	return set, all, problems
}

func flat(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flat(e)...)
		}
		return all
	}
	return []error{err}
}

// bind makes the book of a set.
func (g *Engine) bind(set *detect.Set, all []*detect.Rule, problems []string, before *book) *book {
	b := &book{
		loaded: time.Now(), rules: set.Rules(), set: set, idle: make(chan *evaluator, maxIdle),
		problems: problems, matched: map[*detect.Rule]*atomic.Int64{},
	}
	for _, r := range b.rules {
		b.matched[r] = g.counters.of(r.ID)
	}
	for _, r := range all {
		if r.Kind == detect.Filter {
			b.filters++
		}
	}
	b.named = byName(all)
	b.loud = slices.DeleteFunc(append(set.Blind(), b.rules...), set.Silent) // the others are parts of these
	b.coverage = cover(b.loud, b.named, g.config.Sights)
	correlated := related(b.rules, b.named)
	if before != nil && slices.Equal(before.correlation.rules, correlated) {
		b.correlation = before.correlation
	} else {
		b.correlation = &correlation{rules: correlated, correlator: set.NewCorrelator(detect.CorrelatorOptions{})}
	}
	return b
}

// byName finds rules by what correlations call them. A name of one is never an id of another: Compile refuses the later.
func byName(all []*detect.Rule) map[string]*detect.Rule {
	named := make(map[string]*detect.Rule, 2*len(all))
	for _, r := range slices.Backward(all) { // the first one wins, as for Compile
		if r.Name != "" {
			named[r.Name] = r
		}
	}
	for _, r := range slices.Backward(all) {
		named[r.ID] = r
	}
	return named
}

// related are the correlation rules and, behind each, the rules that it refers to.
func related(inForce []*detect.Rule, named map[string]*detect.Rule) (all []*detect.Rule) {
	for _, r := range inForce {
		if r.Kind != detect.Correlation {
			continue
		}
		all = append(all, r)
		for _, name := range r.RefersTo() {
			all = append(all, named[name])
		}
	}
	return all
}
