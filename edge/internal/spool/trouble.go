package spool

import (
	"fmt"
	"time"
)

// trouble is what keeps records from being stored: the spool's error until one is stored again.
func (s *Spool) trouble(doing string, err error) error {
	s.err = fmt.Errorf("%s in the spool: %w", doing, err)
	s.failed(doing, err)
	return s.err
}

// failed counts and says what the disk refused.
func (s *Spool) failed(doing string, err error) {
	s.stats.Failures++
	s.unsaid++
	if s.mayComplain() {
		s.c.Logger.Error("the spool's disk is in trouble; what cannot be stored goes on in memory",
			"dir", s.c.Dir, "doing", doing, "error", err, "failures_since_last_said", s.unsaid)
		s.unsaid, s.owed = 0, true
	}
}

func (s *Spool) healed() {
	if s.err == nil {
		return
	}
	s.err = nil
	if s.owed { // at most as often as trouble is said
		s.owed = false
		s.c.Logger.Info("the spool's disk takes records again", "dir", s.c.Dir)
	}
}

// mayComplain reports, once a minute, that it is time for a log line about trouble.
func (s *Spool) mayComplain() bool {
	now := time.Now()
	if !s.said.IsZero() && now.Sub(s.said) < sayAgain {
		return false
	}
	s.said = now
	return true
}
