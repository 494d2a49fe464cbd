package statetest

import (
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

func due(t *testing.T, s state.Store) {
	t.Helper()
	at := base()
	for _, c := range []struct {
		key   string
		after time.Duration
	}{{"third", 30 * time.Second}, {"first", -2 * time.Hour}, {"fourth", 40 * time.Second}, {"second", 20 * time.Second}} {
		put(t, s, "c", c.key, state.Record{Value: []byte("v"), Due: at.Add(c.after)})
	}
	put(t, s, "c", "never", state.Record{Value: []byte("v")})
	wantKeys(t, keys(t, s, "c", at.Add(-3*time.Hour), 10))
	wantKeys(t, keys(t, s, "c", at, 10), "first")
	wantKeys(t, keys(t, s, "c", at.Add(30*time.Second), 10), "first", "second", "third") // due at that time is due
	wantKeys(t, keys(t, s, "c", at.Add(time.Minute), 2), "first", "second")
	wantKeys(t, keys(t, s, "c", at.Add(time.Minute), 10), "first", "second", "third", "fourth")
}

func dueMoves(t *testing.T, s state.Store) {
	t.Helper()
	at := base()
	put(t, s, "c", "a", state.Record{Value: []byte("v"), Due: at})
	put(t, s, "c", "b", state.Record{Value: []byte("v"), Due: at.Add(time.Second)})
	put(t, s, "c", "a", state.Record{Value: []byte("v"), Due: at.Add(time.Minute)})
	wantKeys(t, keys(t, s, "c", at.Add(2*time.Second), 10), "b")
	put(t, s, "c", "b", state.Record{Value: []byte("v")})
	wantKeys(t, keys(t, s, "c", at.Add(2*time.Second), 10))
	put(t, s, "c", "b", state.Record{Value: []byte("v"), Due: at})
	wantKeys(t, keys(t, s, "c", at.Add(time.Hour), 10), "b", "a")
}

func expires(t *testing.T, s state.Store) {
	t.Helper()
	soon := time.Now().Add(1500 * time.Millisecond)
	put(t, s, "c", "short", state.Record{Value: []byte("v"), Due: time.Unix(1, 0), Expires: soon})
	put(t, s, "c", "prolonged", state.Record{Value: []byte("v"), Expires: soon})
	put(t, s, "c", "prolonged", state.Record{Value: []byte("v"), Expires: base()})
	put(t, s, "c", "for ever", state.Record{Value: []byte("v"), Expires: soon})
	put(t, s, "c", "for ever", state.Record{Value: []byte("v")})
	put(t, s, "c", "over", state.Record{Value: []byte("v"), Due: time.Unix(1, 0), Expires: time.Now().Add(-time.Minute)})
	if get(t, s, "c", "over").Value != nil {
		t.Error("a record that has expired is there")
	}
	deadline := time.Now().Add(30 * time.Second)
	for get(t, s, "c", "short").Value != nil {
		if time.Now().After(deadline) {
			t.Fatal("the record does not expire")
		}
		<-time.After(50 * time.Millisecond) // the store's clock is not ours to set
	}
	if early := time.Until(soon); early > 0 {
		t.Errorf("the record expired %v early", early)
	}
	wantKeys(t, keys(t, s, "c", base(), 10))
	all := listed(t, s)
	if len(all) != 2 || all["prolonged"].Value == nil || all["for ever"].Value == nil {
		t.Errorf("got %v, want what was prolonged", all)
	}
	// It is gone for a change, too.
	err := s.Update(t.Context(), "c", "short", func(r state.Record) (state.Record, error) {
		wantRecord(t, r, state.Record{})
		return state.Record{Value: []byte("new")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, get(t, s, "c", "short"), state.Record{Value: []byte("new")})
}
