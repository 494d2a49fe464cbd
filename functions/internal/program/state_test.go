package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/redis/redistest"
	"github.com/apss-sensor/apss/functions/internal/state/statetest"
)

func TestStateStoreSettings(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  []string
		want []string // what the error says; none when it is nil
	}{
		{"none", nil, nil},
		{"memory", []string{"STATE_STORE=memory"}, nil},
		{"redis", []string{"STATE_STORE=redis://10.0.0.3:6379/1"}, nil},
		{"redis with all", []string{"STATE_STORE=rediss://apss@redis.example/0", "STATE_STORE_PASSWORD=secret://projects/p/secrets/s/versions/latest"}, nil},
		{"a reference in the URL", []string{"STATE_STORE=rediss://:env%3A%2F%2FREDIS_PASSWORD@redis.example"}, nil},
		{"a password in a local run", []string{"APSS_LOCAL=true", "STATE_STORE=redis://:hunter2@127.0.0.1:6379"}, nil},
		{"a password", []string{"STATE_STORE=rediss://apss:hunter2@redis.example"}, []string{"STATE_STORE: a password is written here; keep it in Secret Manager"}},
		{"a password in its setting", []string{"STATE_STORE=rediss://redis.example", "STATE_STORE_PASSWORD=hunter2"}, []string{"a password is written here"}},
		{"two passwords", []string{"STATE_STORE=rediss://:env%3A%2F%2FA@redis.example", "STATE_STORE_PASSWORD=env://B"}, []string{"both here and in STATE_STORE_PASSWORD"}},
		{"a password of no kind", []string{"STATE_STORE=rediss://redis.example", "STATE_STORE_PASSWORD=vault://hunter2"}, []string{"the password: a secret reference of unknown scheme"}},
		{"a password for memory", []string{"STATE_STORE_PASSWORD=env://A"}, []string{"STATE_STORE_PASSWORD is for redis://"}},
		{"a password for Firestore", []string{"STATE_STORE=firestore://my-project", "STATE_STORE_PASSWORD=env://A"}, []string{"STATE_STORE_PASSWORD is for redis://"}},
		{"no URL", []string{"STATE_STORE=redis://:hunter2@a b%zz"}, []string{"STATE_STORE: want memory, rediss://"}},
		{"another scheme", []string{"STATE_STORE=etcd://me:hunter2@host"}, []string{"STATE_STORE: want memory, rediss://"}},
		{"wrong in several ways", []string{"STATE_STORE=redis://:x:y/-1?skip_verify=true&ca=b#f"},
			[]string{"STATE_STORE: want memory"}}, // no URL
		{"options", []string{"STATE_STORE=redis:///x?skip_verify=true&ca=b#f"},
			[]string{"there is no host", `the database "x" is no number`, `there is no option "skip_verify"`, "ca is for rediss://", "write it like rediss://host:6379/0"}},
		{"port", []string{"STATE_STORE=redis://host:70000"}, []string{`port "70000" is no number from 1 to 65535`}},
		{"certificates that are not there", []string{"STATE_STORE=rediss://host?ca=missing.pem"}, []string{"reading the certificates: open missing.pem"}},
		{"certificates that are none", []string{"STATE_STORE=rediss://host?ca=state_test.go"}, []string{"there is no certificate in state_test.go"}},
		{"Firestore", []string{"STATE_STORE=firestore://my-project/state"}, nil},
		{"Firestore, wrong", []string{"STATE_STORE=firestore://My/s?x=y"}, []string{`"My" is no project's id`, `"s" is no database's id`, "write it like firestore://project/database"}},
		{"misspelt", []string{"STATE_STORES=memory"}, []string{"did you mean STATE_STORE?"}},
		{"with the rest", []string{"STATE_STORE=x", "FORWARD_LINGER=2s"}, []string{"STATE_STORE: want", "FORWARD_LINGER"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
			t.Setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1") // the client asks for no credentials
			p, err := New(t.Context(), environ(tt.env...), "test", io.Discard)
			if err == nil {
				if err := p.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if (err != nil) != (tt.want != nil) || err != nil && !errors.Is(err, ErrSettings) {
				t.Fatalf("got %v, want faults %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the secret:\n%v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

// TestStateStore: two programs share what one of them keeps in Redis. When Redis goes they go on, and say so.
func TestStateStore(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	t.Setenv("APSS_TEST_REDIS_PASSWORD", "hunter2")
	server := redistest.Start(t, "--requirepass", "hunter2")
	proxy := statetest.NewProxy(t, "unix", server.Socket)
	var log bytes.Buffer
	start := func(log io.Writer) *Program {
		p, err := New(t.Context(), environ("STATE_STORE=redis://"+proxy.Address()+"/3", "STATE_STORE_PASSWORD=env://APSS_TEST_REDIS_PASSWORD"), "test", log)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b := start(&log), start(io.Discard)
	put := func(p *Program, key, value string) {
		t.Helper()
		err := p.state.Update(t.Context(), "c", key, func(r state.Record) (state.Record, error) {
			return state.Record{Value: append(r.Value, value...)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	down := func(p *Program) bool {
		since, _ := p.state.(*state.Fallback).Down()
		return !since.IsZero()
	}
	// A machine that is busy enough makes Redis look down for a second: then they try again with another record.
	for try := 0; ; try++ {
		key := fmt.Sprint("k", try)
		put(a, key, "a")
		put(b, key, "b")
		r, err := a.state.Get(t.Context(), "c", key)
		if err == nil && string(r.Value) == "ab" && !down(a) && !down(b) {
			break
		}
		if !down(a) && !down(b) || try == 100 {
			t.Fatalf("got %q and %v, want what both wrote", r.Value, err)
		}
		for n := 0; n < 100 && (down(a) || down(b)); n++ {
			put(a, "again", "")
			put(b, "again", "")
			<-time.After(100 * time.Millisecond)
		}
	}
	metrics := func(p *Program) string {
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
		return w.Body.String()
	}
	if got := line(metrics(a), "apss_state_down"); got != "apss_state_down 0" && !down(a) {
		t.Errorf("got %q, want it up", got)
	}
	proxy.Cut()
	put(a, "k", "c")
	if got := line(metrics(a), "apss_state_down"); got != "apss_state_down 1" {
		t.Errorf("got %q, want it down", got)
	}
	if !down(a) {
		t.Error("it is not said to be down")
	}
	for _, p := range []*Program{a, b} {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(log.String(), "the state store is down") || strings.Contains(log.String(), "hunter2") {
		t.Errorf("got the log\n%s\nwant it to say that the store is down, and no password", log.String())
	}
}

// line is the first of text that begins with prefix.
func line(text, prefix string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, prefix) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}
