package rulebook

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/event"
)

// Bounds of Eval. An agent's events have a few KiB, and a sensor bounds what it puts in: see their packages.
const (
	maxLine     = 1 << 20
	maxReported = 100 // bad lines that are printed; all are counted
)

// Eval reads events, one line of JSON each, and writes the alerts that the set makes of them, in the same form, as they
// come. A line that is no event is reported on diagnostics with its number and passed over. Its memory does not grow with
// the input.
func Eval(set *detect.Set, in io.Reader, out, diagnostics io.Writer) error {
	reader, writer := bufio.NewReaderSize(in, 64<<10), bufio.NewWriter(out)
	matcher, correlator := set.NewMatcher(), set.NewCorrelator(detect.CorrelatorOptions{})
	var line, buf []byte
	var matches []detect.Match
	var correlated []detect.Correlated
	events, alerts, bad := 0, 0, 0
	write := func(a *event.Alert) error {
		alerts++
		buf = append(a.AppendJSON(buf[:0]), '\n')
		_, err := writer.Write(buf)
		return err
	}
	for number := 1; ; number++ {
		var tooLong bool
		var err error
		line, tooLong, err = readLine(reader, line[:0])
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading events: %w", errors.Join(err, writer.Flush()))
		}
		end := err != nil
		if trimmed := bytes.TrimSpace(line); tooLong || len(trimmed) > 0 {
			e, err := event.Decode(trimmed)
			if tooLong {
				err = fmt.Errorf("it is longer than %d bytes", maxLine)
			}
			if err != nil {
				if bad++; bad <= maxReported {
					fmt.Fprintf(diagnostics, "line %d: %s\n", number, printable(err.Error()))
				}
			} else {
				events++
				matches = matcher.Match(e, matches[:0])
				correlated = correlator.Add(e.Timestamp, e, matches, correlated[:0])
				for _, m := range matches {
					if !m.Silent {
						err = errors.Join(err, write(m.Alert(e)))
					}
				}
				for _, c := range correlated {
					if !c.Silent {
						err = errors.Join(err, write(c.Alert(e)))
					}
				}
				if err != nil {
					return fmt.Errorf("writing alerts: %w", err)
				}
			}
		}
		if end || reader.Buffered() == 0 { // someone may be waiting for the alerts
			if err := writer.Flush(); err != nil {
				return fmt.Errorf("writing alerts: %w", err)
			}
		}
		if end {
			break
		}
	}
	fmt.Fprintf(diagnostics, "%d events, %d alerts, %d bad lines\n", events, alerts, bad)
	if s := correlator.Stats(); s.Evicted > 0 {
		fmt.Fprintf(diagnostics, "%d groups of correlation rules were forgotten for want of room\n", s.Evicted)
	}
	return nil
}

// readLine appends the next line to line, at most maxLine bytes of it, and reports whether there was more.
func readLine(r *bufio.Reader, line []byte) ([]byte, bool, error) {
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			tooLong, line = true, line[:0]
		}
		if !tooLong {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}
