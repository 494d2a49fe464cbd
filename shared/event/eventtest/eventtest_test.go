package eventtest_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func TestAllAreValid(t *testing.T) {
	for _, e := range append(eventtest.Many(2000, 1), eventtest.Exec(), eventtest.FileModify(), eventtest.Connect()) {
		if err := e.Validate(); err != nil {
			t.Errorf("%s %s: %v", e.Type, e.ID, err)
		}
	}
	if err := eventtest.Alert().Validate(); err != nil {
		t.Error(err)
	}
}

func TestManyIsOneNodesDay(t *testing.T) {
	events := eventtest.Many(5000, 1)
	if diff := cmp.Diff(events, eventtest.Many(5000, 1)); diff != "" {
		t.Errorf("the same seed gave others (-first +second):\n%s", diff)
	}
	if cmp.Equal(events[0], eventtest.Many(1, 2)[0]) {
		t.Error("another seed gave the same event")
	}
	var (
		ids   = map[string]bool{}
		pods  = map[string]bool{}
		types = map[event.Type]int{}
		last  = eventtest.Time()
		size  int
	)
	for _, e := range events {
		if e.Timestamp.Before(last) {
			t.Fatalf("event %s is of %v, after one of %v", e.ID, e.Timestamp, last)
		}
		last = e.Timestamp
		ids[e.ID], pods[e.PodName] = true, true
		types[e.Type]++
		size += len(e.AppendJSON(nil))
	}
	if len(ids) != len(events) {
		t.Errorf("got %d ids of %d events", len(ids), len(events))
	}
	if len(pods) != 9 {
		t.Errorf("got %d pods, want 9", len(pods))
	}
	for _, want := range []event.Type{event.ProcessExec, event.NetworkConnect, event.FileCreate, event.FileModify, event.FileDelete, event.FileChmod} {
		if types[want] == 0 {
			t.Errorf("got no %s in %v", want, types)
		}
	}
	// As large as real ones are: tiny events would make every figure look good.
	if mean := size / len(events); mean < 700 || mean > 1500 {
		t.Errorf("got a mean of %d bytes, want 700 to 1500", mean)
	}
}
