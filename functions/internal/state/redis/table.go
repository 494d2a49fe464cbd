package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/swap"
	"github.com/apss-sensor/apss/shared/secret"
)

// table implements [swap.Table].
type table struct {
	client   *redis.Client
	password secret.Source
}

// replace puts a record in the place of the one that has a mark.
//
// KEYS: record, due set. ARGV: mark or "" when there is none, record or "", expiry in ms or "", due score or "", key.
// It returns 1, else what is there.
var replace = redis.NewScript(`
if redis.call('GETRANGE', KEYS[1], 1, 8) ~= ARGV[1] then
  return redis.call('GET', KEYS[1])
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
if ARGV[4] == '' then
  redis.call('ZREM', KEYS[2], ARGV[5])
else
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[5])
end
return 1`)

// forget takes a key out of the due ones when there is no record any more.
//
// KEYS: record, due set. ARGV: key.
var forget = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1`)

// Read implements [swap.Table].
func (t table) Read(ctx context.Context, collection, key string) (swap.Entry, error) {
	text, err := t.client.Get(ctx, recordKey(collection, key)).Result()
	return t.entry(ctx, key, text, err)
}

// Replace implements [swap.Table].
func (t table) Replace(ctx context.Context, collection, key string, old, next swap.Entry) (swap.Entry, error) {
	var mark, text, expires, due string
	if old.Mark != 0 {
		mark = string(binary.BigEndian.AppendUint64(nil, old.Mark))
	}
	if next.Value != nil {
		text, due = encode(next), score(next.Due)
	}
	if !next.Expires.IsZero() {
		expires = strconv.FormatInt(next.Expires.Add(time.Millisecond-1).UnixMilli(), 10) // not before its time
	}
	answer, err := replace.Run(ctx, t.client, []string{recordKey(collection, key), dueKey(collection)}, mark, text, expires, due, key).Result()
	if _, done := answer.(int64); done && err == nil {
		return next, nil
	}
	now, _ := answer.(string)
	return t.entry(ctx, key, now, err)
}

// entry is what a reply says is there.
func (t table) entry(ctx context.Context, key, text string, err error) (swap.Entry, error) {
	if errors.Is(err, redis.Nil) {
		return swap.Entry{}, nil
	}
	if err != nil {
		return swap.Entry{}, t.down(ctx, err)
	}
	e, err := decode(text)
	if err != nil {
		return swap.Entry{}, fmt.Errorf("%.64q: %w", key, err)
	}
	return e, nil
}

// down is what a store returns for what the client says.
func (t table) down(ctx context.Context, err error) error {
	if t.password != nil && (redis.HasErrorPrefix(err, "WRONGPASS") || redis.HasErrorPrefix(err, "NOAUTH")) {
		t.password.Refresh() // the next connection has the new one
	}
	return state.Down(ctx, err)
}

// A record's string: a byte that tells the format, the mark, due and expires in microseconds of Unix, the value.
const (
	format = 1
	header = 1 + 3*8
)

func encode(e swap.Entry) string {
	b := make([]byte, 0, header+len(e.Value))
	b = append(b, format)
	b = binary.BigEndian.AppendUint64(b, e.Mark)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Due.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Expires.UnixMicro()))
	return string(append(b, e.Value...))
}

var errForeign = errors.New("what is under the key in Redis was not written by this version of APSS; delete it, or give APSS a database of its own")

func decode(text string) (swap.Entry, error) {
	if len(text) < header || text[0] != format {
		return swap.Entry{}, errForeign
	}
	b := []byte(text)
	at := func(i int) time.Time { return time.UnixMicro(int64(binary.BigEndian.Uint64(b[i:]))).UTC() } // the zero time is itself
	return swap.Entry{
		Mark:   binary.BigEndian.Uint64(b[1:]),
		Record: state.Record{Value: b[header:], Due: at(9), Expires: at(17)},
	}, nil
}
