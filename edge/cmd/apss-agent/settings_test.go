package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

func TestDefaults(t *testing.T) {
	s, err := load([]string{"PUBSUB_PROJECT_ID=p", "PATH=/bin", "KUBERNETES_SERVICE_HOST=10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if s.EventsTopic != "apss-events" || s.SealAfter != 200*time.Millisecond || s.BufferEvents != 100_000 || len(s.watchPaths()) < 50 || len(s.readPaths()) < 10 || len(s.env()) < 10 || len(s.Mechanisms) != 3 || s.HashRedacted || len(s.SuspiciousPorts) != 9 {
		t.Errorf("got %+v, want the documented defaults", s)
	}
}

func TestListsThatAreOff(t *testing.T) {
	s, err := load([]string{"PUBLISHER=stdout", "READ_PATHS=off", "PROC_ENV=off", "WATCH_PATHS=/a,/b", "PROC_MECHANISMS=polling"})
	if err != nil {
		t.Fatal(err)
	}
	if s.readPaths() == nil || len(s.readPaths()) != 0 || s.env() == nil || len(s.env()) != 0 || len(s.watchPaths()) != 2 || len(s.Mechanisms) != 1 {
		t.Errorf("got read paths %q, variables %q, watched paths %q and mechanisms %q; want none of the first two, and no nil",
			s.readPaths(), s.env(), s.watchPaths(), s.Mechanisms)
	}
}

func TestEverythingWrongIsReportedAtOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		environ []string
		want    []string // the keys that are complained about, sorted
	}{
		{"no project", nil, []string{"PUBSUB_PROJECT_ID"}},
		{"stdout needs none", []string{"PUBLISHER=stdout"}, nil},
		{"relay", []string{"PUBLISHER=relay", "CONTROLLER_ENDPOINT=https://relay:8444"}, nil},
		{"relay without an address", []string{"PUBLISHER=relay", "RELAY_TOKEN_FILE=token"}, []string{"PUBLISHER", "RELAY_TOKEN_FILE"}},
		{"relay's service in the namespace", []string{"PUBLISHER=stdout", "RELAY_SERVICE_HOST=10.0.0.1", "RELAY_PORT=tcp://10.0.0.1:8444"}, nil},
		{"no window", []string{"PUBLISHER=stdout", "ALERT_WINDOW=0s"}, nil},
		{"unknown publisher", []string{"PUBLISHER=kafka"}, []string{"PUBLISHER"}},
		{"unknown key", []string{"PUBLISHER=stdout", "SPOOL_MAX_BITES=1"}, []string{"SPOOL_MAX_BITES"}},
		{"relative paths", []string{"PUBLISHER=stdout", "WATCH_PATHS=/etc,etc", "SPOOL_DIR=spool", "STATE_DIR=./x", "RULES_DIRS=/a,b"}, []string{"RULES_DIRS", "SPOOL_DIR", "STATE_DIR", "WATCH_PATHS"}},
		{"of the sensors", []string{"PUBLISHER=stdout", "WATCH_PATHS=/a[", "LOG_PATHS=var", "READ_PATHS=etc", "NO_DIFF=[", "PROC_ENV=A,B=C", "PROC_MECHANISMS=opens,ebpf", "HASH_REDACTED=perhaps"},
			[]string{"HASH_REDACTED", "LOG_PATHS", "NO_DIFF", "PROC_ENV", "PROC_MECHANISMS", "READ_PATHS", "WATCH_PATHS"}},
		{"almost one of the sensors'", []string{"PUBLISHER=stdout", "READ_PATH=/x", "PROC_MECHANISM=opens"}, []string{"PROC_MECHANISM", "READ_PATH"}},
		{"off", []string{"PUBLISHER=stdout", "LOG_PATHS=off", "READ_PATHS=off", "PROC_ENV=off"}, nil},
		{"segment against maximum", []string{"PUBLISHER=stdout", "SPOOL_SEGMENT_BYTES=67108864", "SPOOL_MAX_BYTES=67108864"}, []string{"SPOOL_ALERTS_MAX_BYTES", "SPOOL_MAX_BYTES"}},
		{"one topic for both", []string{"PUBSUB_PROJECT_ID=p", "EVENTS_TOPIC=x", "ALERTS_TOPIC=x"}, []string{"ALERTS_TOPIC"}},
		{"a namespace without pod", []string{"PUBLISHER=stdout", "POD_NAMESPACE=x"}, []string{"POD_NAMESPACE"}},
		{"a batch larger than the buffer", []string{"PUBLISHER=stdout", "SEAL_COUNT=1000", "BUFFER_EVENTS=500"}, []string{"SEAL_COUNT"}},
		{"port 0 and a bad address", []string{"PUBLISHER=stdout", "SUSPICIOUS_PORTS=1,0", "HTTP_ADDR=8080"}, []string{"HTTP_ADDR", "SUSPICIOUS_PORTS"}},
		{"not of their types", []string{"PUBLISHER=stdout", "SEAL_AFTER=200", "SEAL_COUNT=many", "SUSPICIOUS_PORTS=70000", "INTERNAL_NETS=10.0.0.0", "LOG_LEVEL=loud"},
			[]string{"INTERNAL_NETS", "LOG_LEVEL", "SEAL_AFTER", "SEAL_COUNT", "SUSPICIOUS_PORTS"}},
		{"out of range", []string{"PUBLISHER=stdout", "SEAL_AFTER=2m", "SEAL_COUNT=0", "SEAL_BYTES=1", "HEARTBEAT_INTERVAL=1ms", "DRAIN_TIMEOUT=-1s",
			"PROC_SCAN_INTERVAL=0s", "NET_SCAN_INTERVAL=1ms", "PUBLISH_IN_FLIGHT=0", "BUFFER_ALERTS=1", "BUFFER_BYTES=1048575", "SPOOL_SEGMENT_BYTES=1", "ALERT_WINDOW=25h"},
			[]string{"ALERT_WINDOW", "BUFFER_ALERTS", "BUFFER_BYTES", "DRAIN_TIMEOUT", "HEARTBEAT_INTERVAL", "NET_SCAN_INTERVAL", "PROC_SCAN_INTERVAL",
				"PUBLISH_IN_FLIGHT", "SEAL_AFTER", "SEAL_BYTES", "SEAL_COUNT", "SPOOL_SEGMENT_BYTES"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr bytes.Buffer
			_, err := load(c.environ)
			var got []string
			if err != nil {
				for line := range strings.Lines(err.Error()) {
					got = append(got, regexp.MustCompile(`[A-Z][A-Z_]+[A-Z]`).FindString(line))
				}
				// The command ends before it starts anything.
				if code := command(nil, c.environ, &stderr, &stderr); code != exitUsage {
					t.Errorf("exit code: got %d, want %d", code, exitUsage)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, slices.Compact(got)); diff != "" {
				t.Errorf("keys (-want +got):\n%s\nof: %v", diff, err)
			}
		})
	}
}

