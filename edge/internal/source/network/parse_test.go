package network

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func ends(local, remote string) key {
	return key{tcp, netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)}
}

func TestParseLine(t *testing.T) {
	const rest = " 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0"
	for name, tt := range map[string]struct {
		in   string
		want socket
		ok   bool
	}{
		"ipv4":        {"   0: 0100007F:1F90 08080808:01BB 01" + rest, socket{ends("127.0.0.1:8080", "8.8.8.8:443"), established, 1000, 12345, 0}, true},
		"listener":    {" 123: 00000000:115C 00000000:0000 0A" + rest, socket{ends("0.0.0.0:4444", "0.0.0.0:0"), listen, 1000, 12345, 0}, true},
		"ipv6":        {"   0: 00000000000000000000000001000000:1F90 B80D0120000000000000000001000000:01BB 01" + rest, socket{ends("[::1]:8080", "[2001:db8::1]:443"), established, 1000, 12345, 0}, true},
		"ipv4-mapped": {"   0: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF000008080808:01BB 06" + rest, socket{ends("127.0.0.1:8080", "8.8.8.8:443"), timeWait, 1000, 12345, 0}, true},
		"header":      {"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", socket{}, false},
		"short":       {"   0: 0100007F:1F90 08080808:01BB 01 00000000:00000000 00:00000000 00000000  1000", socket{}, false},
		"bad address": {"   0: 0100007:1F900 08080808:01BB 01" + rest, socket{}, false},
		"bad digit":   {"   0: 0100007G:1F90 08080808:01BB 01" + rest, socket{}, false},
		"big uid":     {"   0: 0100007F:1F90 08080808:01BB 01 0:0 0:0 0 4294967296 0 1", socket{}, false},
		"big inode":   {"   0: 0100007F:1F90 08080808:01BB 01 0:0 0:0 0 1 0 18446744073709551616", socket{}, false},
		"empty":       {"", socket{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parseLine([]byte(tt.in), tcp)
			if ok != tt.ok || ok && got != tt.want {
				t.Errorf("parseLine(%q) = %+v, %t; want %+v, %t", tt.in, got, ok, tt.want, tt.ok)
			}
		})
	}
	line := []byte("   0: 00000000000000000000000001000000:1F90 B80D0120000000000000000001000000:01BB 01" + rest)
	if n := testing.AllocsPerRun(100, func() { parseLine(line, tcp) }); n != 0 {
		t.Errorf("a line takes %v allocations, want 0", n)
	}
}

func TestParseBounds(t *testing.T) {
	line := "   0: 0100007F:1F90 08080808:01BB 01 0:0 0:0 0 1 0 5\n"
	got, rest, err := parse(nil, []byte("header\n"+line+line+"   0: 01"), tcp)
	if len(got) != 2 || string(rest) != "   0: 01" || err != nil {
		t.Errorf("got %d sockets, rest %q, %v", len(got), rest, err)
	}
	got, _, err = parse(nil, []byte(strings.Repeat(line, maxSockets+1)), tcp)
	if len(got) != maxSockets || !errors.Is(err, errCrowded) {
		t.Errorf("got %d sockets, %v; want %d and that there are more", len(got), err, maxSockets)
	}
}

func TestParsePulse(t *testing.T) {
	var p pulse
	snmp := "Ip: 1 2\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs\n" +
		"Tcp: 1 200 120000 -1 126 2 3 4 5 21749\nUdp: 1\n"
	if !p.parseSNMP([]byte(snmp)) {
		t.Error("the counters are not found")
	}
	p.inUse[0], p.inUse[1] = parseSockstat([]byte("sockets: used 15\nTCP: inuse 7 orphan 0 tw 0 alloc 1 mem 48\nUDP: inuse 8 mem 0\n"))
	p.inUse[2], p.inUse[3] = parseSockstat([]byte("TCP6: inuse 9\nUDP6: inuse 10\nRAW6: inuse x\n"))
	if want := (pulse{126, 2, 3, 4, 5, [4]uint64{7, 8, 9, 10}}); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
	if p.opened() != 128 {
		t.Errorf("got %d opened, want 128", p.opened())
	}
	for _, bad := range []string{"", "Tcp: 1 2\n", "Tcp: ", "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens a b c d e\n", "Tcp: 1 2 3 4 x 1 1 1 1 1\n"} {
		if new(pulse).parseSNMP([]byte(bad)) {
			t.Errorf("%q: got counters", bad)
		}
	}
}

