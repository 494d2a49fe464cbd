package envelope_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// batches returns the events of 50 envelopes: enough that no cache knows them all.
func batches(size int) [][]*event.Event {
	events := eventtest.Many(50*size, 7)
	var all [][]*event.Event
	for i := 0; i < len(events); i += size {
		all = append(all, events[i:i+size])
	}
	return all
}

func ndjson(events []*event.Event) []byte {
	var lines []byte
	for _, e := range events {
		lines = append(e.AppendJSON(lines), '\n')
	}
	return lines
}

// report turns a benchmark of whole envelopes into figures per event.
func report(b *testing.B, events, raw, packed int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
	b.ReportMetric(float64(packed)/float64(events), "B/event")
	b.ReportMetric(float64(raw)/float64(events), "rawB/event")
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{10, 100, 500} {
		all := batches(size)
		b.Run(fmt.Sprintf("events=%d/sealing", size), func(b *testing.B) {
			b.ReportAllocs()
			var batch envelope.Batch
			var turns, raw, packed int
			for b.Loop() {
				b.StopTimer()
				for _, e := range all[turns%len(all)] {
					batch.Append(e)
				}
				raw += batch.Size()
				b.StartTimer()
				packed += len(batch.Seal(source, noon).Data)
				turns++
			}
			report(b, turns*size, raw, packed)
		})
		b.Run(fmt.Sprintf("events=%d/encoding+sealing", size), func(b *testing.B) {
			b.ReportAllocs()
			var batch envelope.Batch
			var turns, raw, packed int
			for b.Loop() {
				for _, e := range all[turns%len(all)] {
					batch.Append(e)
				}
				raw += batch.Size()
				packed += len(batch.Seal(source, noon).Data)
				turns++
			}
			report(b, turns*size, raw, packed)
		})
	}
}

// What else could compress: why it is zstd at this level, without a dictionary.
func BenchmarkAlternatives(b *testing.B) {
	newZstd := func(options ...zstd.EOption) func(dst, src []byte) []byte {
		w, err := zstd.NewWriter(nil, append(options, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10))...)
		if err != nil {
			b.Fatal(err)
		}
		return func(dst, src []byte) []byte { return w.EncodeAll(src, dst) }
	}
	newGzip := func(level int) func(dst, src []byte) []byte {
		w, err := gzip.NewWriterLevel(nil, level)
		if err != nil {
			b.Fatal(err)
		}
		return func(dst, src []byte) []byte {
			out := bytes.NewBuffer(dst)
			w.Reset(out)
			if _, err := w.Write(src); err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			return out.Bytes()
		}
	}
	other := ndjson(eventtest.Many(100, 99)) // events of another node as the dictionary
	for _, size := range []int{10, 100, 500} {
		var bodies [][]byte
		for _, events := range batches(size) {
			bodies = append(bodies, ndjson(events))
		}
		for _, alternative := range []struct {
			name   string
			encode func(dst, src []byte) []byte
		}{
			{"zstd-fastest", newZstd(zstd.WithEncoderLevel(zstd.SpeedFastest))},
			{"zstd-default", newZstd(zstd.WithEncoderLevel(zstd.SpeedDefault))},
			{"zstd-better", newZstd(zstd.WithEncoderLevel(zstd.SpeedBetterCompression))},
			{"zstd-default-dictionary", newZstd(zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderDictRaw(1, other))},
			{"gzip-1", newGzip(1)},
			{"gzip-6", newGzip(6)},
		} {
			b.Run(fmt.Sprintf("events=%d/%s", size, alternative.name), func(b *testing.B) {
				var out []byte
				var turns, raw, packed int
				for b.Loop() {
					body := bodies[turns%len(bodies)]
					out = alternative.encode(out[:0], body)
					raw += len(body)
					packed += len(out)
					turns++
				}
				report(b, turns*size, raw, packed)
			})
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	for _, size := range []int{10, 100, 500} {
		m := seal(batches(size)[0]...)
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			var dst []event.Raw
			for b.Loop() {
				var err error
				if dst, err = m.Events(dst[:0]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/event")
		})
	}
}

// wrap makes the body of a wrapped push, members as the service sends them.
func wrap(tb testing.TB, m envelope.Message) []byte {
	tb.Helper()
	body, err := json.Marshal(map[string]any{
		"message": map[string]any{
			"data": m.Data, "attributes": m.Attributes, "messageId": "17", "message_id": "17", "orderingKey": "k",
			"publishTime": noon.Format(time.RFC3339Nano), "publish_time": noon.Format(time.RFC3339Nano),
		},
		"subscription": "projects/p/subscriptions/s", "deliveryAttempt": 3,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// One push of an envelope of 100 events: reading it, and reading and opening it.
func BenchmarkReadPush(b *testing.B) {
	body := wrap(b, seal(batches(100)[0]...))
	request := func(r *bytes.Reader) *http.Request {
		request := httptest.NewRequest(http.MethodPost, "/events/sweet", io.NopCloser(r))
		request.Header.Set("Content-Type", "application/json")
		request.ContentLength = int64(len(body))
		return request
	}
	for _, open := range []bool{false, true} {
		b.Run(fmt.Sprintf("open=%v", open), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			r := bytes.NewReader(body)
			pushed := request(r)
			var dst []event.Raw
			for b.Loop() {
				r.Reset(body)
				p, err := envelope.ReadPush(pushed)
				if err != nil {
					b.Fatal(err)
				}
				if open {
					if dst, err = p.Events(dst[:0]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
