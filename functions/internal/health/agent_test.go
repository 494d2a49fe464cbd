package health

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// beat is a push with a heartbeat among other events, published at a time by Pub/Sub's clock. The agent's own clock is
// wrong by a year.
func beat(agent string, published time.Time, final ...bool) envelope.Push {
	data := eventtest.Exec().AppendJSON(nil)
	for _, last := range append([]bool{false}, final...) {
		e := &event.Event{
			ID: event.NewID(), AgentID: agent, Type: event.AgentHeartbeat, Timestamp: published.AddDate(-1, 0, 0), Cluster: "c", NodeName: "n",
			Metadata: map[string]any{"interval": "1m0s", "final": last, "version": "v1"},
		}
		data = e.AppendJSON(append(data, '\n'))
	}
	// Not packed: the unpacker is one for all bubbles of synctest, which it must not be.
	m := envelope.Message{Data: data, Attributes: map[string]string{"ce-type": envelope.TypeEvents}}
	return envelope.Push{Message: m, PublishTime: published}
}

type agentsUnderTest struct {
	*Health
	*topics
	t *testing.T
}

func (a agentsUnderTest) beat(agent string, final ...bool) {
	a.t.Helper()
	if err := a.Heartbeats(a.t.Context(), beat(agent, time.Now(), final...)); err != nil {
		a.t.Fatal(err)
	}
}

// pass lets minutes pass, in each of which alive agents beat, and what is due is done.
func (a agentsUnderTest) pass(minutes int, alive ...string) {
	a.t.Helper()
	for range minutes {
		time.Sleep(time.Minute)
		for _, id := range alive {
			a.beat(id)
		}
		if err := a.Silences(a.t.Context()); err != nil {
			a.t.Fatal(err)
		}
	}
}

// told lists the alerts.
func (a agentsUnderTest) told() (lines []string) {
	a.t.Helper()
	for _, m := range a.messages[Alerts] {
		alert, err := m.Alert()
		if err != nil {
			a.t.Fatal(err)
		}
		if err := alert.Validate(); err != nil {
			a.t.Errorf("the alert is not valid: %v", err)
		}
		lines = append(lines, fmt.Sprintf("%s %s resolved=%t", alert.RuleID, alert.Event.AgentID, alert.Resolved))
	}
	return lines
}

func (a agentsUnderTest) want(want ...string) {
	a.t.Helper()
	if diff := cmp.Diff(want, a.told()); diff != "" {
		a.t.Errorf("alerts (-want +got):\n%s", diff)
	}
}

func testAgents(t *testing.T, f func(a agentsUnderTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h, p := newHealth(t, nil)
		f(agentsUnderTest{h, p, t})
	})
}

const (
	silent = "APSS-AGENT-SILENT c/a resolved=false"
	back   = "APSS-AGENT-SILENT c/a resolved=true"
)

// TestSilence: an agent that stops is told of once, and so is its return; both have one fingerprint.
func TestSilence(t *testing.T) {
	testAgents(t, func(a agentsUnderTest) {
		a.beat("c/a")
		a.pass(2, "c/b")
		a.want()
		a.pass(20, "c/b")
		a.want(silent)
		if s := a.agents(a.t.Context()); s.Silent != 1 || s.Live != 1 || len(s.List) != 1 || s.List[0].ID != "c/a" {
			a.t.Errorf("got %+v, want one silent and one live", s)
		}
		a.pass(1, "c/a", "c/b")
		a.want(silent, back)
		a.pass(10, "c/a", "c/b")
		a.want(silent, back)
		first, _ := a.messages[Alerts][0].Alert()
		second, _ := a.messages[Alerts][1].Alert()
		if first.Fingerprint != second.Fingerprint || first.ID == second.ID {
			a.t.Errorf("got fingerprints %s and %s, ids %s and %s", first.Fingerprint, second.Fingerprint, first.ID, second.ID)
		}
		a.pass(10, "c/b")
		a.want(silent, back, silent)
		a.beat("c/a", true)
		a.want(silent, back, silent, back)
	})
}

