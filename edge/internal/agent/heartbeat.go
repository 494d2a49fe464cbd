package agent

import (
	"context"
	"maps"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// beat emits a heartbeat at once and then regularly: a silent agent must be tellable from a quiet one.
func (a *Agent) beat(ctx context.Context) {
	tick := time.NewTicker(a.c.Heartbeat)
	defer tick.Stop()
	for {
		a.emit(a.heartbeat(false))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) heartbeat(last bool) *event.Event {
	sensors := map[string]any{}
	for _, s := range a.c.Sources {
		if s.Stats != nil {
			sensors[s.Name] = s.Stats()
		}
	}
	metadata := map[string]any{
		"version":        a.c.Version,
		"uptime_seconds": int64(time.Since(a.started).Seconds()),
		"interval":       a.c.Heartbeat.String(),
		"final":          last,
		"sensors":        sensors,
		"rules":          a.c.Rules.Summary(),
		"events":         a.events.summary(),
		"alerts":         a.alerts.summary(),
	}
	if a.c.Facts != nil {
		maps.Copy(metadata, a.c.Facts())
	}
	return &event.Event{Type: event.AgentHeartbeat, Metadata: metadata}
}

// summary is a lane for a person.
func (l *lane) summary() map[string]any {
	f, st, drops := l.buffer.Fill(), l.spool.Stats(), l.buffer.Drops()
	dropped := map[string]any{}
	for r, n := range byReason(drops, st, l.counts.droppedAtEnd.Load()) {
		if n > 0 {
			dropped[r] = n
		}
	}
	return map[string]any{
		"buffered": f.Count, "buffered_bytes": f.Bytes,
		"sealed": l.counts.sealedItems.Load(), "confirmed": l.counts.confirmedItems.Load(),
		"refused": l.counts.refusedItems.Load(), "publish_failures": l.counts.failures.Load(),
		"spooled": st.Events, "spool_bytes": st.Bytes, "spool_failures": st.Failures, "spool_corrupt": st.Corrupt,
		"dropped": dropped,
	}
}
