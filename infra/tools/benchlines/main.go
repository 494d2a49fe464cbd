// Command benchlines turns the output of `go test -bench` into one line per figure:
//
//	BENCH <benchmark>/<unit> <median> <unit>
//
// The median is over the benchmark's repetitions (-count), because machines are noisy. Lines that already start with
// "BENCH " pass through, so programs that measure for themselves can stand in the same stream. It exits 1 when a
// benchmark failed or none ran.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
)

func main() {
	if err := run(os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "benchlines:", err)
		os.Exit(1)
	}
}

// run reads benchmark output from in; figures go to out, all else to rest.
func run(in io.Reader, out, rest io.Writer) error {
	type figure struct{ name, unit string }
	values := map[figure][]float64{}
	var order []figure
	failed, printed := false, false

	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	pkg := ""
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "BENCH "):
			fmt.Fprintln(out, line)
			printed = true
			continue
		case strings.HasPrefix(line, "pkg: "):
			pkg = line[strings.LastIndexByte(line, '/')+1:]
		case strings.HasPrefix(line, "FAIL"), strings.HasPrefix(line, "--- FAIL"), strings.HasPrefix(line, "panic:"):
			failed = true
		}
		r := benchfmt.NewReader(strings.NewReader(line+"\n"), "")
		for r.Scan() {
			result, ok := r.Result().(*benchfmt.Result)
			if !ok {
				if !strings.HasPrefix(line, "Benchmark") {
					fmt.Fprintln(rest, line)
				}
				continue
			}
			base := strings.TrimPrefix(pkg+"."+withoutProcs(string(result.Name)), ".")
			for _, v := range result.Values {
				f := figure{base, v.Unit}
				value := v.Value
				if v.OrigUnit != "" { // benchfmt tidies ns into sec; keep what the benchmark reported
					f.unit, value = v.OrigUnit, v.OrigValue
				}
				if _, seen := values[f]; !seen {
					order = append(order, f)
				}
				values[f] = append(values[f], value)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading benchmark output: %w", err)
	}
	for _, f := range order {
		fmt.Fprintf(out, "BENCH %s %s %s\n", f.name, strconv.FormatFloat(median(values[f]), 'g', 6, 64), f.unit)
	}
	switch {
	case failed:
		return fmt.Errorf("a benchmark failed; its output is above")
	case len(order) == 0 && !printed:
		return fmt.Errorf("no benchmark ran")
	}
	return nil
}

// withoutProcs takes the number of processors off a benchmark's name. With one processor there is none, which is why
// benchmarks name their sizes behind a slash.
func withoutProcs(name string) string {
	base, procs, found := cutLast(name, "-")
	if _, err := strconv.ParseUint(procs, 10, 32); !found || err != nil {
		return name
	}
	return base
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// median sorts v and returns its middle, the mean of the two middle ones of an even number.
func median(v []float64) float64 {
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