func TestHelpListsEverySetting(t *testing.T) {
	var out, errs bytes.Buffer
	if code := command([]string{"-help"}, nil, &out, &errs); code != exitOK {
		t.Fatalf("got exit code %d: %s", code, errs.String())
	}
	// The contract's names (DESIGN section 3) that are this program's.
	for key := range strings.FieldsSeq(`PUBLISHER SPOOL_DIR STATE_DIR CLUSTER_NAME NODE_NAME POD_NAME POD_NAMESPACE AGENT_ID
		PROC_SCAN_INTERVAL NET_SCAN_INTERVAL WATCH_PATHS LOG_PATHS READ_PATHS NO_DIFF PROC_ENV PROC_MECHANISMS HASH_REDACTED PUBSUB_PROJECT_ID PUBSUB_EMULATOR_HOST EVENTS_TOPIC ALERTS_TOPIC RULES_DIRS`) {
		if !regexp.MustCompile(`(?m)^  ` + key + ` +\S.*\S$`).MatchString(out.String()) {
			t.Errorf("%s is not explained in:\n%s", key, out.String())
		}
	}
	for key, value := range computed() {
		if !strings.Contains(out.String(), " ["+value+"]\n") {
			t.Errorf("the default of %s is not shown whole", key)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-x"}, {"spool"}, {"spool", "a", "b"}, {"run"}} {
		var out, errs bytes.Buffer
		if code := command(args, nil, &out, &errs); code != exitUsage || out.Len() > 0 || !strings.Contains(errs.String(), "-help") {
			t.Errorf("%q: got exit code %d, output %q, errors %q; want %d and a hint", args, code, out.String(), errs.String(), exitUsage)
		}
	}
}

func TestPrintSpool(t *testing.T) {
	dir := t.TempDir()
	write := func(folder string, m envelope.Message) {
		s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, folder), MaxBytes: 1 << 20, SegmentBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Append(m.AppendBinary(nil), 1); err != nil {
			t.Fatal(err)
		}
	}
	e := &event.Event{ID: event.NewID(), Type: event.ProcessExec}
	a := &event.Alert{ID: event.NewID(), RuleID: "R"}
	var b envelope.Batch
	b.Append(e)
	b.Append(e)
	write("events", b.Seal(envelope.Source{}, time.Now()))
	write("alerts", envelope.SealAlert(a, envelope.Source{}, time.Now()))
	var out, errs bytes.Buffer
	if code := command([]string{"spool", dir}, nil, &out, &errs); code != exitOK {
		t.Fatalf("got exit code %d: %s", code, errs.String())
	}
	line := string(e.AppendJSON(nil)) + "\n"
	if diff := cmp.Diff(string(a.AppendJSON(nil))+"\n"+line+line, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if code := command([]string{"spool", filepath.Join(dir, "none")}, nil, &out, &errs); code != exitFailed {
		t.Errorf("a missing folder: got exit code %d, want %d", code, exitFailed)
	}
	if err := os.WriteFile(filepath.Join(dir, "events", "foreign.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := command([]string{"spool", dir}, nil, &out, &errs); code != exitOK {
		t.Errorf("a foreign file: got exit code %d, want it passed over", code)
	}
}
