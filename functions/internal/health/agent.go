package health

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// SilentRule is the rule id of the alert about a silent agent.
const SilentRule = "APSS-AGENT-SILENT"

const (
	// mostAgents are followed.
	mostAgents = 10_000
	// An agent is silent after beatsMissed of its intervals, and not before Config.Silence.
	beatsMissed = 3
	// The intervals that an agent can be told (HEARTBEAT_INTERVAL), and the one that is assumed.
	leastInterval, usualInterval, longestInterval = time.Second, time.Minute, time.Hour
	// longestLag: a topic from which nothing came for so long is quiet, and not late. Canaries make it less quiet.
	longestLag = 10 * time.Minute
	// turnLasts is how long an instance has to publish an alert.
	turnLasts = time.Minute
	// keepEnded and keepSilent are how long an agent is remembered that ended, or fell silent.
	keepEnded, keepSilent = 24 * time.Hour, 7 * 24 * time.Hour
	// sweepAtOnce bounds the alerts of one look; a cluster that goes away is told in several.
	sweepAtOnce = 500
)

// agentRecord is one agent.
type agentRecord struct {
	ID        string        `json:"id"`
	Cluster   string        `json:"cluster,omitempty"`
	Node      string        `json:"node,omitempty"`
	Namespace string        `json:"namespace,omitempty"`
	Pod       string        `json:"pod,omitempty"`
	Workload  string        `json:"workload,omitempty"`
	Version   string        `json:"version,omitempty"`
	Interval  time.Duration `json:"interval"`
	Last      time.Time     `json:"last"` // when Pub/Sub took its newest heartbeat
	Final     bool          `json:"final,omitempty"`
	// Told is the Last of which the silence was told; zero: none is.
	Told time.Time `json:"told,omitzero"`
	Busy time.Time `json:"busy,omitzero"` // until then an instance is telling
}

// due is when there is something to tell; zero: not before the next heartbeat. The agent counts as silent after least, if
// nothing comes.
func (r *agentRecord) due(least time.Duration) time.Time {
	var at time.Time
	switch {
	case !r.Told.IsZero() && r.Last.After(r.Told): // it is back
		at = r.Last
	case r.Told.IsZero() && !r.Final:
		at = r.Last.Add(max(beatsMissed*r.Interval, least))
	default:
		return time.Time{}
	}
	if r.Busy.After(at) {
		return r.Busy
	}
	return at
}

func (r *agentRecord) keep(least time.Duration) (state.Record, error) {
	expires := r.Last.Add(keepSilent)
	if r.Final && r.Told.IsZero() {
		expires = r.Last.Add(keepEnded)
	}
	return encode(r, r.due(least), expires)
}

// changeAgent lets f change an agent's record.
func (h *Health) changeAgent(ctx context.Context, key string, f func(*agentRecord) error) error {
	return h.cfg.State.Update(ctx, agents, key, func(old state.Record) (state.Record, error) {
		r := decode[agentRecord](old)
		if err := f(&r); err != nil {
			return state.Record{}, err
		}
		return r.keep(h.cfg.Silence)
	})
}

var (
	errOld  = errors.New("a newer heartbeat is known")
	errFull = errors.New("too many agents")
)

// Heartbeats takes the heartbeats out of a push of the events topic. When it returns an error the push must come again.
func (h *Health) Heartbeats(ctx context.Context, p envelope.Push) error {
	now := time.Now()
	published := p.PublishTime
	if published.IsZero() || published.After(now) {
		published = now
	}
	beats, err := h.beats(ctx, p)
	if err != nil {
		return err
	}
	for _, e := range beats {
		if err := h.heard(ctx, e, published); err != nil {
			return err
		}
	}
	return h.note(ctx, published)
}

