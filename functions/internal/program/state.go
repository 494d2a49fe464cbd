package program

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/apss-sensor/apss/functions/internal/notify"
	"github.com/apss-sensor/apss/functions/internal/secretmanager"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/firestore"
	"github.com/apss-sensor/apss/functions/internal/state/redis"
	"github.com/apss-sensor/apss/shared/secret"
)

// Bounds of the state that one instance keeps for itself: incidents of a cluster in trouble, and the ids of a day's alerts.
const (
	stateRecords = 200_000
	stateBytes   = 64 << 20
)

func (p *Program) newMemory() *state.Memory {
	m := state.NewMemory(stateRecords, stateBytes)
	p.tel.Gauge("apss.state.evicted", "", "Records that gave way in this instance's memory since its start: alerts may be told twice, and what waited for a digest is in the log only.",
		func() int64 {
			_, _, evicted := m.Usage()
			return evicted
		})
	return m
}

// stateStore reads the settings of the store that all integrations share. What it returns makes the store; it does not
// wait for it: deliveries begin without it when it is down.
func (p *Program) stateStore() (open func(context.Context) (state.Store, error), err error) {
	raw, password := p.settings.StateStore.Reveal(), p.settings.StateStorePassword
	defer func() {
		if err != nil {
			err = fmt.Errorf("STATE_STORE: %w", err)
		}
	}()
	none := func() error {
		if password.Empty() {
			return nil
		}
		return errors.New("STATE_STORE_PASSWORD is for redis:// and rediss://")
	}
	if raw == "" || raw == "memory" { // empty: what else is wrong with the settings is said elsewhere
		return func(context.Context) (state.Store, error) { return p.newMemory(), nil }, none()
	}
	u, err := url.Parse(raw)
	if err != nil { // it would quote the URL, which may hold a password
		u = &url.URL{}
	}
	switch u.Scheme {
	case "redis", "rediss":
		c, err := p.redis(*u)
		// A change may wait for those of others before it begins: twice the store's own time, and a little.
		return func(context.Context) (state.Store, error) {
			return p.shared(redis.New(c), 2*redis.Timeout+time.Second/2)
		}, err
	case "firestore":
		c, err := firestore.Parse(u)
		return func(ctx context.Context) (state.Store, error) {
			first, err := firestore.New(context.WithoutCancel(ctx), c)
			if err != nil {
				return nil, fmt.Errorf("STATE_STORE: %w", err)
			}
			return p.shared(first, 2*firestore.Timeout+time.Second/2)
		}, errors.Join(err, none())
	}
	return nil, errors.New("want memory, rediss://host:port/database, redis://host:port/database or firestore://project/database")
}

// redis reads the settings of a Redis server. In a local run the password may stand in the URL.
func (p *Program) redis(u url.URL) (redis.Config, error) {
	var source secret.Source
	var faults []error
	ref := p.settings.StateStorePassword.Reveal()
	if written, has := u.User.Password(); has {
		if ref != "" {
			faults = append(faults, errors.New("the password stands both here and in STATE_STORE_PASSWORD"))
		}
		ref = written
		u.User = url.User(u.User.Username())
	}
	if ref != "" {
		var err error
		source, err = secret.Schemes{secretmanager.Scheme: p.secrets.Parse}.Parse(ref)
		_, plain := source.(secret.Plain)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("the password: %w", err))
		case plain && !p.settings.Local:
			faults = append(faults, errors.New("a password is written here; keep it in Secret Manager and set STATE_STORE_PASSWORD="+
				"secret://projects/<project>/secrets/<secret>/versions/latest (file:///<path> and env://<NAME> work, too)"))
		}
	}
	c, err := redis.Parse(&u)
	c.Password = source
	return c, errors.Join(append(faults, err)...)
}

// shared is first, with memory for the time when it is down.
func (p *Program) shared(first state.Store, timeout time.Duration) (state.Store, error) {
	s, err := state.NewFallback(state.FallbackConfig{
		First: first, Memory: p.newMemory(), Merge: notify.Merge, Timeout: timeout, Log: p.tel.Logger(), Meter: p.tel.Meter(),
	})
	if err != nil {
		return nil, errors.Join(err, first.Close())
	}
	return s, nil
}
