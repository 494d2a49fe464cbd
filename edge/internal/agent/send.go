package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

// The pauses between two attempts to publish a message. The first success of any message ends the pauses of all.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 10 * time.Second
)

// sayAgain is the time between two log lines about the same trouble.
const sayAgain = time.Minute

// sending is what the senders of a lane have in common.
type sending struct {
	mu        sync.Mutex
	trouble   error // of the last attempt, nil after a success
	said      time.Time
	unsaid    int
	owed      bool          // trouble was said, and not yet that it is over
	recovered chan struct{} // closed and replaced when an attempt succeeds after one that did not
	observe   func(took time.Duration, err error)
}

// pump hands what is due in the spool to the senders.
func (l *lane) pump(ctx context.Context) {
	for {
		r, err := l.spool.Next(ctx)
		if err != nil {
			return
		}
		select {
		case l.jobs <- job{payload: r.Payload, items: r.Events, record: r}:
		case <-ctx.Done():
			l.spool.Release(r)
			return
		}
	}
}

func (l *lane) sender(ctx context.Context) {
	for {
		select {
		case j := <-l.jobs:
			l.send(ctx, j)
		case <-ctx.Done():
			return
		}
	}
}

// send publishes a message, however long it takes, and settles what becomes of it.
func (l *lane) send(ctx context.Context, j job) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = firstPause, maxPause, 2
	m, err := envelope.ParseMessage(j.payload)
	if err != nil { // its checksum was right: another version wrote it
		l.setAside(j, err)
		return
	}
	for {
		began := time.Now()
		err := l.publisher.Publish(ctx, m)
		o := outcome.From(err)
		switch {
		case o == nil:
			l.attempted(time.Since(began), nil)
			l.counts.confirmedMessages.Add(1)
			l.counts.confirmedItems.Add(int64(j.items))
			l.counts.confirmedBytes.Add(int64(len(m.Data)))
			if j.record != nil {
				l.spool.Confirm(j.record)
			}
			l.done(j.number)
			return
		case ctx.Err() != nil:
			l.giveBack(j)
			return
		case o.Class == outcome.Permanent:
			l.attempted(time.Since(began), err)
			l.setAside(j, err)
			return
		}
		recovered := l.attempted(time.Since(began), err)
		if errors.Is(err, publish.ErrGone) {
			l.gone(err)
		}
		pause := time.NewTimer(max(pauses.NextBackOff(), o.After))
		select {
		case <-pause.C:
		case <-recovered:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// setAside keeps a message that will never be accepted where a person finds it.
func (l *lane) setAside(j job, err error) {
	l.counts.refusedItems.Add(int64(j.items))
	kept := l.refused.Append(j.payload, j.items)
	l.log.Error("a message will never be accepted and is set aside", "events", j.items, "folder", l.c.Refused.Dir,
		"error", err, "not_kept_because", kept)
	if j.record != nil {
		l.spool.Confirm(j.record)
	}
	l.done(j.number)
}

// giveBack leaves a message that could not be sent to the next run.
func (l *lane) giveBack(j job) {
	if j.record != nil {
		l.spool.Release(j.record)
	} else if l.spool.Append(j.payload, j.items) != nil {
		l.counts.droppedAtEnd.Add(int64(j.items))
	}
	l.done(j.number)
}

// attempted notes how an attempt ended. It returns what is closed when the publisher is well again.
func (l *lane) attempted(took time.Duration, err error) <-chan struct{} {
	s := &l.sending
	if s.observe != nil {
		s.observe(took, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if s.trouble != nil {
			s.trouble = nil
			close(s.recovered)
			s.recovered = make(chan struct{})
			if s.owed { // at most as often as trouble is said
				s.owed = false
				l.log.Info("the publisher confirms again", "failures_since_last_said", s.unsaid)
			}
		}
		return s.recovered
	}
	l.counts.failures.Add(1)
	s.trouble = err
	if s.said.IsZero() || time.Since(s.said) >= sayAgain {
		l.log.Error("publishing; what is sealed waits in the spool", "error", err, "failures_since_last_said", s.unsaid)
		s.said, s.unsaid, s.owed = time.Now(), 0, true
	} else {
		s.unsaid++
	}
	return s.recovered
}

// publishing reports what keeps messages from being confirmed.
func (l *lane) publishing() error {
	l.sending.mu.Lock()
	defer l.sending.mu.Unlock()
	return l.sending.trouble
}
