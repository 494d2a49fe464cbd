// Package firestore keeps the state of all instances in a Firestore database in native mode: nothing to run, paid by
// operation.
//
// A record is the document apss/c.<collection>/records/<key>. It is read and then written on the condition that it has not
// changed ([swap]), which is one exchange less than a transaction, and no lock is left behind by an instance whose CPU was
// taken away in the middle. An Update costs one read and one write, one read when nothing changes; a Get one read; a Due as
// many reads as it finds records, at least one; List one for each.
//
// Of the collection group "records" the database needs, and none is needed for correctness:
//   - nothing for Due: single-field indexes are made automatically;
//   - a TTL policy on expires. Documents that have expired are none for this package; the policy removes them, within a day
//     (https://cloud.google.com/firestore/docs/ttl);
//   - no index on value, mark and expires: each would be paid for with storage, and one on times that only grow limits the
//     writes to 500 a second (https://cloud.google.com/firestore/docs/best-practices#indexes).
//
// What cannot be done is [state.ErrDown] within [Timeout].
package firestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"regexp"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/swap"
)

// Timeout bounds each operation, but Due and List, of which it bounds each page. The first operation makes the connection
// and gets a token.
const Timeout = 4 * time.Second

// The collections' names. Group is the collection group of all records, which indexes and TTL policies are made for.
const (
	root  = "apss"
	Group = "records"
)

// page is how many records List asks for at once.
const page = 300

// Config is where the database is.
type Config struct {
	Project, Database string
	Timeout           time.Duration // 0: [Timeout]
	Options           []option.ClientOption
}

// Names: https://cloud.google.com/resource-manager/docs/creating-managing-projects (a domain's have a colon),
// https://cloud.google.com/firestore/docs/manage-databases#database_id.
var (
	projectPattern  = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	databasePattern = regexp.MustCompile(`^(\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9])$`)
)

// Parse reads firestore://project[/database]; the database is (default) when there is none.
func Parse(u *url.URL) (Config, error) {
	database := strings.TrimPrefix(u.Path, "/")
	if database == "" {
		database = firestore.DefaultDatabaseID
	}
	var errs []error
	if !projectPattern.MatchString(u.Host) {
		errs = append(errs, fmt.Errorf("%q is no project's id", u.Host))
	}
	if !databasePattern.MatchString(database) {
		errs = append(errs, fmt.Errorf("%q is no database's id", database))
	}
	if u.Scheme != "firestore" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		errs = append(errs, errors.New("write it like firestore://project/database"))
	}
	return Config{Project: u.Host, Database: database}, errors.Join(errs...)
}

// Store is a [state.Store] in a Firestore database. Safe for concurrent use.
type Store struct {
	*swap.Updater
	table   table
	timeout time.Duration
}

// New returns a store. ctx is for the credentials: it must not end before the store. It fails when there are none; the
// connection is made with the first operation.
func New(ctx context.Context, c Config) (*Store, error) {
	client, err := firestore.NewClientWithDatabase(ctx, c.Project, c.Database, c.Options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to Firestore: %w", err)
	}
	t, timeout := table{client}, cmp.Or(c.Timeout, Timeout)
	return &Store{Updater: swap.New(t, timeout), table: t, timeout: timeout}, nil
}

// Due implements [state.Store].
func (s *Store) Due(ctx context.Context, collection string, now time.Time, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil || limit <= 0 {
		return nil, err
	}
	q := s.table.records(collection).Where("due", "<=", now).OrderBy("due", firestore.Asc).OrderBy(firestore.DocumentID, firestore.Asc).
		Select("expires")
	keys := make([]string, 0, min(limit, page))
	err := s.pages(ctx, q, limit, func(key string, r state.Record) bool {
		keys = append(keys, key)
		return len(keys) < limit
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// List implements [state.Store].
func (s *Store) List(ctx context.Context, collection string, f func(key string, r state.Record) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.pages(ctx, s.table.records(collection).OrderBy(firestore.DocumentID, firestore.Asc), page, f)
}

// pages calls f with the records that q finds and that have not expired, until it returns false.
func (s *Store) pages(ctx context.Context, q firestore.Query, size int, f func(key string, r state.Record) bool) error {
	size = min(size, page)
	for from := q; ; {
		short, cancel := context.WithTimeout(ctx, s.timeout)
		docs, err := from.Limit(size).Documents(short).GetAll()
		cancel()
		if err != nil {
			return state.Down(ctx, err)
		}
		for _, doc := range docs {
			key, err := keyOf(doc.Ref.ID)
			if err != nil {
				return err
			}
			e, err := entry(doc)
			if err != nil {
				return fmt.Errorf("%.64q: %w", key, err)
			}
			if e.Value != nil && !f(key, e.Record) {
				return nil
			}
		}
		if len(docs) < size {
			return nil
		}
		from = q.StartAfter(docs[len(docs)-1])
	}
}

// Close waits for changes under way and ends the connection.
func (s *Store) Close() error {
	s.Updater.Close()
	if err := s.table.client.Close(); err != nil {
		return fmt.Errorf("closing the connection to Firestore: %w", err)
	}
	return nil
}

// idOf is key as a document's id: no slash, valid UTF-8, neither ".", ".." nor "__x__"
// (https://cloud.google.com/firestore/quotas#collections_documents_and_fields). It begins with a hash: Firestore keeps
// documents in the order of their ids, and keys that only grow, as alerts' ids do, would all be written to one place
// (https://cloud.google.com/firestore/docs/best-practices#hotspots).
func idOf(key string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return fmt.Sprintf("%04x.%s", h.Sum32()&0xffff, url.QueryEscape(key))
}

func keyOf(id string) (string, error) {
	_, escaped, ok := strings.Cut(id, ".")
	key, err := url.QueryUnescape(escaped)
	if !ok || err != nil {
		return "", fmt.Errorf("%.64q: %w", id, errForeign)
	}
	return key, nil
}
