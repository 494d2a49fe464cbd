package health

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// agentSummary is how many agents there are.
type agentSummary struct {
	Live   int           `json:"live"`
	Silent int           `json:"silent"`
	Ended  int           `json:"ended"`       // said so, in the last day
	List   []SilentAgent `json:"silent_list"` // at most mostListed, the longest silent first
}

// SilentAgent is an agent whose silence was told.
type SilentAgent struct {
	ID      string    `json:"agent_id"`
	Cluster string    `json:"cluster"`
	Node    string    `json:"node_name"`
	Version string    `json:"version"`
	Last    time.Time `json:"last_heartbeat"`
}

func (s agentSummary) known() int { return s.Live + s.Silent + s.Ended }

const (
	mostListed = 100
	// sumEvery: the sum reads each agent's record.
	sumEvery = time.Minute
)

// agents returns the sum of the last minute. When the state cannot be read it is the one before.
func (h *Health) agents(ctx context.Context) agentSummary {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if !h.summedAt.IsZero() && now.Sub(h.summedAt) < sumEvery {
		return h.summary
	}
	sum := agentSummary{List: []SilentAgent{}}
	err := h.cfg.State.List(ctx, agents, func(_ string, record state.Record) bool {
		r := decode[agentRecord](record)
		switch {
		case !r.Told.IsZero() && !r.Last.After(r.Told):
			sum.Silent++
			sum.List = append(sum.List, SilentAgent{ID: r.ID, Cluster: r.Cluster, Node: r.Node, Version: r.Version, Last: r.Last})
		case r.Final:
			sum.Ended++
		default:
			sum.Live++
		}
		return true
	})
	if err != nil {
		return h.summary
	}
	slices.SortFunc(sum.List, func(a, b SilentAgent) int { return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(a.ID, b.ID)) })
	sum.List = sum.List[:min(len(sum.List), mostListed)]
	h.summary, h.summedAt = sum, now
	return sum
}
