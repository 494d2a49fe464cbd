package firestore_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/firestore"
	"github.com/apss-sensor/apss/functions/internal/state/statetest"
)

// emulator is Google's, where the library looks for it.
const emulator = "FIRESTORE_EMULATOR_HOST"

// config is an empty database.
func config(tb testing.TB) firestore.Config {
	tb.Helper()
	if os.Getenv(emulator) == "" {
		tb.Skipf("SKIPPED: %s is not set; gcloud beta emulators firestore start --host-port=127.0.0.1:8086 starts the emulator", emulator)
	}
	return firestore.Config{Project: fmt.Sprintf("apss-%08x", rand.Uint32()), Database: "(default)"}
}

func open(tb testing.TB, c firestore.Config) *firestore.Store {
	tb.Helper()
	s, err := firestore.New(tb.Context(), c)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestSuite(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Store {
		t.Helper()
		return open(t, config(t))
	})
}

func TestShared(t *testing.T) {
	statetest.RunShared(t, func(t *testing.T) func() state.Store {
		t.Helper()
		c := config(t)
		return func() state.Store { return open(t, c) }
	})
}

func TestOutage(t *testing.T) {
	c := config(t)
	statetest.RunOutage(t, "tcp", os.Getenv(emulator), func(t *testing.T, address string) state.Store {
		t.Helper()
		t.Setenv(emulator, address)
		c.Timeout = time.Second // the library tries again until then
		return open(t, c)
	})
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		url               string
		project, database string
		faults            []string
	}{
		{"firestore://my-project/state", "my-project", "state", nil},
		{"firestore://my-project", "my-project", "(default)", nil},
		{"firestore://my-project/(default)", "my-project", "(default)", nil},
		{"firestore://", "", "", []string{`"" is no project's id`}},
		{"firestore://P/a/b", "", "", []string{`"P" is no project's id`, `"a/b" is no database's id`}},
		{"firestore://my-project/state?x=y", "", "", []string{"write it like"}},
		{"firestore://me@my-project/state", "", "", []string{"write it like"}},
	} {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		c, err := firestore.Parse(u)
		if (err != nil) != (tt.faults != nil) || err == nil && (c.Project != tt.project || c.Database != tt.database) {
			t.Errorf("%s: got %+v and %v", tt.url, c, err)
		}
		for _, want := range tt.faults {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", tt.url, err, want)
			}
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := open(b, config(b))
	defer s.Close()
	statetest.BenchmarkUpdate(b, s)
}

func BenchmarkGet(b *testing.B) {
	s := open(b, config(b))
	defer s.Close()
	statetest.BenchmarkGet(b, s)
}

func BenchmarkContended(b *testing.B) {
	s := open(b, config(b))
	defer s.Close()
	statetest.BenchmarkContended(b, s)
}
