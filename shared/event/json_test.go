package event_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// samples are events of every shape: full, generated, and with nothing in them.
func samples() map[string]*event.Event {
	m := map[string]*event.Event{
		"exec":    eventtest.Exec(),
		"file":    eventtest.FileModify(),
		"connect": eventtest.Connect(),
		"zero":    {},
		"empty parts": {
			Container: &event.Container{}, Process: &event.Process{Parent: &event.Ancestor{}},
			File: &event.File{Previous: &event.FileState{}}, Network: &event.Network{},
		},
		"largest numbers": {
			Severity:  event.Critical,
			Timestamp: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
			Process:   &event.Process{PID: 1<<31 - 1, UID: event.UnknownID, SessionID: event.UnknownID, ExeDeleted: true},
			File:      &event.File{FileState: event.FileState{Size: 1<<63 - 1}, Writers: []event.Writer{{Confidence: 0.30000000000000004}, {Confidence: 1e-9}}},
			Network:   &event.Network{SrcPort: 65535, DstPort: 65535, BytesSent: 1<<64 - 1, BytesReceived: 1<<64 - 1},
		},
		"smallest numbers": {
			Process: &event.Process{PID: -1 << 31, PPID: -1},
			File:    &event.File{FileState: event.FileState{Size: -1 << 63}},
		},
		"metadata": {Metadata: map[string]any{
			"s": "x", "b": true, "f": 1.5, "n": nil, "l": []any{"a", 1.0, nil}, "m": map[string]any{"k": "v", "empty": map[string]any{}},
		}},
	}
	for i, e := range eventtest.Many(300, 3) {
		m[fmt.Sprintf("generated %d", i)] = e
	}
	return m
}

func TestEventRoundTrip(t *testing.T) {
	for name, want := range samples() {
		got, err := event.Decode(want.AppendJSON(nil))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAlertRoundTrip(t *testing.T) {
	for name, want := range map[string]*event.Alert{"full": eventtest.Alert(), "zero": {EventIDs: []string{}}, "end": {EventIDs: []string{}, Resolved: true}} {
		got, err := event.DecodeAlert(want.AppendJSON(nil))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The hand-written encoder must say what the struct tags say.
func TestAppendJSONAgreesWithReflection(t *testing.T) {
	type members event.Event // without the methods
	for name, e := range samples() {
		want, err := json.Marshal((*members)(e), json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		compareJSON(t, name, want, e.AppendJSON(nil))
	}
	type alertMembers event.Alert
	a := eventtest.Alert()
	want, err := json.Marshal((*alertMembers)(a))
	if err != nil {
		t.Fatal(err)
	}
	compareJSON(t, "alert", want, a.AppendJSON(nil))
}

func compareJSON(t *testing.T, name string, want, got []byte) {
	t.Helper()
	if diff := cmp.Diff(canonical(t, want), canonical(t, got)); diff != "" {
		t.Errorf("%s (-reflection +AppendJSON):\n%s", name, diff)
	}
}

// canonical sorts members, and writes times as AppendJSON does: with all nine digits.
func canonical(t *testing.T, data []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v, json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, v *any) error {
		if d.PeekKind() != '"' && d.PeekKind() != '0' {
			return errors.ErrUnsupported
		}
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		*v = token.String() // numbers as text: a float64 would round them
		if token.Kind() == '0' && strings.ContainsAny(token.String(), ".eE") {
			*v, err = token.Float()
			return err
		}
		if at, err := time.Parse(time.RFC3339Nano, token.String()); err == nil {
			*v = at.Format("2006-01-02T15:04:05.000000000Z07:00")
		}
		return nil
	}))); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	out, err := json.Marshal(v, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestTimes(t *testing.T) {
	zone := time.FixedZone("east", 5*3600+1800)
	for _, tt := range []struct {
		time time.Time
		want string
	}{
		{time.Time{}, `"0001-01-01T00:00:00.000000000Z"`},
		{time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), `"2026-01-02T03:04:05.000000006Z"`},
		{time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, zone), `"2026-01-01T21:34:05.600000000Z"`},
		{time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.UTC), `"1969-12-31T23:59:59.999999999Z"`},
		{time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), `"9999-12-31T23:59:59.999999999Z"`},
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), `"9999-12-31T23:59:59.999999999Z"`},
		{time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), `"0000-01-01T00:00:00.000000000Z"`},
		{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), `"0000-01-01T00:00:00.000000000Z"`},
	} {
		e := event.Event{Timestamp: tt.time}
		if got := e.AppendJSON(nil); !bytes.Contains(got, []byte(`"timestamp":`+tt.want)) {
			t.Errorf("%v: got %s, want %s", tt.time, got, tt.want)
		}
	}
}

