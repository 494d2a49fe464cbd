package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/infra/local/internal/view"
)

const (
	drawEvery  = 500 * time.Millisecond
	lineEvery  = 5 * time.Second // without a terminal
	rateOver   = 4               // drawings
	askTimeout = 300 * time.Millisecond
	// wholeMessage is how many lines of a message are printed.
	wholeMessage = 40
	// Sooner than in the cloud, so that a person sees it.
	canaryEvery = 30 * time.Second
	heartbeat   = 5 * time.Second
	silence     = 20 * time.Second
)

// up runs the system and shows it until ctx ends, which is how it should end, or a program does.
func up(ctx context.Context, c system.Config, out *os.File) error {
	started := time.Now()
	c.CanaryEvery, c.Heartbeat, c.Silence = canaryEvery, heartbeat, silence
	s, err := system.Start(ctx, c, system.Watcher{})
	if err != nil {
		return err
	}
	err = s.StartAgent(ctx)
	if err == nil {
		err = show(ctx, s, out, started)
	}
	fmt.Fprintln(out, "ending ...")
	err = errors.Join(err, s.Stop(ctx))
	summary(out, s)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // Ctrl-C during the start
	}
	return err
}

// show returns the trouble that ended it, if any.
func show(ctx context.Context, s *system.System, out *os.File, started time.Time) error {
	var counts system.AgentCounts // as the agent said last
	look := func() view.State {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		now, err := s.AgentCounts(asking)
		if err == nil {
			counts = now
		}
		return view.Look(s, started, counts, err)
	}
	draw, every := lines(out), lineEvery
	if view.IsTerminal(out) {
		t := view.OpenTerminal(out)
		defer t.Close()
		draw, every = t.Draw, drawEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	states := []view.State{look()}
	for {
		states = append(states[max(0, len(states)-rateOver):], look())
		draw(states[0], states[len(states)-1])
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.Trouble():
			return err
		case <-tick.C:
		}
	}
}

// lines prints a frame's head once, and then a line for each change, and the newest alerts and messages.
func lines(out io.Writer) func(before, now view.State) {
	last := ""
	var told time.Time              // when the newest alert came that was printed
	shown := map[string]time.Time{} // by receiver: when the newest message changed that was printed
	return func(before, now view.State) {
		if last == "" {
			for _, line := range view.Head(now, view.Style{Width: 200}) {
				fmt.Fprintln(out, line)
			}
		}
		for _, r := range slices.Backward(now.Raised) {
			if r.At.After(told) {
				fmt.Fprintln(out, r.At.Format(time.TimeOnly), view.AlertLine(r))
				told = r.At
			}
		}
		for _, r := range now.Receivers {
			for _, m := range slices.Backward(r.Messages) {
				if !m.Changed.After(shown[r.Name]) {
					continue
				}
				shown[r.Name] = m.Changed
				fmt.Fprintln(out, now.At.Format(time.TimeOnly), r.Kind, "shows:")
				for _, line := range view.MessageText(m, wholeMessage) {
					fmt.Fprintln(out, "   ", line)
				}
			}
		}
		if line := view.Line(now); line != last {
			fmt.Fprintln(out, now.At.Format(time.TimeOnly), line)
			last = line
		}
	}
}

// summary leaves out what the agent counts: when it has drained it can no longer be asked.
func summary(out io.Writer, s *system.System) {
	b := s.Ledger.Totals()
	balance := "="
	if !b.Balanced() {
		balance = "≠"
	}
	fmt.Fprintf(out, "published %d %s delivered %d + dead letters %d + in flight %d; delivered twice %d\n",
		b.Published, balance, b.Delivered-b.Both, b.Dead, b.InFlight, b.DeliveredTwice)
	for _, r := range s.Receivers() {
		b := r.Balance()
		fmt.Fprintf(out, "alerts to %s: published %d, delivered %d, dead letters %d, waiting %d, twice %d\n",
			r.Kind, b.Published, b.Delivered, b.Dead, b.Waiting, b.Twice)
	}
}
