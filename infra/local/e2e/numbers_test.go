package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/apss-sensor/apss/shared/event"
)

// pace is how soon one number follows the other.
const pace = 100 * time.Millisecond

// numbers are deeds that are counted: each runs a program with its number among the arguments, and writes a file with it in
// the name, which is an alert besides.
type numbers struct {
	in  *cloud
	pod *corev1.Pod

	mu   sync.Mutex
	done []time.Time // by number
	err  error
	gaps []gap
	stop func()
}

// gap is a time in which no agent may have seen what was done.
type gap struct {
	why      string
	from, to time.Time
}

// number begins to count, at a steady pace, until the result's end is asked for.
func (in *cloud) number(m *master, pod *corev1.Pod) *numbers {
	in.t.Helper()
	n := &numbers{in: in, pod: pod}
	ctx, cancel := context.WithCancel(in.t.Context())
	implant := m.caught(pod.Name)
	var doing sync.WaitGroup
	doing.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for ctx.Err() == nil {
			n.mu.Lock()
			name := fmt.Sprintf("number-%05d", len(n.done))
			n.mu.Unlock()
			at, err := implant.tell("run", name)
			if err == nil {
				_, err = implant.tell("cron", name)
			}
			n.mu.Lock()
			n.done, n.err = append(n.done, at), err
			n.mu.Unlock()
			if err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	n.stop = func() { cancel(); doing.Wait() }
	in.t.Cleanup(n.stop)
	return n
}

// blind says that what is done until the next number is seen may be seen by nobody, and waits for that.
func (n *numbers) blind(why string, from time.Time) {
	in := n.in
	in.t.Helper()
	next := n.count()
	in.await("a number after "+why, func(context.Context) error {
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, a := range slices.Backward(in.events) {
			if i, ok := n.of(a.what, "file"); ok && i > next && a.what.Type == event.FileCreate {
				n.gaps = append(n.gaps, gap{why, from, n.at(i)})
				in.note(time.Now(), "test", "%s: seen again from number %d on, after %v", why, i, n.at(i).Sub(from))
				return nil
			}
		}
		return fmt.Errorf("none after %d", next)
	})
	g := n.gaps[len(n.gaps)-1]
	in.t.Logf("%s: %.1f s in which nobody may have looked", why, g.to.Sub(g.from).Seconds())
}

func (n *numbers) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.done)
}

func (n *numbers) at(i int) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.done[i]
}

// of returns the number that an event is about, when it is about one in that way.
func (n *numbers) of(e *event.Event, kind string) (i int, ok bool) {
	if e.PodName != n.pod.Name {
		return 0, false
	}
	text := ""
	switch kind {
	case "file":
		text = strings.TrimPrefix(path(e), "/etc/cron.d/job-")
	case "program":
		if e.Type == event.ProcessExec && e.Process != nil {
			text = strings.TrimPrefix(e.Process.Cmdline, "/bin/witness stay ")
		}
	}
	_, err := fmt.Sscanf(text, "number-%d", &i)
	return i, err == nil
}

// whole ends the counting, and waits until every number has arrived: as a program, as a file and as an alert.
func (n *numbers) whole() {
	in := n.in
	t := in.t
	t.Helper()
	n.stop()
	if n.err != nil {
		t.Fatal(n.err)
	}
	total := len(n.done)
	excused := func(i int) bool {
		return slices.ContainsFunc(n.gaps, func(g gap) bool { return !n.done[i].Before(g.from) && n.done[i].Before(g.to) })
	}
	var ids map[string]map[int]map[string]int // by kind and number: how often each id came
	count := func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		ids = map[string]map[int]map[string]int{"program": {}, "file": {}, "alert": {}}
		add := func(kind string, i int, id string) {
			if ids[kind][i] == nil {
				ids[kind][i] = map[string]int{}
			}
			ids[kind][i][id]++
		}
		for _, a := range in.events {
			for _, kind := range []string{"program", "file"} {
				if i, ok := n.of(a.what, kind); ok && (kind == "program" || a.what.Type == event.FileCreate) {
					add(kind, i, a.what.ID)
				}
			}
		}
		for _, a := range in.alerts {
			if e := a.what.Event; e != nil && e.Type == event.FileCreate && a.what.RuleID == "APSS-056" {
				if i, ok := n.of(e, "file"); ok {
					add("alert", i, a.what.ID)
				}
			}
		}
	}
	missing := func(kind string, also bool) (all []int) {
		for i := range total {
			if len(ids[kind][i]) == 0 && excused(i) == also {
				all = append(all, i)
			}
		}
		return all
	}
	in.await("every number at Sweet Security", func(context.Context) error {
		count()
		for kind := range ids {
			if m := missing(kind, false); len(m) > 0 {
				return fmt.Errorf("%d of %d are missing as %s: %v", len(m), total, kind, m)
			}
		}
		return nil
	})
	again := in.Ledger.Totals().DeliveredTwice
	for _, kind := range slices.Sorted(maps.Keys(ids)) {
		twice := 0
		for _, by := range ids[kind] {
			twice += len(by) - 1
		}
		in.happened("numbers as %s: %d done, %d arrived, %d not seen while there was no agent, %d told twice", kind, total, len(ids[kind]), len(missing(kind, true)), twice)
		if twice > 0 && len(n.gaps) == 0 {
			t.Errorf("%d numbers were told as more than one %s, by an agent that was never away", twice, kind)
		}
	}
	in.happened("%d events were delivered more than once, as at-least-once allows where a connection was cut", again)
}