// A member of tomorrow must survive a part of today, wherever it stands.
func TestUnknownMembersSurvive(t *testing.T) {
	const wire = `{"id":"1","tomorrow":{"a":[1,{"b":null}]},"agent_id":"","type":"file_modify","severity":"LOW",` +
		`"timestamp":"2026-11-22T10:00:00Z","cluster":"","node_name":"","pod_name":"","pod_namespace":"","workload":"",` +
		`"container":{"id":"","name":"","image":"","digest":"sha256:1"},` +
		`"process":{"pid":1,"ppid":0,"exe":"","cmdline":"","cwd":"","uid":0,"user":"","login_uid":0,"session_id":0,"exe_deleted":false,"capture":"full","caps":12345678901234567890,` +
		`"parent":{"pid":1,"exe":"","cmdline":"","x":1},"ancestors":[{"pid":1,"exe":"","cmdline":"","y":"\u001b"}]},` +
		`"file":{"path":"/","operation":"modify","mode":"","uid":0,"gid":0,"size":0,"sha256":"","inode":7,` +
		`"previous":{"mode":"","uid":0,"gid":0,"size":0,"sha256":""}},` +
		`"network":{"protocol":"","direction":"","src_ip":"","src_port":0,"dst_ip":"","dst_port":0,"state":"","is_external":false,` +
		`"is_suspicious_port":false,"bytes_sent":0,"bytes_received":0,"sni":"example.org"},"zone":true}`
	e, err := event.Decode([]byte(wire))
	if err != nil {
		t.Fatal(err)
	}
	compareJSON(t, "event", []byte(wire), e.AppendJSON(nil))

	alert := bytes.TrimSuffix(eventtest.Alert().AppendJSON(nil), []byte("}}"))
	alert = append(alert, `,"runbook":"https://example.org/"},"assignee":null}`...)
	a, err := event.DecodeAlert(alert)
	if err != nil {
		t.Fatal(err)
	}
	compareJSON(t, "alert", alert, a.AppendJSON(nil))
}