// beats are the heartbeats of a push. Few pushes are opened at the same time: how large one is shows only then.
func (h *Health) beats(ctx context.Context, p envelope.Push) (found []*event.Event, err error) {
	select {
	case h.opening <- struct{}{}:
		defer func() { <-h.opening }()
	case <-ctx.Done():
		return nil, fmt.Errorf("no time left to open the message: %w", ctx.Err())
	}
	events, _ := p.Events(nil) // what is no event the integrations' subscriptions put to the dead letters
	for _, raw := range events {
		if !bytes.Contains(raw, []byte(event.AgentHeartbeat)) {
			continue
		}
		if e, err := event.Decode(raw); err == nil && e.Type == event.AgentHeartbeat && e.AgentID != "" {
			found = append(found, e)
		}
	}
	return found, nil
}

// heard notes a heartbeat.
func (h *Health) heard(ctx context.Context, e *event.Event, published time.Time) error {
	key, back, fresh := agentKey(e.AgentID), false, false
	full := h.agents(ctx).known() >= mostAgents
	err := h.changeAgent(ctx, key, func(r *agentRecord) error {
		switch {
		case r.ID == "" && full:
			return errFull
		case published.Before(r.Last):
			return errOld
		}
		final, _ := e.Metadata["final"].(bool)
		version, _ := e.Metadata["version"].(string)
		told, busy := r.Told, r.Busy
		fresh = r.ID == ""
		*r = agentRecord{
			ID: clip(e.AgentID), Cluster: clip(e.Cluster), Node: clip(e.NodeName), Namespace: clip(e.PodNamespace), Pod: clip(e.PodName),
			Workload: clip(e.Workload), Version: clip(version), Interval: interval(e), Last: published, Final: final, Told: told, Busy: busy,
		}
		back = !told.IsZero() && published.After(told)
		return nil
	})
	switch {
	case errors.Is(err, errOld):
		return nil
	case errors.Is(err, errFull):
		h.metrics.refused(ctx)
		return nil
	case err != nil:
		return fmt.Errorf("keeping a heartbeat: %w", err)
	}
	if fresh {
		h.mu.Lock()
		h.summary.Live++ // until it is summed up again
		h.mu.Unlock()
	}
	if back {
		return h.tell(ctx, key, published)
	}
	return nil
}

