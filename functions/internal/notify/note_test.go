package notify

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// stubborn refuses so many updates of incidents, as a store does in which too many change a record at once.
type stubborn struct {
	state.Store
	refuse int
}

func (s *stubborn) Update(ctx context.Context, collection, key string, change func(state.Record) (state.Record, error)) error {
	if s.refuse > 0 && strings.Contains(collection, "incidents") {
		s.refuse--
		return errors.New("changed by too many at once")
	}
	return s.Store.Update(ctx, collection, key, change)
}

// TestWhatWasSentIsNoted: a person is not told again because the store did not take the note at once.
func TestWhatWasSentIsNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		store := &stubborn{Store: state.NewMemory(1000, 1<<20)}
		s := start(t, p, func(c *Config) { c.State = store })
		p.set(func(context.Context, message) *outcome.Error {
			store.refuse = 1
			return nil
		})
		s.done(t, alert(0, "f", event.High))
		p.set(nil)
		time.Sleep(2 * s.lease())
		s.done(t, alert(1, "f", event.High))
		s.run(t, 6*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x2 HIGH")
		s.closes(t)
	})
}
