package policy

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestDashboards(t *testing.T) {
	if faults := Dashboards(load(t, os.DirFS(repository))); len(faults) > 0 {
		t.Errorf("got\n%s", strings.Join(faults, "\n"))
	}
	for _, tt := range []struct{ file, from, to, want string }{
		{"infra/dashboards/apss.json", "apss_agent_spool_bytes", "apss_agent_spol_bytes", "there is no metric apss_agent_spol_bytes"},
		{"edge/internal/relay/metrics.go", `"apss.relay.conflicts"`, `"apss.relay.lies"`, "there is no metric apss_relay_conflicts_total"},
		{"edge/internal/agent/metrics.go", `gauge("spool.bytes"`, `gauge("spool.size"`, "there is no metric apss_agent_spool_bytes"},
		{"infra/dashboards/apss.json", "apss_", "sshd_", "asks for no metric of ours"},
	} {
		faults := Dashboards(load(t, mutated(t, tt.file, tt.from, tt.to)))
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, tt.want) }) {
			t.Errorf("%s with %q: got %q, want %q", tt.file, tt.to, faults, tt.want)
		}
	}
}
