package main

import (
	"io"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const head = "goos: linux\npkg: github.com/apss-sensor/apss/shared/event\n"
	for _, test := range []struct {
		name, in, want, wantErr string
	}{
		{
			name: "median of three, a unit of its own, another program's line",
			in: head +
				"BenchmarkAppendJSON-2 100 300 ns/op 0 B/op\n" +
				"BenchmarkAppendJSON-2 100 100 ns/op 0 B/op\n" +
				"BENCH demo.latency 12 ms\n" +
				"BenchmarkAppendJSON-2 100 200 ns/op 0 B/op\n" +
				"BenchmarkSeal/events=100-2 10 5 ns/op 44 bytes/event\nPASS\n",
			want: "BENCH demo.latency 12 ms\n" +
				"BENCH event.AppendJSON 200 ns/op\n" +
				"BENCH event.AppendJSON 0 B/op\n" +
				"BENCH event.Seal/events=100 5 ns/op\n" +
				"BENCH event.Seal/events=100 44 bytes/event\n",
		},
		{name: "names with dashes", in: "BenchmarkList/sock-diag/6000-2 1 7 ns/op\nBenchmarkFor/polling-100ms 1 8 ns/op\n", want: "BENCH List/sock-diag/6000 7 ns/op\nBENCH For/polling-100ms 8 ns/op\n"},
		{name: "an even number", in: "BenchmarkA 1 1 ns/op\nBenchmarkA 1 2 ns/op\n", want: "BENCH A 1.5 ns/op\n"},
		{name: "nothing ran", in: "PASS\n", wantErr: "no benchmark ran"},
		{name: "one failed", in: "BenchmarkA 1 1 ns/op\n--- FAIL: BenchmarkB\n", want: "BENCH A 1 ns/op\n", wantErr: "failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(test.in), &out, io.Discard)
			if got := out.String(); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
			if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("got error %v, want one with %q", err, test.wantErr)
			}
		})
	}
}
