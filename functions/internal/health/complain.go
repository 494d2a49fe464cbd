package health

import "context"

// complain logs what is failing, with each round of checks for as long as it is: alert policies count these lines.
func (h *Health) complain(ctx context.Context, r Report) {
	for _, i := range r.Integrations {
		if i.Status != Failing {
			continue
		}
		attributes := append(make([]any, 0, 4+2*len(i.Canary)), "integration", i.Name, "reasons", i.Reasons)
		for topic, c := range i.Canary {
			attributes = append(attributes, topic+"_canary_age_seconds", c.AgeSeconds)
		}
		h.cfg.Log.WarnContext(ctx, "an integration is failing", attributes...)
	}
}
