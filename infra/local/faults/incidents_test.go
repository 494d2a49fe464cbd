package faults_test

import (
	"strings"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/standin/pagerduty"
	"github.com/apss-sensor/apss/infra/local/internal/system"
)

// quiet: repeats are told as a count, and an incident that stays quiet is over, in each receiver's own way: PagerDuty
// resolves it, Slack's bot and Discord edit the message, Slack's webhook and email add one.
func quiet(_ *world, r *rig, _ *all) {
	r.publish(meanwhile, again)
	r.whole()
	for _, to := range r.Receivers() {
		if to.Incidents == nil {
			continue
		}
		r.until("every incident ends at "+to.Name, func() bool {
			for _, m := range to.Board.Messages() {
				if !over(m) {
					return false
				}
			}
			return true
		})
		incidents, messages := to.Incidents.Totals().Incidents, int64(to.Board.Posted())
		if messages != incidents {
			r.t.Errorf("%s: got %d messages of %d incidents, want one each", to.Name, messages, incidents)
		}
	}
}

func over(m standin.Message) bool {
	return m.State == pagerduty.Resolved || m.State == "" && strings.Contains(m.Text, "Resolved:")
}

// lost: functions that know nothing of the incidents that they opened open them anew, but for PagerDuty, which knows them
// by their fingerprints.
func lost(_ *world, r *rig, _ *all) {
	r.publish(meanwhile, again)
	r.whole()
	r.KillFunctions()
	r.startFunctions()
	r.publish(meanwhile, again)
	r.whole()
	for _, to := range r.Receivers() {
		if to.Incidents == nil {
			continue
		}
		want := int64(kinds)
		if to.Name == system.PagerDuty {
			want = 0
		}
		if got := to.Incidents.Totals().Doubled; got != want {
			r.t.Errorf("%s: got %d incidents with two messages, want %d", to.Name, got, want)
		}
	}
}