func TestHostileStrings(t *testing.T) {
	for name, hostile := range map[string]string{
		"invalid UTF-8":         "a\xff\xfe\xc0\xafb\xed\xa0\x80",
		"cut rune":              "caf\xc3",
		"control characters":    "\x00\x01\b\f\n\r\t\v\x1f",
		"DEL":                   "\x7f",
		"C1 controls":           "\u0080\u009b31m",
		"line separators":       "a\u2028b\u2029c\u0085d",
		"terminal escapes":      "\x1b[2J\x1b]0;owned\x07\x1b[31m",
		"quotes":                `"},{"id":"forged"}\`,
		"HTML":                  "<script>&amp;</script>",
		"bidirectional control": "\u202egpj.exe",
		"128 KiB":               strings.Repeat("\x1b\xff\"é", 128<<10/5),
		"long and plain":        strings.Repeat("abcdefgh", 16<<10),
	} {
		t.Run(name, func(t *testing.T) {
			e := eventtest.Exec()
			e.ID, e.AgentID, e.PodName, e.Type = hostile, hostile, hostile, event.Type(hostile)
			e.Container.Image = hostile
			e.Process.Cmdline, e.Process.Args, e.Process.Capture = hostile, []string{hostile, "", hostile}, event.Capture(hostile)
			e.Process.Parent.Exe = hostile
			e.File = &event.File{Path: hostile, Diff: hostile, Writers: []event.Writer{{Exe: hostile}}}
			e.Network = &event.Network{DstIP: hostile}
			e.Rules = []string{hostile}
			e.Metadata = map[string]any{hostile: hostile, "list": []string{hostile}, "deep": map[string]any{"x": hostile}, "any": []any{hostile}, "reflective": struct{ S string }{hostile}}
			e.Process.Extra = extra(t, hostile)
			line := e.AppendJSON(nil)
			for i, c := range string(line) {
				if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == '\u2028' || c == '\u2029' {
					t.Fatalf("at byte %d the line has the control character %U", i, c)
				}
			}
			if !utf8.Valid(line) {
				t.Error("the line is not UTF-8")
			}
			if !jsontext.Value(line).IsValid() {
				t.Fatal("the line is not valid JSON")
			}
			got, err := event.Decode(line)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.ToValidUTF8(replaceEach(hostile), "\uFFFD"); got.Process.Cmdline != want {
				t.Errorf("got a command line of %d bytes, want %d: %.100q, %.100q", len(got.Process.Cmdline), len(want), got.Process.Cmdline, want)
			}
		})
	}
}

// extra is what a decoder could have left there of a foreign event, with whitespace and control characters as they came.
func extra(t *testing.T, s string) jsontext.Value {
	t.Helper()
	quoted, err := jsontext.AppendQuote(nil, s) // escapes what JSON demands and no more
	if err != nil && utf8.ValidString(s) {
		t.Fatal(err)
	}
	return jsontext.Value(" {\r\n\t\"x\" : [\n" + strings.ToValidUTF8(string(quoted), "\uFFFD") + "\n]\n} ")
}

// replaceEach writes U+FFFD for every invalid byte; strings.ToValidUTF8 would write one for a run of them.
func replaceEach(s string) string { return string([]rune(s)) }

// A value that JSON cannot hold must neither end the line nor go unseen.
func TestMetadataThatIsNoJSON(t *testing.T) {
	e := event.Event{Metadata: map[string]any{"c": make(chan int), "nan": math.NaN(), "ok": 1}}
	got, err := event.Decode(e.AppendJSON(nil))
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := got.Metadata["c"].(string); !strings.HasPrefix(s, "!") || got.Metadata["nan"] != nil || got.Metadata["ok"] != 1.0 {
		t.Errorf("got metadata %v, want an error text in c, nil in nan and 1 in ok", got.Metadata)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, in := range []string{
		``, `null`, `[]`, `"x"`, `{`, `{"id":1}`, `{"id":"1","id":"2"}`, "{\"id\":\"\xff\"}", `{"severity":"URGENT"}`,
		`{"timestamp":"yesterday"}`, `{"process":[]}`, `{"network":{"dst_port":65536}}`, `{"process":{"uid":-1}}`, `{} {}`,
	} {
		if e, err := event.Decode([]byte(in)); err == nil {
			t.Errorf("%q was accepted as %+v", in, e)
		}
		if in == `null` { // an alert without its event
			continue
		}
		if a, err := event.DecodeAlert([]byte(`{"event":` + in + `}`)); err == nil {
			t.Errorf("%q was accepted as an alert's event: %+v", in, a.Event)
		}
	}
}

func TestAppendJSONDoesNotAllocate(t *testing.T) {
	for name, e := range map[string]*event.Event{"exec": eventtest.Exec(), "file": eventtest.FileModify(), "connect": eventtest.Connect()} {
		buffer := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() { buffer = e.AppendJSON(buffer[:0]) }); n != 0 {
			t.Errorf("%s: got %v allocations, want none", name, n)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	var process, network *event.Event
	for _, e := range eventtest.Many(100, 7) {
		if e.Type == event.ProcessExec {
			process = e
		}
		if e.Type == event.NetworkConnect {
			network = e
		}
	}
	for _, bb := range []struct {
		name string
		e    *event.Event
	}{{"process", process}, {"network", network}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			buffer := make([]byte, 0, 8192)
			for b.Loop() {
				buffer = bb.e.AppendJSON(buffer[:0])
			}
			b.SetBytes(int64(len(buffer)))
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	line := eventtest.Connect().AppendJSON(nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := event.Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