// agentKey is the id where it is no long one: keys are bounded, and ids are anybody's.
func agentKey(id string) string {
	if len(id) <= 128 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

func interval(e *event.Event) time.Duration {
	text, _ := e.Metadata["interval"].(string)
	d, err := time.ParseDuration(text)
	if err != nil || d < leastInterval || d > longestInterval {
		return usualInterval
	}
	return d
}

// note keeps how far the topic has come; now and then, for it is asked for the minute.
func (h *Health) note(ctx context.Context, published time.Time) error {
	last := h.newest.Load()
	if published.UnixNano()-last < int64(tickEvery) || !h.newest.CompareAndSwap(last, published.UnixNano()) {
		return nil
	}
	return change(ctx, h.cfg.State, topicTime, "newest", func(t *time.Time) error {
		if published.After(*t) {
			*t = published
		}
		return nil
	})
}

// asOf is up to when what agents sent has come here.
func (h *Health) asOf(ctx context.Context, now time.Time) (time.Time, error) {
	newest, err := read[time.Time](ctx, h.cfg.State, topicTime, "newest")
	if err != nil {
		return time.Time{}, fmt.Errorf("reading how far the topic has come: %w", err)
	}
	if least := now.Add(-longestLag); newest.Before(least) {
		newest = least
	}
	if newest.After(now) {
		newest = now
	}
	return newest, nil
}

// Silences tells of agents that fell silent, and of those that are back and were not told of.
func (h *Health) Silences(ctx context.Context) error {
	asOf, err := h.asOf(ctx, time.Now())
	if err != nil {
		return err
	}
	keys, err := h.cfg.State.Due(ctx, agents, asOf, sweepAtOnce)
	if err != nil {
		return fmt.Errorf("looking for silent agents: %w", err)
	}
	for _, key := range keys {
		if err := h.tell(ctx, key, asOf); err != nil {
			return err
		}
	}
	return nil
}

// tell publishes what there is to tell of an agent. The alert's id is made of what it tells: told twice, by an instance
// that died over it, it is delivered once.
func (h *Health) tell(ctx context.Context, key string, asOf time.Time) error {
	var told agentRecord
	err := h.changeAgent(ctx, key, func(r *agentRecord) error {
		if at := r.due(h.cfg.Silence); r.ID == "" || at.IsZero() || at.After(asOf) {
			return errNotDue
		}
		r.Busy = time.Now().Add(turnLasts)
		told = *r
		return nil
	})
	if errors.Is(err, errNotDue) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("taking the turn to tell of an agent: %w", err)
	}
	a := told.alert(time.Now().UTC())
	if err := h.cfg.Publish(ctx, Alerts, envelope.SealAlert(a, envelope.Source{AgentID: told.ID, Cluster: told.Cluster}, a.Timestamp)); err != nil {
		return fmt.Errorf("publishing the alert about a silent agent: %w", err)
	}
	if a.Resolved {
		h.cfg.Log.InfoContext(ctx, "a silent agent is back", "agent_id", told.ID)
	} else {
		h.cfg.Log.WarnContext(ctx, "an agent is silent", "agent_id", told.ID, "last", told.Last)
	}
	err = h.changeAgent(ctx, key, func(r *agentRecord) error {
		r.Busy, r.Told = time.Time{}, told.Last
		if a.Resolved {
			r.Told = time.Time{}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping that a silence was told: %w", err)
	}
	h.mu.Lock()
	h.summedAt = time.Time{} // who was told of it looks now
	h.mu.Unlock()
	return nil
}

// alert is what there is to tell of r: its silence, or its end.
func (r *agentRecord) alert(now time.Time) *event.Alert {
	what, since := "silent", r.Last
	if !r.Told.IsZero() {
		what, since = "back", r.Told
	}
	id := func(of string) string {
		name := fmt.Sprintf("%s %s %d %s", of, what, since.UnixNano(), r.ID)
		return uuid.NewHash(sha256.New(), uuid.NameSpaceURL, []byte(name), 8).String()
	}
	e := &event.Event{
		ID: id("event"), AgentID: r.ID, Type: event.AgentHeartbeat, Severity: event.High, Timestamp: r.Last.UTC(),
		Cluster: r.Cluster, NodeName: r.Node, PodName: r.Pod, PodNamespace: r.Namespace, Workload: r.Workload,
		Metadata: map[string]any{"version": r.Version, "interval": r.Interval.String()},
	}
	a := &event.Alert{
		ID: id("alert"), Timestamp: now, Severity: event.High, RuleID: SilentRule, RuleName: "Silent agent",
		Description: fmt.Sprintf("The agent %s sent its last heartbeat at %s and did not say that it ends. It may have been killed, or its "+
			"node is gone or has no way to Pub/Sub; until it is back nothing is seen there.", r.ID, r.Last.UTC().Format(time.RFC3339)),
		Cluster: r.Cluster, NodeName: r.Node, PodName: r.Pod, PodNamespace: r.Namespace, Workload: r.Workload,
		MITRETactic: "Defense Evasion", MITREID: "T1562.001", // Impair Defenses: Disable or Modify Tools
		EventIDs: []string{e.ID}, Fingerprint: event.Fingerprint(SilentRule, e, r.ID), Count: 1, FirstSeen: since.UTC(), LastSeen: now,
		Event: e,
		Metadata: event.AlertMetadata{Source: "apss", RecommendedActions: []string{
			"See whether the node is there: kubectl get node, and the agent's pod on it",
			"Read why the agent ended: kubectl logs --previous, and the pod's events",
			"When nobody took it away, treat the node as one where somebody wants not to be seen",
		}},
	}
	if what == "back" {
		a.Resolved, a.Description = true, fmt.Sprintf("The agent %s, silent since %s, is back.", r.ID, since.UTC().Format(time.RFC3339))
		if r.Final {
			a.Description = fmt.Sprintf("The agent %s, silent since %s, has said that it ends.", r.ID, since.UTC().Format(time.RFC3339))
		}
	}
	return a
}
