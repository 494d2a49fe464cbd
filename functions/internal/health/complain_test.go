package health

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/outcome"
)

// TestComplaints: what alert policies count is one line for each round of checks in which an integration is failing, and
// none when it is well again.
func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, well := new(receiver), new(receiver)
		down.set(fails(&outcome.Error{Class: outcome.Auth, Reason: "the key is refused"}))
		var log bytes.Buffer
		h, _ := newHealth(t, func(c *Config) {
			c.Log = slog.New(slog.NewJSONHandler(&log, nil))
			c.Instances = []Instance{
				{Name: "down", Enabled: true, To: down, Canary: true, Ways: []Way{{Topic: Alerts, Figures: func() Figures { return Figures{} }}}},
				{Name: "well", Enabled: true, To: well},
			}
		})
		ticks := func(d time.Duration) (lines []map[string]any) {
			log.Reset()
			for begin := time.Now(); time.Since(begin) < d; time.Sleep(10 * time.Second) {
				if err := h.Tick(t.Context()); err != nil {
					t.Error(err)
				}
			}
			for line := range bytes.Lines(log.Bytes()) {
				var l map[string]any
				if err := json.Unmarshal(line, &l); err != nil {
					t.Error(err)
				}
				if l["msg"] == "an integration is failing" {
					delete(l, "time")
					delete(l, "reasons")
					lines = append(lines, l)
				}
			}
			return lines
		}
		line := map[string]any{
			"level": "WARN", "msg": "an integration is failing", "integration": "down", "alerts_canary_age_seconds": -1.0,
		}
		if diff := cmp.Diff([]map[string]any{line, line, line}, ticks(3*time.Minute)); diff != "" {
			t.Errorf("lines in three minutes (-want +got):\n%s", diff)
		}
		down.set(nil)
		if got := ticks(3 * time.Minute); len(got) > 0 {
			t.Errorf("got %v of a receiver that is well again, want nothing", got)
		}
	})
}
