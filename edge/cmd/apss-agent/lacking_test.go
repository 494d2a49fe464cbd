package main

import (
	"strings"
	"testing"

	"github.com/apss-sensor/apss/edge/internal/tier"
)

func TestLacking(t *testing.T) {
	for _, test := range []struct {
		name string
		uid  int
		have []string
		want string
	}{
		{"another user", 65534, nil, "to look, run as root with CAP_SYS_ADMIN and CAP_SYS_PTRACE: "},
		{"root without one", 0, []string{"SYS_PTRACE"}, "to look, add CAP_SYS_ADMIN"},
		{"root with both", 0, []string{"SYS_ADMIN", "SYS_PTRACE"}, "no capability is missing"},
	} {
		v := tier.View{Capabilities: test.have}
		v.UID = test.uid
		if got := lacking(v, "to look", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"); !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want it to say %q", test.name, got, test.want)
		}
	}
}
