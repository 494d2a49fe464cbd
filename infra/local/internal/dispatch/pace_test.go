package dispatch

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	now := time.Unix(0, 0)
	p := newPace(5_000, maxPushBackoff)
	if p.size() < 1 || p.size() > 9 {
		t.Errorf("got a first window of %d, want a small single digit", p.size())
	}
	round := func() { // one round of answers, all good
		for range p.size() {
			p.success()
		}
	}
	for want := 2 * firstWindow; want <= 2048; want *= 2 {
		if round(); p.size() != want {
			t.Fatalf("got a window of %d, want it to double to %d", p.size(), want)
		}
	}
	for p.size() < linearFrom {
		p.success()
	}
	if round(); p.size() > linearFrom+1 {
		t.Errorf("got a window of %d after a round at %d, want one more", p.size(), linearFrom)
	}
	before := p.size()
	if p.failure(now); p.size() != before/2 {
		t.Errorf("got a window of %d after a failure at %d, want half of it", p.size(), before)
	}
	for range 100 {
		p.failure(now)
	}
	if p.size() != 1 {
		t.Errorf("got a window of %d after failures only, want 1", p.size())
	}
	small := newPace(10, maxPushBackoff)
	for range 100 {
		small.success()
	}
	if small.size() != 10 {
		t.Errorf("got a window of %d, want its limit, 10", small.size())
	}
}

func TestPushBackoff(t *testing.T) {
	now := time.Unix(0, 0)
	p := newPace(100, maxPushBackoff)
	for range tolerated {
		p.failure(now)
	}
	if now.Before(p.until) {
		t.Fatalf("got a stop after %d failures, want none yet", tolerated)
	}
	for want := minPushBackoff; want < maxPushBackoff; want *= 2 {
		p.failure(now)
		if got := p.until.Sub(now); got != want {
			t.Fatalf("got a stop of %v, want %v", got, want)
		}
		p.failure(now) // one that was out already
		if got := p.until.Sub(now); got != want {
			t.Fatalf("got a stop of %v after a failure during it, want %v still", got, want)
		}
		now = p.until
	}
	p.failure(now)
	if got := p.until.Sub(now); got != maxPushBackoff {
		t.Errorf("got a stop of %v, want %v at most", got, maxPushBackoff)
	}
	now = p.until
	p.success()
	for range 2 {
		p.failure(now)
	}
	if got := p.until.Sub(now); got != minPushBackoff {
		t.Errorf("got a stop of %v after a success, want %v", got, minPushBackoff)
	}
}

func TestRetryDelay(t *testing.T) {
	tests := []struct {
		min, max time.Duration
		attempt  int
		from, to time.Duration
	}{
		{0, 0, 1, 0, 0},
		{0, 600 * time.Second, 9, 0, 0},
		{10 * time.Second, 600 * time.Second, 1, 10 * time.Second, 11 * time.Second},
		{10 * time.Second, 600 * time.Second, 3, 40 * time.Second, 44 * time.Second},
		{10 * time.Second, 600 * time.Second, 100, 600 * time.Second, 600 * time.Second},
		{7 * time.Second, 7 * time.Second, 5, 7 * time.Second, 7 * time.Second},
	}
	for _, tt := range tests {
		for range 100 {
			got := Subscription{MinBackoff: tt.min, MaxBackoff: tt.max}.retryDelay(tt.attempt)
			if got < tt.from || got > tt.to {
				t.Fatalf("retryDelay of %v to %v, attempt %d: got %v, want %v to %v", tt.min, tt.max, tt.attempt, got, tt.from, tt.to)
			}
		}
	}
}
