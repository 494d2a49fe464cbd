package setting

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHelp(t *testing.T) {
	var got strings.Builder
	err := Help(&got, struct {
		Paths []string          `env:"WATCH_PATHS" help:"what is watched"`
		Wait  time.Duration     `env:"WAIT, default=1s" help:"how long"`
		Env   map[string]string `env:"ENV, delimiter=;, separator==" help:"NAME=value;NAME=value"`
	}{}, map[string]string{"WATCH_PATHS": "/etc"})
	want := `  WATCH_PATHS  what is watched [/etc]
  WAIT         how long [1s]
  ENV          NAME=value;NAME=value
`
	if err != nil || got.String() != want {
		t.Errorf("got %v, difference %s", err, cmp.Diff(want, got.String()))
	}
}
