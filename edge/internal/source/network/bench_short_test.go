package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// shares counts, of the connections from these addresses, those of which both events of the dialling end came, and those
// with the bytes both ways besides.
func shares(from []netip.AddrPort, port uint16, events []*event.Event) (addresses, bytes float64) {
	for _, a := range from {
		end := func(t event.Type) *event.Event {
			i := slices.IndexFunc(events, func(e *event.Event) bool {
				return is(t, outbound, port)(e) && e.Network.SrcPort == a.Port()
			})
			if i < 0 {
				return nil
			}
			return events[i]
		}
		connect, over := end(event.NetworkConnect), end(event.NetworkClose)
		if connect == nil || over == nil {
			continue
		}
		addresses++
		if over.Network.BytesSent >= 10 && over.Network.BytesReceived >= 10 {
			bytes++
		}
	}
	n := float64(len(from))
	return 100 * addresses / n, 100 * bytes / n
}

// attributed counts, of the outbound connections to port, those with a process and those with one or candidates.
func attributed(port uint16, events []*event.Event) (joined, guessed float64) {
	n := 0.0
	for _, e := range events {
		if !is(event.NetworkConnect, outbound, port)(e) {
			continue
		}
		n++
		switch {
		case e.Process != nil:
			joined++
			guessed++
		case e.Metadata["process_candidates"] != nil:
			guessed++
		}
	}
	return 100 * joined / max(n, 1), 100 * guessed / max(n, 1)
}

// 200 connections as short as they can be, 10 bytes each way, 5 ms apart; the service closes first every other time. The
// sensor as it is, and polling /proc at 100 ms beside it.
func BenchmarkShortConnections(b *testing.B) {
	var longest time.Duration
	totals := map[string]float64{}
	rounds := 0.0
	for b.Loop() {
		rounds++
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		var running sync.WaitGroup
		ctx, cancel := context.WithCancel(b.Context())
		seen := map[string]*[]*event.Event{}
		sensors := map[string]*Sensor{}
		for _, mechanism := range []string{byDiag, byProc} {
			c := Config{Self: -1}
			if mechanism == byProc {
				c.Interval = 100 * time.Millisecond
			}
			s, err := New(c)
			if err != nil {
				b.Fatal(err)
			}
			if mechanism == byProc {
				s.spaces[0].lister = newProcLister(s.spaces[0].dir)
			}
			events := new([]*event.Event)
			seen[mechanism], sensors[mechanism] = events, s
			begun := make(chan struct{})
			running.Go(func() {
				once := sync.OnceFunc(func() { close(begun) })
				err := s.Run(ctx, func(e *event.Event) {
					if e.Network.DstPort == 1 {
						once()
					}
					*events = append(*events, e)
				}, nil)
				if err != nil {
					b.Error(err)
				}
			})
			knock(b, begun)
		}
		var from []netip.AddrPort
		pace := time.NewTicker(5 * time.Millisecond)
		for i := range 200 {
			<-pace.C
			start := time.Now()
			from = append(from, ping(b, l, i%2 == 0))
			longest = max(longest, time.Since(start))
		}
		pace.Stop()
		wait := time.NewTimer(500 * time.Millisecond) // some polls
		<-wait.C
		cancel()
		running.Wait()
		for mechanism, events := range seen {
			addresses, bytes := shares(from, port, *events)
			totals[mechanism+"-%addresses"] += addresses
			totals[mechanism+"-%seen-or-missed"] += account(b, mechanism, sensors[mechanism].Stats(), port, *events, len(from))
			totals[mechanism+"-%with-bytes"] += bytes
			joined, guessed := attributed(port, *events)
			totals[mechanism+"-%with-process"] += joined
			totals[mechanism+"-%with-process-or-candidates"] += guessed
		}
		l.Close()
	}
	for name, total := range totals {
		b.ReportMetric(total/rounds, name)
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
}

// account fails unless each of n connections to port, which have two ends here, was opened as the kernel counts, and was
// told of or counts as missed. It returns the part of the ends of which that is true, in percent.
func account(b *testing.B, mechanism string, st Stats, port uint16, events []*event.Event, n int) float64 {
	b.Helper()
	ends := 0
	for _, e := range events {
		if is(event.NetworkConnect, outbound, port)(e) || is(event.NetworkConnect, inbound, port)(e) {
			ends++
		}
	}
	if st.Opened < uint64(2*n) || uint64(ends)+st.MissedAtMost < uint64(2*n) {
		b.Errorf("%s: of %d connections %d ends were told of; yet %d opened, %d missed at most", mechanism, n, ends, st.Opened, st.MissedAtMost)
	}
	return 100 * float64(min(uint64(2*n), uint64(ends)+st.MissedAtMost)) / float64(2*n)
}

// knock makes UDP sockets with a peer until the sensor has told of one: its baseline is taken.
func knock(b *testing.B, begun <-chan struct{}) {
	b.Helper()
	for {
		c, err := net.Dial("udp4", "127.0.0.1:1")
		if err != nil {
			b.Fatal(err)
		}
		again := time.NewTimer(20 * time.Millisecond)
		select {
		case <-begun:
			c.Close()
			return
		case <-again.C:
		}
		defer c.Close() // so that a poll finds it
	}
}

// ping makes one connection with 10 bytes each way.
func ping(b *testing.B, l net.Listener, serviceFirst bool) netip.AddrPort {
	b.Helper()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	ends := [...]net.Conn{c, a}
	for i, from := range ends {
		if _, err := from.Write(make([]byte, 10)); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(ends[1-i], make([]byte, 10)); err != nil {
			b.Fatal(err)
		}
	}
	if serviceFirst {
		slices.Reverse(ends[:])
	}
	for _, end := range ends {
		if err := end.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return c.LocalAddr().(*net.TCPAddr).AddrPort()
}
