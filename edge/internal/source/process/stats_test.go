package process

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCoverageSince(t *testing.T) {
	before := Stats{Created: 10, Full: 3, MissedAtMost: 4, Threads: 2}
	now := Stats{Created: 15, Full: 5, MissedAtMost: 3, Threads: 3, Twice: 2, Lost: 1, Mechanism: Opens, Refused: map[string]string{Connector: "why"}}
	want := Coverage{
		Mechanism: Opens, Refused: map[string]string{Connector: "why"}, Created: 5, Full: 2, Threads: 1, Twice: 2, Lost: 1,
	}
	if diff := cmp.Diff(want, now.CoverageSince(before)); diff != "" {
		t.Errorf("the difference differs (-want +got):\n%s", diff)
	}
	again := Stats{Created: 1, Full: 1}
	if diff := cmp.Diff(Coverage{Created: 1, Full: 1}, again.CoverageSince(now)); diff != "" {
		t.Errorf("after a new start it differs (-want +got):\n%s", diff)
	}
}
