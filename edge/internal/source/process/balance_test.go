package process

import "testing"

// account fails when an observer's figures cannot be true of that many processes.
func (o *observer) account(b *testing.B, t tally, runs int) {
	b.Helper()
	o.balance(b)
	st := o.s.Stats()
	if st.Created < uint64(runs) || st.MissedAtMost < uint64(max(0, runs-t.names)) {
		b.Errorf("%s: of %d runs %d were seen; yet %d created, %d missed at most", st.Mechanism, runs, t.names, st.Created, st.MissedAtMost)
	}
	b.ReportMetric(accounted(t.names, st.MissedAtMost, runs), st.Mechanism+"-%seen-or-missed")
	b.ReportMetric(float64(st.Created)/float64(b.N), st.Mechanism+"-created")
	b.ReportMetric(float64(st.MissedAtMost)/float64(b.N), st.Mechanism+"-missed-at-most")
}

// balance fails unless what was created is what was captured and missed, give or take what began in the last seconds
// and is being looked at: see [Stats].Twice.
func (o *observer) balance(tb testing.TB) {
	tb.Helper()
	st := o.s.Stats()
	o.s.mu.Lock()
	young := 0
	for _, e := range o.s.tree {
		if e.process != nil && e.forked && (!e.tallied || e.held != nil) {
			young++
		}
	}
	o.s.mu.Unlock()
	sum := int(st.Threads + st.Forks + st.Full + st.Partial + st.ByName + st.Excluded + st.MissedAtMost - st.Twice)
	young += int(st.Created) / 100 // what ends while it is looked at
	if off := sum - int(st.Created); off > young || off < -young {
		tb.Errorf("%s: %d created and %d accounted for, want them equal but for %d: %+v", st.Mechanism, st.Created, sum, young, st)
	}
}

// accounted is how many of the runs were seen or, at most, missed, in percent: less than 100 is a false account.
func accounted(seen int, missedAtMost uint64, runs int) float64 {
	return 100 * float64(min(uint64(runs), uint64(seen)+missedAtMost)) / float64(runs)
}
