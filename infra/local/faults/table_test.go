package faults_test

import (
	"crypto/tls"
	"flag"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
)

var whole = flag.Bool("whole", false, "TestFaults: with the times of a deployment instead of shorter ones")

// row is a fault that strikes all integrations.
type row struct {
	name string
	// change sets the system up.
	change func(*world, *system.Config, *all)
	// strike makes the fault under load and ends it, or sees to its end. first is published when all is well.
	strike func(*world, *rig, *all)
	// without are the integrations that cannot have the fault, and why.
	without map[string]string
	// twice are those to which something may come twice, and why.
	twice map[string]string
	// hidden are those whose counters need not show the fault.
	hidden map[string]bool
}

// Each integration gets some alerts before a fault, and some more while it lasts.
const before, meanwhile = 5, 15

// switched strikes by the switches of the receivers. It lasts as long, and until every integration has felt it.
func switched(lasts time.Duration, f func() standin.Faults) func(*world, *rig, *all) {
	return func(_ *world, r *rig, _ *all) {
		for _, to := range r.Receivers() {
			to.Switches.Set(f())
		}
		end := time.After(lasts)
		r.publish(meanwhile, r.fresh)
		r.felt()
		<-end
		for _, to := range r.Receivers() {
			to.Switches.Set(standin.Faults{})
		}
	}
}

func constant(lasts time.Duration, f standin.Faults) func(*world, *rig, *all) {
	return switched(lasts, func() standin.Faults { return f })
}

// everywhere is a reason that holds for all integrations.
func everywhere(why string) map[string]string {
	m := map[string]string{}
	for _, name := range integrations() {
		m[name] = why
	}
	return m
}

// length is how long a fault lasts.
func length(short, long time.Duration) time.Duration {
	if *whole {
		return long
	}
	return short
}

func rows() []row {
	const (
		took   = "the receiver took it, and did not say so"
		struck = "the kill struck between a call and its mark"
	)
	everybody := map[string]bool{}
	for _, name := range integrations() {
		everybody[name] = true
	}
	smtp := map[string]string{email: "SMTP has no Retry-After: its 450 is the row without a time"}
	tooMany := func(after func() string) func(*world, *rig, *all) {
		return switched(length(2*time.Second, 30*time.Second), func() standin.Faults {
			return standin.Faults{Status: http.StatusTooManyRequests, RetryAfter: after()}
		})
	}
	return []row{
		// The settings allow no incident to end after less than a minute of quiet.
		{name: "no fault, and quiet afterwards", change: func(_ *world, c *system.Config, _ *all) { c.ResolveAfter = time.Minute }, strike: quiet, hidden: everybody},
		{name: "hangs", strike: constant(length(12*time.Second, 30*time.Second), standin.Faults{Hang: true}),
			change: func(_ *world, c *system.Config, _ *all) {
				if !*whole {
					c.CallTimeout = 5 * time.Second
				}
			}},
		{name: "500", strike: constant(length(6*time.Second, time.Minute), standin.Faults{Status: http.StatusInternalServerError})},
		{name: "429 with seconds", strike: tooMany(func() string { return "2" }), without: smtp},
		{name: "429 with a date", strike: tooMany(func() string { return time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat) }), without: smtp},
		{name: "429 in its own way", strike: tooMany(func() string { return "" })},
		{name: "cut in the request", strike: constant(length(2*time.Second, time.Minute), standin.Faults{Cut: true})},
		{name: "cut in the answer", strike: constant(length(2*time.Second, time.Minute), standin.Faults{Tear: true}), twice: everywhere(took)},
		{name: "200 with garbage", strike: constant(length(2*time.Second, time.Minute), standin.Faults{Garbage: true}),
			twice:  map[string]string{system.Slack: took, slackWebhook: took, discordName: took},
			hidden: map[string]bool{system.SweetSecurity: true, system.Webhook: true}}, // to them every 2xx is a yes
		{name: "the name does not resolve", strike: unresolved},
		{name: "the certificate expired", strike: expired, change: func(w *world, c *system.Config, a *all) {
			join, valid := c.Receivers, w.issue(a.t, time.Now().Add(time.Hour))
			c.Receivers = func(list []*system.Receiver) []*system.Receiver {
				list = join(list)
				a.secure(valid, list)
				return list
			}
		}},
		{name: "the secret is rotated", strike: rotated},
		{name: "killed", strike: killed, twice: everywhere(struck), hidden: everybody},
		{name: "killed, with a state that is shared", change: withRedisAndLittleTime, strike: killed, twice: everywhere(struck), hidden: everybody},
		{name: "the state store is down", change: withRedis, strike: stateless, hidden: everybody},
		{name: "SIGTERM", change: func(_ *world, c *system.Config, _ *all) { c.IncidentWindow = 30 * time.Minute }, strike: ended, hidden: everybody},
		{name: "the state is lost", strike: lost, hidden: everybody},
	}
}

