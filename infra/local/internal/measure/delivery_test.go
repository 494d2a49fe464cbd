package measure

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

// TestDeliveries: what arrives is told apart by id and program, the first time counts, and a program's other alerts do not.
func TestDeliveries(t *testing.T) {
	d := newDeliveries()
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	const id, program = "0199f0a2-4e13-7b21-a7d8-6c90f1e3d504", "/tmp/a/xmrig"
	ofProgram := func(rule string) *event.Alert {
		return &event.Alert{RuleID: rule, Event: &event.Event{Process: &event.Process{Exe: program}}}
	}
	d.await(id)
	d.await(program)
	d.alert(ofProgram("APSS-018"), at(1))
	d.alert(ofProgram(deedRule), at(2))
	d.alert(ofProgram(deedRule), at(3))
	d.alert(&event.Alert{ID: id}, at(4))
	d.shown(system.Slack, standin.Message{Text: "APSS-018 " + program, Changed: at(5)})
	d.shown(system.Slack, standin.Message{Text: deedRule + " " + program, Changed: at(6)})
	d.shown(system.Slack, standin.Message{Text: "Alert " + id, Changed: at(7)})
	for mark, want := range map[string]map[string]time.Time{
		program: {system.SweetSecurity: at(2), system.Slack: at(6)},
		id:      {system.SweetSecurity: at(4), system.Slack: at(7)},
	} {
		got, err := d.take(t.Context(), mark, []string{system.SweetSecurity, system.Slack})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: got %v, (-want +got):\n%s", mark, err, diff)
		}
	}
}

func TestTypical(t *testing.T) {
	all := make([]time.Duration, 101)
	for i := range all {
		all[i] = time.Duration(100 - i)
	}
	if got, want := quantilesOf(all), (quantiles{50, 99}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := typical([]quantiles{{1, 90}, {9, 10}, {2, 20}}), (quantiles{2, 20}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