// TestSilenceSetting: how long is a setting, and three intervals are waited for all the same.
func TestSilenceSetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, p := newHealth(t, func(c *Config) { c.Silence = 5 * time.Second })
		a := agentsUnderTest{h, p, t}
		a.beat("c/a") // every minute
		a.pass(2, "c/b")
		a.want()
		a.pass(1, "c/b")
		a.want(silent)
		if s := a.agents(t.Context()); s.Silent != 1 {
			t.Errorf("got %+v at once, want the silent agent in it", s)
		}
	})
}

// TestGoodbye: who says that it ends is not missed, and may begin again.
func TestGoodbye(t *testing.T) {
	testAgents(t, func(a agentsUnderTest) {
		a.beat("c/a", true)
		a.pass(60, "c/b")
		if s := a.agents(a.t.Context()); s.Ended != 1 {
			a.t.Errorf("got %+v, want one that ended", s)
		}
		a.beat("c/a")
		a.pass(10, "c/b")
		a.want(silent)
	})
}

// TestLag: while the topic is late nobody is silent, and what comes late does not revive anybody nor take back a goodbye.
func TestLag(t *testing.T) {
	testAgents(t, func(a agentsUnderTest) {
		a.beat("c/a")
		a.beat("c/gone", true)
		begin := time.Now()
		a.pass(9) // nothing comes
		a.want()
		for minute := range 9 { // then all of it
			for _, p := range []envelope.Push{beat("c/a", begin.Add(time.Duration(minute)*time.Minute)), beat("c/gone", begin.Add(-time.Minute))} {
				if err := a.Heartbeats(a.t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
		}
		a.pass(1, "c/b")
		a.want()
		a.pass(3, "c/b")
		a.want(silent)
	})
}

// TestAlone: the only agent of a topic on which nothing else comes is missed, too.
func TestAlone(t *testing.T) {
	testAgents(t, func(a agentsUnderTest) {
		a.beat("c/a")
		a.pass(30)
		a.want(silent)
	})
}

// TestToldInVain: an alert that could not be published is published later, with the id that it had.
func TestToldInVain(t *testing.T) {
	testAgents(t, func(a agentsUnderTest) {
		a.beat("c/a")
		a.pass(2, "c/b")
		a.fail(errors.New("Pub/Sub is away"))
		time.Sleep(time.Minute)
		a.beat("c/b")
		time.Sleep(tickEvery)
		a.beat("c/b")
		if err := a.Silences(a.t.Context()); err == nil {
			t.Error("got no error although nothing can be published")
		}
		a.fail(nil)
		a.want()
		a.pass(3, "c/b")
		a.want(silent)
	})
}

// TestTooManyAgents: what is beyond the bound is counted and not kept.
func TestTooManyAgents(t *testing.T) {
	testAgents(t, func(a agentsUnderTest) {
		for i := range mostAgents + 10 {
			a.beat(fmt.Sprint("c/", i))
		}
		time.Sleep(2 * sumEvery)
		if s := a.agents(a.t.Context()); s.known() != mostAgents {
			t.Errorf("got %d agents, want %d", s.known(), mostAgents)
		}
		a.beat("c/5")
	})
}

// TestHostileHeartbeats: what is no heartbeat of ours is none, and nothing comes again for it.
func TestHostileHeartbeats(t *testing.T) {
	testAgents(t, func(a agentsUnderTest) {
		attributes := map[string]string{"ce-type": envelope.TypeEvents}
		for _, data := range []string{
			"", "junk", `{"type":"agent_heartbeat"}`, `{"type":"agent_heartbeat","agent_id":"","id":7}`,
			`{"type":"file_create","agent_id":"c/x","file":{"path":"agent_heartbeat"}}`,
			`{"type":"agent_heartbeat","agent_id":"c/a","metadata":{"interval":7,"final":"yes"}}`,
			`{"type":"agent_heartbeat","agent_id":"c/a","metadata":{"interval":"-5m"}}`,
		} {
			if err := a.Heartbeats(a.t.Context(), envelope.Push{Message: envelope.Message{Data: []byte(data), Attributes: attributes}}); err != nil {
				t.Errorf("%s: got %v", data, err)
			}
		}
		if s := a.agents(a.t.Context()); s.known() != 1 {
			t.Errorf("got %+v, want the one agent", s)
		}
		a.pass(20)
		a.want(silent)
	})
}
