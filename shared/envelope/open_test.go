package envelope_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func message(encoding string, data []byte) envelope.Message {
	return envelope.Message{Data: data, Attributes: map[string]string{"ce-type": envelope.TypeEvents, "content-encoding": encoding}}
}

// zstdFrame is a frame that states its size, as EncodeAll writes it; zstdStream is one that does not, as a stream is.
func zstdFrame(tb testing.TB, data []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true))
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func zstdStream(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		tb.Fatal(err)
	}
	for len(data) > 0 { // in parts: a single write could know its size
		n := min(len(data), 1000)
		if _, err := w.Write(data[:n]); err != nil {
			tb.Fatal(err)
		}
		data = data[n:]
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func gzipMember(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestEncodings(t *testing.T) {
	lines := ndjson(eventtest.Many(50, 1))
	half := len(lines) / 2
	for _, tt := range []struct {
		name, encoding string
		data           []byte
	}{
		{"zstd", "zstd", zstdFrame(t, lines)},
		{"ZSTD", "ZSTD", zstdFrame(t, lines)},
		{"zstd, size not said", "zstd", zstdStream(t, lines)},
		{"zstd, two frames", "zstd", append(zstdFrame(t, lines[:half]), zstdFrame(t, lines[half:])...)},
		{"zstd, an empty frame first", "zstd", append(zstdFrame(t, nil), zstdFrame(t, lines)...)},
		{"zstd, a skippable frame first", "zstd", append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}, zstdFrame(t, lines)...)},
		{"gzip", "gzip", gzipMember(t, lines)},
		{"x-gzip", "X-Gzip", gzipMember(t, lines)},
		{"gzip, two members", "gzip", append(gzipMember(t, lines[:half]), gzipMember(t, lines[half:])...)},
		{"gzip, an empty member last", "gzip", append(gzipMember(t, lines), gzipMember(t, nil)...)},
		{"none", "none", lines},
		{"identity", "Identity", lines},
		{"not said", "", lines},
		{"no last newline", "", bytes.TrimSuffix(lines, []byte("\n"))},
		{"CRLF", "", bytes.ReplaceAll(lines, []byte("\n"), []byte("\r\n"))},
		{"blank lines", "", append([]byte("\n \r\n\t\n"), bytes.ReplaceAll(lines, []byte("\n"), []byte("\n\n"))...)},
	} {
		before := bytes.Clone(tt.data)
		got, err := message(tt.encoding, tt.data).Events(nil)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var again []byte
		for _, raw := range got {
			again = append(append(again, raw...), '\n')
		}
		if diff := cmp.Diff(string(lines), string(again)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if len(got) > 0 {
			got[0][0] = 'X'
			_ = append(got[0], "overwrites its neighbour"...)
			if got[1][0] != '{' || !bytes.Equal(tt.data, before) {
				t.Errorf("%s: the events share memory with each other or with the message", tt.name)
			}
		}
	}
}

func TestBadLines(t *testing.T) {
	good, other := `{"id":"1"}`, `{"id":"2"}`
	for _, tt := range []struct {
		name, data string
		good       []string
		bad        []int // numbers of the bad lines
		total      int
		reason     string // part of the first one
	}{
		{"text", good + "\nhello\n" + other, []string{good, other}, []int{2}, 3, "starts with 'h'"},
		{"cut", good + "\n" + `{"id":"`, []string{good}, []int{2}, 2, "unexpected EOF"},
		{"array", "[]\n" + good, []string{good}, []int{1}, 2, "starts with '['"},
		{"two on a line", good + "\n\n" + good + other, []string{good}, []int{2}, 2, "after"},
		{"duplicate member", `{"id":"1","id":"2"}` + "\n" + good, []string{good}, []int{1}, 2, "duplicate"},
		{"invalid UTF-8", good + "\n{\"id\":\"\xff\"}", []string{good}, []int{2}, 2, "UTF-8"},
		{"many", strings.Repeat("x\n", 5) + good, []string{good}, []int{1, 2, 3, 4, 5}, 6, "starts with 'x'"},
	} {
		kept := event.Raw("kept")
		got, err := message("", []byte(tt.data)).Events([]event.Raw{kept})
		var lines *envelope.LineError
		if !errors.As(err, &lines) || !errors.Is(err, envelope.ErrCorrupt) {
			t.Errorf("%s: got error %v, want a LineError that is ErrCorrupt", tt.name, err)
			continue
		}
		var texts []string
		for _, raw := range got {
			texts = append(texts, string(raw))
		}
		if diff := cmp.Diff(append([]string{"kept"}, tt.good...), texts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		var numbers []int
		for _, l := range lines.Lines {
			numbers = append(numbers, l.Number)
			if len(l.Data) == 0 || !strings.Contains(tt.data, string(l.Data)) {
				t.Errorf("%s: line %d is %q", tt.name, l.Number, l.Data)
			}
		}
		if diff := cmp.Diff(tt.bad, numbers); diff != "" || lines.Total != tt.total {
			t.Errorf("%s: got %d lines in all, want %d; bad ones (-want +got):\n%s", tt.name, lines.Total, tt.total, diff)
		}
		if !strings.Contains(lines.Lines[0].Reason, tt.reason) || !strings.Contains(err.Error(), tt.reason) || len(err.Error()) > 500 {
			t.Errorf("%s: got reason %q and error %q, want %q in both", tt.name, lines.Lines[0].Reason, err, tt.reason)
		}
	}
}

func TestRefusedMessages(t *testing.T) {
	lines := ndjson(eventtest.Many(20, 1))
	flipped := zstdFrame(t, lines)
	flipped[len(flipped)/2] ^= 0x10
	lying := gzipMember(t, lines)
	binary.LittleEndian.PutUint32(lying[len(lying)-4:], 1<<30)
	full := bytes.Repeat([]byte("{}\n"), envelope.MaxEvents)
	for _, tt := range []struct {
		name string
		m    envelope.Message
		want error
		text string
	}{
		{"no attributes", envelope.Message{Data: lines}, envelope.ErrType, `""`},
		{"an alert", envelope.SealAlert(eventtest.Alert(), source, noon), envelope.ErrType, `"apss.alert.v1"`},
		{"unknown encoding", message("br", lines), envelope.ErrEncoding, `"br"`},
		{"no data", message("zstd", nil), envelope.ErrCorrupt, "no data"},
		{"no event", message("", []byte("\n \n")), envelope.ErrCorrupt, "no event"},
		{"not one event", message("", []byte("hello\nworld")), envelope.ErrCorrupt, "none of its 2 lines"},
		{"plain, said to be zstd", message("zstd", lines), envelope.ErrCorrupt, "zstd"},
		{"plain, said to be gzip", message("gzip", lines), envelope.ErrCorrupt, "gzip"},
		{"zstd, said to be plain", message("", zstdFrame(t, lines)), envelope.ErrCorrupt, "none of its"},
		{"flipped bit", message("zstd", flipped), envelope.ErrCorrupt, "zstd"},
		{"garbage behind", message("zstd", append(zstdFrame(t, lines), "garbage"...)), envelope.ErrCorrupt, "zstd"},
		{"gzip that lies about its size", message("gzip", lying), envelope.ErrCorrupt, "gzip"},
		{"needs a dictionary", message("zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x07, 0x01, 0x01, 0x00, 0x00, 'x'}), envelope.ErrCorrupt, "zstd"},
		{"an event too many", message("", append(full, "{}"...)), envelope.ErrTooLarge, "10000 events"},
		{"plain, a byte too many", message("", make([]byte, envelope.MaxUnpacked+1)), envelope.ErrTooLarge, "more than"},
		{"zstd, a byte too many", message("zstd", zstdFrame(t, make([]byte, envelope.MaxUnpacked+1))), envelope.ErrTooLarge, "more than"},
		{"zstd, not said, a byte too many", message("zstd", zstdStream(t, make([]byte, envelope.MaxUnpacked+1))), envelope.ErrTooLarge, "more than"},
		{"gzip, a byte too many", message("gzip", gzipMember(t, make([]byte, envelope.MaxUnpacked+1))), envelope.ErrTooLarge, "more than"},
	} {
		got, err := tt.m.Events([]event.Raw{event.Raw("kept")})
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got error %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
		if len(got) != 1 || string(got[0]) != "kept" {
			t.Errorf("%s: got %d events, want only what was there before", tt.name, len(got))
		}
	}
	if got, err := message("", full).Events(nil); err != nil || len(got) != envelope.MaxEvents {
		t.Errorf("got %d events and error %v, want %d", len(got), err, envelope.MaxEvents)
	}
}

func TestLargestMessage(t *testing.T) {
	largest := append([]byte(`{"id":"`), bytes.Repeat([]byte("x"), envelope.MaxUnpacked-len(`{"id":""}`))...)
	largest = append(largest, `"}`...)
	for name, m := range map[string]envelope.Message{
		"plain": message("", largest), "gzip": message("gzip", gzipMember(t, largest)),
		"zstd": message("zstd", zstdFrame(t, largest)), "zstd, not said": message("zstd", zstdStream(t, largest)),
	} {
		if got, err := m.Events(nil); err != nil || len(got) != 1 || len(got[0]) != envelope.MaxUnpacked {
			t.Errorf("%s: got %d events and error %v, want the one", name, len(got), err)
		}
	}
}

func TestTruncatedMessages(t *testing.T) {
	lines := ndjson(eventtest.Many(10, 1))
	for encoding, data := range map[string][]byte{"zstd": zstdFrame(t, lines), "gzip": gzipMember(t, lines)} {
		for n := range data {
			if got, err := message(encoding, data[:n]).Events(nil); !errors.Is(err, envelope.ErrCorrupt) && !errors.Is(err, envelope.ErrTooLarge) || got != nil {
				t.Fatalf("%s, %d of %d bytes: got %d events and error %v", encoding, n, len(data), len(got), err)
			}
		}
	}
}

func TestForeignAlerts(t *testing.T) {
	attributes := map[string]string{"ce-type": envelope.TypeAlert, "content-encoding": "gzip"}
	want := eventtest.Alert()
	got, err := envelope.Message{Data: gzipMember(t, want.AppendJSON(nil)), Attributes: attributes}.Alert()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alert (-want +got):\n%s", diff)
	}
	if _, err := seal(newEvent("", 0)).Alert(); !errors.Is(err, envelope.ErrType) {
		t.Errorf("events: got %v, want %v", err, envelope.ErrType)
	}
	if _, err := (envelope.Message{Data: gzipMember(t, []byte(`{"id":7}`)), Attributes: attributes}).Alert(); !errors.Is(err, envelope.ErrCorrupt) {
		t.Errorf("not an alert: got %v, want %v", err, envelope.ErrCorrupt)
	}
	attributes["content-encoding"] = "br"
	if _, err := (envelope.Message{Data: []byte(`{}`), Attributes: attributes}).Alert(); !errors.Is(err, envelope.ErrEncoding) {
		t.Errorf("unknown encoding: got %v, want %v", err, envelope.ErrEncoding)
	}
}

// TestAlertsShareNoMemory: of a message that is not compressed, too.
func TestAlertsShareNoMemory(t *testing.T) {
	want := eventtest.Alert()
	want.Extra, want.Metadata.Extra = jsontext.Value(`{"new":"member"}`), jsontext.Value(`{"new":[1,2]}`)
	want.Event.Extra, want.Event.Metadata = jsontext.Value(`{"new":{"a":null}}`), map[string]any{"list": []any{"of", "values"}}
	data := want.AppendJSON(nil)
	got, err := envelope.Message{Data: data, Attributes: map[string]string{"ce-type": envelope.TypeAlert}}.Alert()
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] = 'X'
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alert, once its message was written over (-want +got):\n%s", diff)
	}
}

// checkOpened checks what holds for every message, whatever its bytes are.
func checkOpened(t *testing.T, events []event.Raw, err error) {
	t.Helper()
	var lines *envelope.LineError
	switch {
	case err == nil && len(events) == 0:
		t.Error("got neither an event nor an error")
	case errors.As(err, &lines):
		if len(events) == 0 || len(lines.Lines) == 0 || len(events)+len(lines.Lines) != lines.Total {
			t.Errorf("got %d events and %d bad lines of %d in all", len(events), len(lines.Lines), lines.Total)
		}
	case err != nil:
		if len(events) != 0 || !errors.Is(err, envelope.ErrCorrupt) && !errors.Is(err, envelope.ErrTooLarge) {
			t.Errorf("got %d events and error %v", len(events), err)
		}
	}
	size := 0
	for _, raw := range events {
		if !jsontext.Value(raw).IsValid() || jsontext.Value(raw).Kind() != '{' || bytes.IndexByte(raw, '\n') >= 0 {
			t.Errorf("%q is no event", raw)
		}
		size += len(raw)
	}
	if size > envelope.MaxUnpacked || len(events) > envelope.MaxEvents {
		t.Errorf("got %d events of %d bytes", len(events), size)
	}
}

// zeros is a zstd frame of 10 GiB of zeros: an RLE block of four bytes stands for 128 KiB (RFC 8878 section 3.1.1.2).
// The header claims size, or does not say when size is 0.
func zeros(size uint64) []byte {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd}
	const window = 0x38 // 128 KiB
	if size == 0 {
		frame = append(frame, 0x00, window)
	} else {
		frame = binary.LittleEndian.AppendUint64(append(frame, 0xc0, window), size)
	}
	const blocks = 10 << 30 / (128 << 10)
	for i := range uint32(blocks) {
		header := uint32(128<<10)<<3 | 1<<1
		if i == blocks-1 {
			header |= 1
		}
		frame = append(frame, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return frame
}

// Memory is bounded by what is accepted, whatever a message claims or turns out to hold.
func TestBombs(t *testing.T) {
	const (
		small = 1 << 20 // for the decoders of a first use
		once  = envelope.MaxUnpacked + small
	)
	for _, tt := range []struct {
		name string
		m    envelope.Message
		want error
		most uint64 // bytes allocated, garbage included
	}{
		{"zstd that says so", message("zstd", zeros(10<<30)), envelope.ErrTooLarge, small},
		{"zstd that does not say", message("zstd", zeros(0)), envelope.ErrTooLarge, small},
		{"zstd that says 1 KiB", message("zstd", zeros(1<<10)), envelope.ErrCorrupt, small},
		{"zstd that says the most accepted", message("zstd", zeros(envelope.MaxUnpacked)), envelope.ErrCorrupt, small},
		{"zstd that has not what it says", message("zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0x00, 0x00, 0xa0, 0x00, 0x03, 0x00, 0x00, 0x00}), envelope.ErrCorrupt, small},
		{"zstd in compressed blocks, not said", message("zstd", zstdStream(t, bytes.Repeat([]byte("{}\n"), 100<<20/3))), envelope.ErrTooLarge, once},
		{"zstd, many frames", message("zstd", bytes.Repeat(zstdFrame(t, make([]byte, 10<<20)), 1<<10)), envelope.ErrTooLarge, small},
		{"zstd, a window of gigabytes", message("zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00}), envelope.ErrTooLarge, small},
		{"gzip, many members", message("gzip", bytes.Repeat(gzipMember(t, make([]byte, 10<<20)), 1<<10)), envelope.ErrTooLarge, once},
		{"gzip that says nothing", message("gzip", append(bytes.Repeat(gzipMember(t, make([]byte, 10<<20)), 4), gzipMember(t, nil)...)), envelope.ErrTooLarge, once},
	} {
		allocated, err := measure(func() error {
			_, err := tt.m.Events(nil)
			return err
		})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got error %v, want %v", tt.name, err, tt.want)
		}
		if allocated > tt.most {
			t.Errorf("%s: %d bytes were allocated, want at most %d", tt.name, allocated, tt.most)
		}
		t.Logf("%s: %d bytes of data, %d bytes allocated, %v", tt.name, len(tt.m.Data), allocated, err)
	}
}

// measure returns the bytes that f allocates, all together, garbage included.
func measure(f func() error) (uint64, error) {
	var before, after runtime.MemStats
	runtime.GC() // twice: what a pool still holds goes in the second round
	runtime.GC()
	runtime.ReadMemStats(&before)
	err := f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}
