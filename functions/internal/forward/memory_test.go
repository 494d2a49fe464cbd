package forward

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func marked(positions ...int) (m marks) {
	for _, p := range positions {
		m.set(p)
	}
	return m
}

func TestMarks(t *testing.T) {
	m := marked(0, 63, 64, 1000)
	for i := range 2000 {
		if want := i == 0 || i == 63 || i == 64 || i == 1000; m.has(i) != want {
			t.Errorf("%d: got %t, want %t", i, !want, want)
		}
	}
	if m.count() != 4 {
		t.Errorf("got %d, want 4", m.count())
	}
}

func TestMemory(t *testing.T) {
	var m memory
	now := time.Unix(0, 0)
	m.remember(now, "a", marked(1))
	m.remember(now, "a", marked(200))
	if diff := cmp.Diff(marked(1, 200), m.recall(now, "a")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := m.recall(now, "b"); got != nil {
		t.Errorf("got %v of a message that is not known", got)
	}
	if got := m.recall(now.Add(rememberFor+1), "a"); got != nil {
		t.Errorf("got %v after its time", got)
	}
	m.forget("a")
	if got := m.recall(now, "a"); got != nil {
		t.Errorf("got %v of a message that was forgotten", got)
	}
	m.remember(now, "", marked(1))
	m.remember(now, "c", nil)
	if m.order.Len() != 0 || len(m.known) != 0 {
		t.Errorf("%d messages are known by nothing", m.order.Len())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var m memory
	now := time.Unix(0, 0)
	dropped := 0
	for i := range maxRemembered + 10 {
		dropped += m.remember(now, fmt.Sprint(i), marked(1))
	}
	if m.order.Len() != maxRemembered || len(m.known) != maxRemembered || dropped != 10 {
		t.Errorf("got %d known, %d dropped, want %d, 10", m.order.Len(), dropped, maxRemembered)
	}
	if m.recall(now, "9") != nil || m.recall(now, "10") == nil {
		t.Error("it is not the oldest that gave way")
	}
	if dropped := m.remember(now.Add(rememberFor+1), "x", marked(1)); dropped != 0 || m.order.Len() != 1 {
		t.Errorf("got %d known, %d dropped, want what is over to go uncounted", m.order.Len(), dropped)
	}
}
