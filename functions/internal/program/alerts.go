package program

import (
	"fmt"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/notify"
)

// notify delivers the alerts of an instance.
func (p *Program) notify(in integration.Instance, to integration.Integration) (alertHandler, error) {
	s := p.settings
	n, err := notify.New(notify.Config{
		Name: in.Name, To: to, Route: in.Route.MatchAlert, Dead: p.dead, State: p.state,
		Rate: notify.Rate(in.Rate), Group: notify.Group(in.Group), MaxConns: s.Calls,
		Deliver: s.deliver(), Bury: s.DeadLettersTimeout, InHand: p.inHand,
		Log: p.tel.Logger(), Meter: p.tel.Meter(), Tracer: p.tracer,
	})
	if err != nil {
		return nil, fmt.Errorf("alerts to %s: %w", in.Name, err)
	}
	return n, nil
}
