package certs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Replicas act, stop in the midst of it and go on in any order, over years; an API server learns of the configuration late.
// Whatever is served by a replica that is ready is verified by what that API server knows.
func TestWhateverTheOrderNothingUnverifiableIsServed(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { interleave(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

// actor is a replica whose requests wait for their turn.
type actor struct {
	self       *Self
	turn, rest chan struct{}
	idle       bool
	synced     time.Time // when its last Sync began that came to its end
}

func interleave(t *testing.T, random *rand.Rand) {
	t.Helper()
	const replicas, steps, lag = 3, 800, 10 * time.Second
	c := newCluster()
	var current *actor
	c.before = func() {
		a := current
		a.rest <- struct{}{}
		<-a.turn
	}
	ctx, cancel := context.WithCancel(t.Context())
	start := func() *actor {
		a := &actor{self: c.replica(nil), turn: make(chan struct{}), rest: make(chan struct{})}
		go func() {
			for {
				select {
				case <-a.turn:
				case <-ctx.Done():
					return
				}
				a.idle = false
				began := c.now
				if a.self.Sync(ctx) == nil { // a conflict too many is tried again the next time
					a.synced = began
				}
				a.idle = true
				a.rest <- struct{}{}
			}
		}()
		return a
	}
	step := func(a *actor) {
		current = a
		a.turn <- struct{}{}
		<-a.rest
	}
	finish := func(a *actor) {
		for step(a); !a.idle; {
			step(a)
		}
	}
	all := make([]*actor, replicas)
	for i := range all {
		all[i] = start()
	}
	type known struct {
		bundles [][]byte
		path    string
		since   time.Time
	}
	c.path, c.others = PlainPath, true // it is an upgrade of a version that serves no other
	history := []known{{c.bundles, c.path, c.now}}
	authorities, paths, proved := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for n := range steps {
		c.others = n < steps/8
		if c.others && c.path != PlainPath {
			t.Fatalf("step %d: reviews are sent to %s, which old replicas do not serve", n, c.path)
		}
		i := random.IntN(replicas)
		switch r := random.IntN(100); {
		case r < 60: // one request
			step(all[i])
		case r < 85: // all of them, and 30 s
			for _, a := range all {
				finish(a)
			}
			c.now = c.now.Add(every)
		case r < 95: // all but one that is held up, and days
			c.now = c.now.Add(time.Duration(random.Int64N(int64(leafLife / 4))))
			for j, a := range all {
				if j != i || r < 88 {
					finish(a)
				}
			}
		case r < 96: // a replica is replaced
			finish(all[i]) // else its goroutine would wait for ever
			all[i] = start()
		case r < 97 && n > 100: // a person asks for a new authority
			s := c.secrets["webhook"]
			s.Rotate = fmt.Sprint(n)
			c.secrets["webhook"] = s
		}
		if last := history[len(history)-1]; fmt.Sprintf("%p", last.bundles[0]) != fmt.Sprintf("%p", c.bundles[0]) || last.path != c.path {
			history = append(history, known{append([][]byte(nil), c.bundles...), c.path, c.now})
		}
		paths[c.path] = true
		// The API server may know anything that was in force within the lag.
		for h := len(history) - 1; h >= 0; h-- {
			for _, a := range all {
				served, err := a.self.Certificate(nil)
				if err != nil || a.self.Ready() != nil || history[h].bundles[0] == nil {
					continue
				}
				// Who could not reach the API server for so long cannot know.
				if path := history[h].path; c.now.Sub(a.synced) < pathLag-lag && !a.self.Served(path) {
					t.Fatalf("step %d, %s: a path is not served that is published since %s", n, c.now, history[h].since)
				}
				for _, b := range history[h].bundles {
					pair := string(served.Leaf.Raw) + string(b)
					if proved[pair] { // until the certificate ends, and then the replica is not ready
						continue
					}
					proved[pair] = true
					if err := verified(served.Leaf, b, names[0], c.now); err != nil {
						t.Fatalf("step %d, %s: what a replica serves is not verified by a bundle in force since %s: %v", n, c.now, history[h].since, err)
					}
				}
			}
			if c.now.Sub(history[h].since) > lag {
				history = history[h:]
				break
			}
		}
		if s, err := Decode(c.secrets["webhook"].Data); err == nil && s.CA != nil {
			authorities[string(s.CA.Cert.Raw)] = true
		}
	}
	for _, a := range all {
		finish(a)
	}
	cancel()
	if len(authorities) < 3 {
		t.Errorf("only %d authorities in %s: nothing was rotated", len(authorities), c.now.Sub(birth))
	}
	if len(paths) < 5 {
		t.Errorf("only %d paths in %s", len(paths), c.now.Sub(birth))
	}
}
