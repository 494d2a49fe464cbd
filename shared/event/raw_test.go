package event

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const anID = "0199f0a2-4e10-7c3d-9a61-2f6de0b1a901"

func TestRawID(t *testing.T) {
	for _, tt := range []struct {
		raw, want string // "" is an error
	}{
		{`{"id":"` + anID + `","agent_id":"a"}`, anID},
		{`{"id":"` + anID + `"}`, anID},
		{`{ "id" : "` + anID + `" }`, anID},
		{`{"type":"x","process":{"id":"no"},"id":"` + anID + `"}`, anID},
		{`{"id":"short"}`, "short"},
		{`{"\u0069d":"short"}`, "short"},
		{`{"id":"0199f0a2-4e10-7c3d-9a61-2f6de0\u0031"}`, "0199f0a2-4e10-7c3d-9a61-2f6de01"},
		{`{"id":"ABCDEFGH-4e10-7c3d-9a61-2f6de0b1a901"}`, "ABCDEFGH-4e10-7c3d-9a61-2f6de0b1a901"},
		{``, ""},
		{`{`, ""},
		{`{}`, ""},
		{`[]`, ""},
		{`{"id":""}`, ""},
		{`{"id":7}`, ""},
		{`{"id":null}`, ""},
		{`{"type":"x"}`, ""},
		{`{"id":"` + anID, ""},
		{`{"id":"` + anID[:35] + "\xff" + `"}`, ""},
		{`{"id":"` + anID[:35] + "\n" + `"}`, ""},
	} {
		got, err := Raw(tt.raw).ID()
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: got %q and error %v, want %q", tt.raw, got, err, tt.want)
		}
	}
}

// What the short way takes, the parser must take for the same.
func FuzzRawID(f *testing.F) {
	f.Add([]byte(`{"id":"` + anID + `","agent_id":"a"}`))
	f.Add([]byte(`{"id":"0199f0a2-4e10-7c3d-9a61-2f6de0\u0031"}`))
	f.Add([]byte(`{"a":{},"id":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		short, ok := Raw(data).leadingID()
		long, err := Raw(data).searchID()
		if ok && (err != nil || short != long) {
			t.Errorf("the short way read %q, the parser %q and error %v", short, long, err)
		}
		if err == nil && (long == "" || !utf8.ValidString(long)) {
			t.Errorf("got id %q without an error", long)
		}
	})
}

// What Decode takes must keep its meaning through AppendJSON, in one line.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"` + anID + `","severity":"high","timestamp":"2026-11-22T10:00:00.5+05:30","metadata":{"a":[1,null,{"b":1e300}]}}`))
	f.Add([]byte(`{"process":{"pid":7,"x":{"y":[1,` + "\n" + `2]},"parent":{"z":"` + "\x7f" + `"},"ancestors":[{}]}}`))
	f.Add([]byte(`{"file":{"path":"/","previous":{},"writers":[{"confidence":0.1}]},"network":{"dst_port":1},"container":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := Decode(data)
		if err != nil {
			return
		}
		line := first.AppendJSON(nil)
		if strings.ContainsAny(string(line), "\n\r\u2028\u2029\x7f\x1b") || !utf8.Valid(line) {
			t.Fatalf("not one harmless line: %q", line)
		}
		second, err := Decode(line)
		if err != nil {
			t.Fatalf("decoding %s: %v", line, err)
		}
		if again := second.AppendJSON(nil); string(again) != string(line) {
			t.Fatalf("got %s, then %s", line, again)
		}
		// Extra is compared as bytes above: whitespace in it may go. A year that RFC 3339 does not have gives way to the nearest.
		ignore := cmp.FilterPath(func(p cmp.Path) bool {
			name := p.Last().String()
			return name == ".Extra" || name == ".Timestamp" || name == ".StartTime"
		}, cmp.Ignore())
		if diff := cmp.Diff(first, second, ignore, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-first +second:\n%s", diff)
		}
	})
}