func TestExternal(t *testing.T) {
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "2001:4860::1": true, "100.63.255.255": true, "100.128.0.0": true, "172.32.0.1": true,
		"10.0.0.1": false, "172.16.0.1": false, "192.168.1.1": false, "127.0.0.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "100.127.255.255": false, "224.0.0.1": false, "0.0.0.0": false, "255.255.255.255": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "34.118.224.1": false,
	} {
		nets := append(DefaultInternalNets(), netip.MustParsePrefix("34.118.224.0/20"))
		if got := external(netip.MustParseAddr(addr), nets); got != want {
			t.Errorf("external(%s) = %t, want %t", addr, got, want)
		}
	}
	if external(netip.Addr{}, nil) {
		t.Error("no address is external")
	}
}

func TestDescribe(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	k := ends("10.0.0.1:4444", "8.8.8.8:5555")
	got := c.config.describe(k, outbound, established)
	if got.SrcIP != "10.0.0.1" || got.SrcPort != 4444 || got.DstIP != "8.8.8.8" || got.DstPort != 5555 || !got.IsExternal || !got.IsSuspiciousPort {
		t.Errorf("outbound: %+v", got)
	}
	k = ends("10.0.0.1:4444", "8.8.8.8:80")
	if got := c.config.describe(k, outbound, established); got.IsSuspiciousPort {
		t.Errorf("an ephemeral port is suspicious: %+v", got)
	}
	got = c.config.describe(k, inbound, established)
	if got.SrcIP != "8.8.8.8" || got.DstPort != 4444 || !got.IsExternal || !got.IsSuspiciousPort {
		t.Errorf("inbound: %+v", got)
	}
	got = c.config.describe(ends("0.0.0.0:6379", "0.0.0.0:0"), listening, listen)
	if got.SrcIP != "" || got.SrcPort != 0 || got.DstIP != "0.0.0.0" || got.DstPort != 6379 || got.IsExternal || !got.IsSuspiciousPort || got.State != "LISTEN" {
		t.Errorf("listening: %+v", got)
	}
}

func TestSocketInode(t *testing.T) {
	for in, want := range map[string]uint64{
		"socket:[123]": 123, "socket:[x]": 0, "socket:[1": 0, "pipe:[1]": 0, "/dev/null": 0, "socket:[-1]": 0, "": 0,
	} {
		if got, ok := socketInode([]byte(in)); got != want || ok != (want != 0) {
			t.Errorf("socketInode(%q) = %d, %t; want %d", in, got, ok, want)
		}
	}
}

// What is read in pieces must be what is read at once, however the pieces are cut.
func FuzzParse(f *testing.F) {
	for _, path := range []string{"/proc/net/tcp", "/proc/net/udp6", "/proc/net/snmp", "/proc/net/sockstat"} {
		if b, err := os.ReadFile(path); err == nil {
			f.Add(b, 100)
		}
	}
	f.Add([]byte("   0: 0100007F:1F90 08080808:01BB 01 0:0 0:0 0 1 0 5\n\n \n   1: 00000000000000000000000001000000:1F90 B8"), 60)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, rest, err := parse(nil, b, tcp)
		if err != nil {
			t.Skip("more sockets than the bound")
		}
		if bytes.IndexByte(rest, '\n') >= 0 {
			t.Errorf("rest %q holds a line", rest)
		}
		cut = max(0, min(cut, len(b)))
		first, rest, _ := parse(nil, b[:cut], tcp)
		again, _, _ := parse(first, append(bytes.Clone(rest), b[cut:]...), tcp)
		if !slices.Equal(whole, again) {
			t.Errorf("cut at %d it is %v, want %v", cut, again, whole)
		}
		for _, s := range whole {
			if !s.local.Addr().IsValid() || s.local.Addr().Is4In6() {
				t.Errorf("got address %v", s.local)
			}
			_ = s.state.String()
		}
		var p pulse
		p.parseSNMP(b)
		parseSockstat(b)
		socketInode(b)
	})
}
