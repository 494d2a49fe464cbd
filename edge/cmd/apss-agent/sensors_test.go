package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/shared/event"
)

func TestCover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		created := uint64(0)
		stats := func() process.Stats { return process.Stats{Created: created, Full: created} }
		var got []float64
		var full []uint64
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+15*time.Second)
		defer cancel()
		cover(ctx, stats, func() any { return "rules" }, func(e *event.Event) {
			if e.Type != event.AgentCoverage {
				t.Errorf("got a %s", e.Type)
			}
			if got := e.Metadata["rules"]; got != "rules" {
				t.Errorf("got %v of the rules", got)
			}
			got = append(got, e.Metadata["seconds"].(float64))
			full = append(full, e.Metadata["process"].(process.Coverage).Full)
			created += 7
		})
		if diff := cmp.Diff([]float64{60, 60, 15}, got); diff != "" {
			t.Errorf("seconds covered (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]uint64{0, 7, 7}, full); diff != "" {
			t.Errorf("processes in full (-want +got):\n%s", diff)
		}
	})
}
