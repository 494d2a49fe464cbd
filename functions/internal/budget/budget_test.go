package budget

import (
	"sync"
	"testing"
)

func TestBudget(t *testing.T) {
	b := New(10)
	for _, tt := range []struct {
		take int64
		want bool
	}{{4, true}, {7, false}, {6, true}, {1, false}, {0, true}} {
		if got := b.Take(tt.take); got != tt.want {
			t.Errorf("Take(%d) with %d of 10 used: got %v, want %v", tt.take, b.Used(), got, tt.want)
		}
	}
	if b.Give(4); !b.Take(4) || b.Used() != 10 || b.Size() != 10 {
		t.Errorf("got %d of %d used, want all", b.Used(), b.Size())
	}
}

// TestShares: those who give nothing back leave room to everybody else, however many they are.
func TestShares(t *testing.T) {
	const size, piece = 1200, 10
	for hogs := 1; hogs <= 5; hogs++ {
		b := New(size)
		shares := make([]*Budget, hogs)
		for i := range shares {
			shares[i] = b.Share()
		}
		for took := true; took; { // in turns, until none gets more
			took = false
			for _, s := range shares {
				took = s.Take(piece) || took
			}
		}
		want := int64(size / (hogs + 1))
		for _, s := range shares {
			if got := s.Used(); got < want-piece || got > want+piece {
				t.Errorf("%d who keep all: one has %d, want about %d", hogs, got, want)
			}
		}
		if well := b.Share(); !well.Take(want - 2*piece) {
			t.Errorf("%d who keep all have %d of %d: nothing is left for another", hogs, b.Used(), size)
		} else if well.Give(want - 2*piece); well.Used() != 0 {
			t.Errorf("got %d used after all was given back", well.Used())
		}
		for _, s := range shares {
			s.Give(s.Used())
		}
		if b.Used() != 0 {
			t.Errorf("got %d used after all was given back, want 0", b.Used())
		}
	}
}

// TestAtOnce: shares together never take more than there is.
func TestAtOnce(t *testing.T) {
	const size = 100
	b := New(size)
	var wg sync.WaitGroup
	for range 8 {
		s := b.Share()
		wg.Go(func() {
			for range 1000 {
				if s.Take(9) {
					if used := b.Used(); used < 9 {
						t.Errorf("got %d used, want what is taken", used)
					}
					s.Give(9)
				}
			}
		})
	}
	wg.Wait()
	if b.Used() != 0 {
		t.Errorf("got %d used in the end, want 0", b.Used())
	}
}
