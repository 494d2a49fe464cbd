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
	s.complain("the spool's disk is in trouble; what cannot be stored goes on in memory", "doing", doing, "error", err)
}

func (s *Spool) healed() {
	if s.err == nil {
		return
	}
	s.err = nil
	if s.unsaid == 0 { // a disk that comes and goes is not said each time
		s.c.Logger.Info("the spool's disk takes records again", "dir", s.c.Dir)
	}
}

// complain logs at most once a minute.
func (s *Spool) complain(msg string, args ...any) {
	if now := time.Now(); s.said.IsZero() || now.Sub(s.said) >= sayAgain {
		s.c.Logger.Error(msg, append(args, "dir", s.c.Dir, "failures_since_last_said", s.unsaid)...)
		s.said, s.unsaid = now, 0
	}
}
