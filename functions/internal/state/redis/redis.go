// Package redis keeps the state of all instances on a Redis server, or on one that speaks its protocol, of version 6.2 or
// later: Memorystore, ElastiCache, Valkey.
//
// A record is a string, which Redis lets expire by its own clock. The due ones of a collection are in a sorted set. A script
// changes both in one step when the record still has the mark it was read with ([swap]). All keys begin with "apss:", and
// those of a collection have one hash tag, so that a cluster keeps them together and the script runs there.
//
// What cannot be done is [state.ErrDown] within [Config].Timeout: no connection, no answer, but also a server that loads its data,
// that is a replica since a failover, that is out of memory or does not take the password. Connections are made again by
// themselves, with the password as it is then.
//
// Redis confirms before its replicas have a write, and its disk: a failover may forget the last moments, and what was just
// sent may be sent once more. A server with a memory limit should have the policy noeviction or volatile-ttl.
package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/swap"
	"github.com/apss-sensor/apss/shared/secret"
)

// Timeout bounds each operation, but List, of which it bounds each page, unless the configuration says otherwise.
const Timeout = time.Second

const (
	conns = 64              // at most; as many as alerts go to a receiver at the same time
	idle  = 5 * time.Minute // before the server, or what is between, closes the connection (often 10)
	page  = 500             // records that List asks for at once
)

// Config is where the server is.
type Config struct {
	Network  string // "tcp", "unix"
	Address  string // host:port, or the socket's path
	DB       int
	User     string        // "": the default one
	Password secret.Source // nil: none
	TLS      *tls.Config   // nil: in the clear
	Timeout  time.Duration // 0: [Timeout]
}

// Store is a [state.Store] on a Redis server. Safe for concurrent use.
type Store struct {
	*swap.Updater
	table   table
	timeout time.Duration
}

// New returns a store. It connects with the first operation.
func New(c Config) *Store {
	logging.Disable() // of the library, which writes to standard error; what goes wrong is in the errors
	timeout := cmp.Or(c.Timeout, Timeout)
	half := timeout / 2 // for one command: it leaves time for a second try
	t := table{
		password: c.Password,
		client: redis.NewClient(&redis.Options{
			Network: c.Network, Addr: c.Address, DB: c.DB, TLSConfig: c.TLS,
			CredentialsProviderContext: c.credentials,
			// A try after a lost answer is safe: the script knows by the mark that it was done.
			MaxRetries: 2, MinRetryBackoff: 10 * time.Millisecond, MaxRetryBackoff: 50 * time.Millisecond,
			DialTimeout: half, DialerRetries: 1, ReadTimeout: half, WriteTimeout: half,
			ContextTimeoutEnabled: true,
			PoolSize:              conns, MaxActiveConns: conns, PoolTimeout: half, ConnMaxIdleTime: idle, PipelinePoolSize: -1,
			ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10, // records are small
			DisableIdentity:          true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}),
	}
	return &Store{Updater: swap.New(t, timeout), table: t, timeout: timeout}
}

func (c Config) credentials(ctx context.Context) (user, password string, err error) {
	if c.Password == nil {
		return c.User, "", nil
	}
	v, err := c.Password.Get(ctx)
	if err != nil {
		return "", "", fmt.Errorf("the password: %w", err)
	}
	return c.User, v.Reveal(), nil
}

// Due implements [state.Store].
func (s *Store) Due(ctx context.Context, collection string, now time.Time, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil || limit <= 0 {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for {
		keys, err := s.table.client.ZRangeArgs(short, redis.ZRangeArgs{
			Key: dueKey(collection), ByScore: true, Start: "-inf", Stop: now.UnixMicro(), Count: int64(limit),
		}).Result()
		if err != nil {
			return nil, s.table.down(ctx, err)
		}
		forgotten, err := s.forget(short, collection, keys)
		if err != nil {
			return nil, s.table.down(ctx, err)
		}
		if !forgotten {
			return keys, nil
		}
	}
}

// forget removes those of the due keys whose records have expired, and reports whether there were any.
func (s *Store) forget(ctx context.Context, collection string, keys []string) (bool, error) {
	if len(keys) == 0 {
		return false, nil
	}
	found := make([]*redis.IntCmd, len(keys))
	_, err := s.table.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			found[i] = p.Exists(ctx, recordKey(collection, key))
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	forgotten := false
	for i, key := range keys {
		if found[i].Val() > 0 {
			continue
		}
		forgotten = true
		if err := forget.Run(ctx, s.table.client, []string{recordKey(collection, key), dueKey(collection)}, key).Err(); err != nil {
			return false, err
		}
	}
	return forgotten, nil
}

// List implements [state.Store]. It reads the names of all keys of the server's database.
func (s *Store) List(ctx context.Context, collection string, f func(key string, r state.Record) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	prefix := recordKey(collection, "")
	seen := map[string]bool{} // a scan may bring a key twice
	for cursor := uint64(0); ; {
		short, cancel := context.WithTimeout(ctx, s.timeout)
		var names []string
		var values []any
		var err error
		// The prefix has nothing that means something in a pattern.
		names, cursor, err = s.table.client.Scan(short, cursor, prefix+"*", page).Result()
		if err == nil && len(names) > 0 {
			values, err = s.table.client.MGet(short, names...).Result()
		}
		cancel()
		if err != nil {
			return s.table.down(ctx, err)
		}
		for i, value := range values {
			text, ok := value.(string) // else it has expired meanwhile
			if !ok || seen[names[i]] {
				continue
			}
			seen[names[i]] = true
			e, err := decode(text)
			if err != nil {
				return fmt.Errorf("%q: %w", names[i], err)
			}
			if !f(names[i][len(prefix):], e.Record) {
				return nil
			}
		}
		if cursor == 0 {
			return nil
		}
	}
}

// Close waits for changes under way and ends the connections.
func (s *Store) Close() error {
	s.Updater.Close()
	if err := s.table.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("closing the connections to Redis: %w", err)
	}
	return nil
}

// dueKey is the sorted set of a collection's due keys, by microseconds of Unix: a score holds them exactly until the year
// 2255.
func dueKey(collection string) string { return "apss:{" + url.QueryEscape(collection) + "}:due" }

func recordKey(collection, key string) string {
	return "apss:{" + url.QueryEscape(collection) + "}:r:" + key
}

// score is t as what the scripts get, "" when there is none.
func score(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMicro(), 10)
}
