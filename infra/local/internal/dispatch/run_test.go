package dispatch

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scene is a source of n messages and a transport whose requests stay open until released.
type scene struct {
	*Dispatcher
	release chan int // a status for one request
	left    int
	mu      sync.Mutex
	done    []string
	stop    func()
}

func newScene(t *testing.T, n int, o Options) *scene {
	t.Helper()
	s := &scene{release: make(chan int), left: n}
	o.Transport, o.Log = s, slog.New(slog.DiscardHandler)
	d, err := New(Subscription{Name: "projects/p/subscriptions/s", Endpoint: "http://x.test", AckDeadline: time.Hour}, s, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	s.Dispatcher = d
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	s.stop = func() { cancel(); running.Wait() }
	t.Cleanup(s.stop)
	synctest.Wait()
	return s
}

func (s *scene) Receive(ctx context.Context, limit int) ([]Message, error) {
	if s.left == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n := min(s.left, limit)
	s.left -= n
	return make([]Message, n), nil
}

func (s *scene) Done(_ context.Context, lease string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, lease)
	return nil
}

func (s *scene) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case code := <-s.release:
		return &http.Response{StatusCode: code, Body: http.NoBody}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (s *scene) answer(codes ...int) {
	for _, code := range codes {
		s.release <- code
	}
	synctest.Wait()
}

func TestRequestsAtOnceFollowTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, 100, Options{MaxInFlight: 30})
		for _, want := range []int{4, 8, 16, 30, 30} {
			if got := s.Stats(); got.InFlight != want || got.Window != want {
				t.Fatalf("got %d requests in flight and a window of %d, want %d", got.InFlight, got.Window, want)
			}
			s.answer(slices.Repeat([]int{200}, want)...)
		}
		s.answer(503, 503, 503)
		if got := s.Stats(); got.Window != 3 {
			t.Errorf("got a window of %d after three failures at 30, want 3", got.Window)
		}
	})
}

func TestHeldMessagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, 1000, Options{MaxHeld: 10})
		if got := s.Stats(); got.Held != 10 || got.Received != 10 {
			t.Fatalf("got %d held of %d received, want 10", got.Held, got.Received)
		}
		s.answer(200, 200)
		if got := s.Stats(); got.Held != 10 || got.Received != 12 {
			t.Errorf("got %d held of %d received after two were done, want 10 of 12", got.Held, got.Received)
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, 100, Options{})
		s.Pause()
		s.answer(200, 200, 200, 200)
		if got := s.Stats(); !got.Paused || got.InFlight != 0 || got.Acked != 4 {
			t.Errorf("got %+v while paused, want 4 acked and nothing in flight", got)
		}
		s.Resume()
		synctest.Wait()
		if got := s.Stats(); got.Paused || got.InFlight == 0 {
			t.Errorf("got %+v after the pause, want requests in flight", got)
		}
	})
}

func TestShutdown(t *testing.T) {
	tests := []struct {
		name string
		end  func(s *scene)
		want int // acknowledged of 4 in flight
		took time.Duration
	}{
		{"requests in flight end", func(s *scene) { s.answer(200, 200, 200, 200) }, 4, 0},
		{"what does not end within the grace stays with the source", func(s *scene) { s.answer(200) }, 1, 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, 100, Options{})
				start := time.Now()
				var ended sync.WaitGroup
				ended.Go(s.stop)
				synctest.Wait()
				tt.end(s)
				ended.Wait()
				if got := s.Stats(); len(s.done) != tt.want || got.InFlight != 0 || got.Requests != 4 || got.Held != 100-tt.want {
					t.Errorf("got %d done and %+v, want %d done of 4 requests", len(s.done), got, tt.want)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("got an end after %v, want %v", took, tt.took)
				}
			})
		})
	}
}