// unresolved: the functions know a name of each receiver that nobody resolves (RFC 6761 section 6.4), and then its address.
func unresolved(_ *world, r *rig, a *all) {
	addresses := map[string]string{}
	restart := func(address func(to *system.Receiver) string) {
		r.stopFunctions()
		for _, to := range r.Receivers() {
			to.Addr = address(to)
		}
		a.write(r.System)
		r.startFunctions()
	}
	restart(func(to *system.Receiver) string {
		addresses[to.Name] = to.Addr
		return strings.Replace(to.Addr, "127.0.0.1", "receiver.invalid", 1)
	})
	r.publish(meanwhile, r.fresh)
	r.felt()
	restart(func(to *system.Receiver) string { return addresses[to.Name] })
}

// expired: what shows that the certificate is another is each handshake.
func expired(w *world, r *rig, a *all) {
	show := func(c *tls.Certificate) {
		a.expired.Store(c)
		if a.box != nil {
			a.box.Expired.Store(c)
		}
	}
	show(&w.expired)
	r.publish(meanwhile, r.fresh)
	r.felt()
	show(nil)
}

// rotated: the receivers take another credential before the functions can know it.
func rotated(_ *world, r *rig, a *all) {
	var write []func()
	for _, to := range r.Receivers() {
		accept, w := a.credential(to)
		accept()
		write = append(write, w)
	}
	r.publish(meanwhile, r.fresh)
	r.until("every receiver refuses the old credential", func() bool {
		for _, to := range r.Receivers() {
			if to.Switches.Counts().Unauthorized == 0 {
				return false
			}
		}
		return true
	})
	for _, w := range write {
		w()
	}
}

// killed: kill -9 while calls are under way, twice.
func killed(_ *world, r *rig, _ *all) {
	for _, to := range r.Receivers() {
		to.Switches.Set(standin.Faults{Latency: standin.Duration(50 * time.Millisecond)})
	}
	for range 2 {
		already := r.Receiver(system.Slack).Board.Posted()
		r.publish(meanwhile, r.fresh)
		r.until("something is under way", func() bool { return r.Receiver(system.Slack).Board.Posted() > already })
		r.KillFunctions()
		r.startFunctions()
	}
}

// ended: SIGTERM under load, twice. The functions answer what they have and end in time, and what they counted of an
// incident is told before.
func ended(_ *world, r *rig, _ *all) {
	before := map[string]int64{}
	acked := func(to *system.Receiver) (n int64) {
		for _, p := range to.Pushes {
			n += p.Stats().Acked
		}
		return n
	}
	for _, to := range r.Receivers() {
		to.Switches.Set(standin.Faults{Latency: standin.Duration(20 * time.Millisecond)})
		before[to.Name] = acked(to)
	}
	r.publish(meanwhile, again)
	r.until("repeats are taken", func() bool {
		for _, to := range r.Receivers() {
			if acked(to) < before[to.Name]+int64(meanwhile*len(to.Pushes)) {
				return false
			}
		}
		return true
	})
	for range 2 {
		r.publish(meanwhile, r.fresh)
		r.stopFunctions()
		r.startFunctions()
	}
}

// felt waits until every integration has had a call refused.
func (r *rig) felt() {
	r.t.Helper()
	r.until("every integration feels the fault", func() bool {
		for _, to := range r.Receivers() {
			if c := r.cell(to); c.refused+c.returned == 0 && !r.hidden[to.Name] {
				return false
			}
		}
		return true
	})
}

// TestFaults is the table: what each fault leaves of what was published to each integration.
func TestFaults(t *testing.T) {
	table := rows()
	boxes := make([]string, len(table))
	for i := range table {
		boxes[i] = "box" + string(rune('a'+i))
	}
	w := newWorld(t, boxes...)
	// Rows wait more than they work: all at once, and not as few as there are cores. Their starts are work.
	starting := make(chan struct{}, 3)
	var wg sync.WaitGroup
	defer wg.Wait()
	run := func(i int, row row) {
		t.Run(row.name, func(t *testing.T) {
			var a *all
			starting <- struct{}{}
			r := start(t, func(c *system.Config) {
				a = w.join(t, c, boxes[i])
				if row.change != nil {
					row.change(w, c, a)
				}
			})
			<-starting
			r.hidden = row.hidden
			a.write(r.System)
			r.publish(before, r.fresh)
			r.whole()
			begin := time.Now()
			row.strike(w, r, a)
			r.whole()
			t.Logf("%v from the fault's begin to the end of all", time.Since(begin).Round(100*time.Millisecond))
			for _, name := range integrations() {
				t.Run(name, func(t *testing.T) {
					to := r.Receiver(name)
					switch {
					case to == nil:
						t.Skip("SKIPPED: email has no Postfix here; the log of TestFaults says why")
					case row.without[name] != "":
						t.Skip("this cell is empty:", row.without[name])
					}
					r.balanced(t, to, row.twice[name] != "")
					if c := r.cell(to); c.refused+c.returned == 0 && !row.hidden[name] {
						t.Errorf("got %v, want a call that the fault struck", c)
					}
				})
			}
		})
	}
	for i, row := range table {
		wg.Go(func() { run(i, row) })
	}
}
