package httpx_test

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/shared/httpx"
)

// arrivals is a listener whose connections come from any address.
type arrivals chan net.Conn

func (a arrivals) Accept() (net.Conn, error) {
	if c, ok := <-a; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (a arrivals) Close() error   { close(a); return nil }
func (a arrivals) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection of an address.
type from struct {
	net.Conn
	address string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.address), Port: 1} }

// TestBound: connections come in order, one each second; each gets in or not, and may cost another its place.
func TestBound(t *testing.T) {
	const a, b, c = "10.0.0.1", "10.0.0.2", "10.0.0.3"
	for _, tt := range []struct {
		name        string
		each, total int
		come        []string
		say         int // the place of one that says something after all but the last came; -1: none
		open        []bool
	}{
		{"room for all", 2, 4, []string{a, a, b, b}, -1, []bool{true, true, true, true}},
		{"more than each", 2, 9, []string{a, a, a, b}, -1, []bool{true, true, false, true}},
		{"full: who has most gives way, the oldest of it", 9, 3, []string{a, a, a, b}, -1, []bool{false, true, true, true}},
		{"full: the one that was heard stays", 9, 3, []string{a, a, a, b}, 0, []bool{true, false, true, true}},
		{"full, and nobody has more", 9, 3, []string{a, b, c, a}, -1, []bool{true, true, true, false}},
		{"full, and two of each would be no better", 9, 3, []string{a, a, b, b}, -1, []bool{true, true, true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				closed := 0
				l := make(arrivals)
				bound := &httpx.Bound{Listener: l, Each: tt.each, Total: tt.total, Closed: func() { closed++ }}
				var accepting sync.WaitGroup
				accepting.Go(func() {
					for {
						c, err := bound.Accept()
						if err != nil {
							return
						}
						accepting.Go(func() { // until either end closes it
							defer c.Close()
							for b := make([]byte, 1); err == nil; _, err = c.Read(b) {
							}
						})
					}
				})
				var clients []net.Conn
				for i, address := range tt.come {
					if i == len(tt.come)-1 && tt.say >= 0 {
						if _, err := clients[tt.say].Write([]byte("x")); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Second)
					}
					client, server := net.Pipe()
					clients = append(clients, client)
					l <- from{server, address}
					time.Sleep(time.Second)
					synctest.Wait()
				}
				refused := 0
				for i, client := range clients {
					_ = client.SetReadDeadline(time.Now().Add(time.Second))
					_, err := client.Read(make([]byte, 1))
					var late net.Error
					if open := errors.As(err, &late) && late.Timeout(); open != tt.open[i] {
						t.Errorf("connection %d of %s: open is %t, want %t (%v)", i, tt.come[i], open, tt.open[i], err)
					} else if !open {
						refused++
					}
				}
				if closed != refused {
					t.Errorf("%d were counted, %d are closed", closed, refused)
				}
				// Who left makes room.
				for _, client := range clients {
					_ = client.Close()
				}
				synctest.Wait()
				for i := range tt.total {
					client, server := net.Pipe()
					defer client.Close()
					l <- from{server, fmt.Sprintf("10.0.1.%d", i)}
				}
				synctest.Wait()
				if closed != refused {
					t.Errorf("%d of as many connections as there is room for were closed", closed-refused)
				}
				_ = l.Close()
				for _, client := range clients {
					_ = client.Close()
				}
			})
		})
	}
}
