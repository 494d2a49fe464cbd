package envelope_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func TestMessagesAsBytes(t *testing.T) {
	many := map[string]string{}
	for i := range 200 {
		many[strings.Repeat("k", i)] = strings.Repeat("v", 3*i)
	}
	for name, want := range map[string]envelope.Message{
		"zero":       {},
		"data":       {Data: []byte("x")},
		"attributes": {Attributes: map[string]string{"b": "2", "a": "1", "": "", "c\x00": "\xff"}},
		"many":       {Data: bytes.Repeat([]byte("x"), 1<<12), Attributes: many},
		"events":     seal(eventtest.Many(100, 1)...),
		"alert":      envelope.SealAlert(eventtest.Alert(), source, noon),
	} {
		b := want.AppendBinary([]byte("before"))
		if !bytes.HasPrefix(b, []byte("before")) {
			t.Errorf("%s: AppendBinary changed what was there", name)
		}
		b = b[len("before"):]
		if again := want.AppendBinary(nil); !bytes.Equal(b, again) {
			t.Errorf("%s: the same message gave other bytes", name)
		}
		got, err := envelope.ParseMessage(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestBytesThatAreNoMessage(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", "cut off"},
		{"version 0", "\x00\x00\x00", "version 0, want 1"},
		{"version 2", "\x02\x00\x00", "version 2, want 1"},
		{"no data", "\x01\x00", "cut off"},
		{"more behind it", "\x01\x00\x00x", "1 bytes left over"},
		{"a name without value", "\x01\x01\x01a", "cut off"},
		{"names in another order", "\x01\x02\x01b\x00\x01a\x00\x00", `"a" comes after "b"`},
		{"a name twice", "\x01\x02\x01a\x00\x01a\x00\x00", `"a" comes after "a"`},
		{"more attributes than bytes", "\x01\xff\xff\xff\xff\x0f", "cut off"},
		{"a number without end", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "cut off"},
		{"the largest number", "\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut off"},
	} {
		if m, err := envelope.ParseMessage([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one with %q", tt.name, m, err, tt.want)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("\x01\x02\x01a\x011\x01b\x00\x02{}"))
	f.Add([]byte("\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := envelope.ParseMessage(data)
		if err != nil {
			return
		}
		again, err := envelope.ParseMessage(m.AppendBinary(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-first +second:\n%s", diff)
		}
	})
}

func FuzzEvents(f *testing.F) {
	lines := ndjson(eventtest.Many(3, 1))
	f.Add(lines, uint8(0))
	f.Add(zstdFrame(f, lines), uint8(1))
	f.Add(zstdStream(f, lines), uint8(1))
	f.Add(gzipMember(f, lines), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, encoding uint8) {
		name := []string{"", "zstd", "gzip"}[encoding%3]
		events, err := message(name, data).Events(nil)
		checkOpened(t, events, err)
	})
}
