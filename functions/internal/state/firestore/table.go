package firestore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/swap"
)

// table implements [swap.Table].
type table struct{ client *firestore.Client }

// document is a record as Firestore has it. Fields that are not set are not there.
type document struct {
	Value   []byte    `firestore:"value"`
	Mark    int64     `firestore:"mark"`
	Due     time.Time `firestore:"due"`
	Expires time.Time `firestore:"expires"`
}

func (t table) records(collection string) *firestore.CollectionRef {
	return t.client.Collection(root).Doc("c." + url.QueryEscape(collection)).Collection(Group)
}

// Read implements [swap.Table].
func (t table) Read(ctx context.Context, collection, key string) (swap.Entry, error) {
	// Not Get: its NotFound may be the document's or the database's.
	docs, err := t.client.GetAll(ctx, []*firestore.DocumentRef{t.records(collection).Doc(idOf(key))})
	if err != nil {
		return swap.Entry{}, state.Down(ctx, err)
	}
	e, err := entry(docs[0])
	if err != nil {
		return swap.Entry{}, fmt.Errorf("%.64q: %w", key, err)
	}
	return e, nil
}

// Replace implements [swap.Table]. The library tries again after a lost answer; what is there then tells by its mark
// whether the first try was done.
func (t table) Replace(ctx context.Context, collection, key string, old, next swap.Entry) (swap.Entry, error) {
	doc := t.records(collection).Doc(idOf(key))
	var err error
	switch {
	case next.Value == nil:
		_, err = doc.Delete(ctx, firestore.LastUpdateTime(old.At))
	case old.At.IsZero():
		_, err = doc.Create(ctx, fields(next))
	default:
		_, err = doc.Update(ctx, changes(next), firestore.LastUpdateTime(old.At))
	}
	switch status.Code(err) {
	case codes.OK:
		return next, nil
	case codes.AlreadyExists, codes.FailedPrecondition, codes.NotFound, codes.Aborted: // another came between
		return t.Read(ctx, collection, key)
	default:
		return swap.Entry{}, state.Down(ctx, err)
	}
}

// fields are those of a new document.
func fields(e swap.Entry) map[string]any {
	f := map[string]any{"value": e.Value, "mark": int64(e.Mark)}
	if !e.Due.IsZero() {
		f["due"] = e.Due
	}
	if !e.Expires.IsZero() {
		f["expires"] = e.Expires
	}
	return f
}

// changes are those that make any document that of e.
func changes(e swap.Entry) []firestore.Update {
	all := []firestore.Update{
		{Path: "value", Value: e.Value}, {Path: "mark", Value: int64(e.Mark)},
		{Path: "due", Value: firestore.Delete}, {Path: "expires", Value: firestore.Delete},
	}
	if !e.Due.IsZero() {
		all[2].Value = e.Due
	}
	if !e.Expires.IsZero() {
		all[3].Value = e.Expires
	}
	return all
}

var errForeign = errors.New("the document in Firestore was not written by this version of APSS; delete it, or give APSS a database of its own")

// entry is what a document is. One that has expired is none, but has its time: what comes next replaces it.
func entry(doc *firestore.DocumentSnapshot) (swap.Entry, error) {
	if !doc.Exists() {
		return swap.Entry{}, nil
	}
	var d document
	if err := doc.DataTo(&d); err != nil {
		return swap.Entry{}, fmt.Errorf("%w: %w", errForeign, err)
	}
	e := swap.Entry{At: doc.UpdateTime, Mark: uint64(d.Mark), Record: state.Record{Value: d.Value, Due: d.Due, Expires: d.Expires}}
	if e.Value == nil {
		e.Value = []byte{}
	}
	if e.Expired(time.Now()) {
		return swap.Entry{At: doc.UpdateTime}, nil
	}
	return e, nil
}
