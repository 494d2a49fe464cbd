package httpx

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apss-sensor/apss/shared/outcome"
)

func TestPublic(t *testing.T) {
	for a, want := range map[string]bool{
		"8.8.8.8": true, "1.2.3.4": true, "172.15.255.255": true, "172.32.0.1": true, "100.63.255.255": true, "223.255.255.255": true,
		"2a00:1450:4001:82a::200e": true, "::ffff:8.8.8.8": true, "64:ff9b::808:808": true, "2002:808:808::1": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "127.255.0.1": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.8": false, "192.168.1.1": false,
		"198.18.0.1": false, "203.0.113.7": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "::127.0.0.1": false,
		"fe80::1%eth0": false, "fc00::1": false, "fd20:ce::254": false, "fec0::1": false, "ff02::1": false, "2001:db8::1": false,
		"2001::1": false, "64:ff9b::a00:1": false, "64:ff9b::a9fe:a9fe": false, "2002:7f00:1::": false, "64:ff9b:1::1": false, "100::1": false,
	} {
		if got := public(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: got %v want %v", a, got, want)
		}
	}
}

// TestPublicOnly: an address is looked at when it is connected to, whatever the URL calls it.
func TestPublicOnly(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		_, err := newClient(t, Options{PublicOnly: true}).Do(t.Context(), post(t, "http://"+net.JoinHostPort(strings.Trim(host, "[]"), port)))
		if e := outcome.From(err); e == nil || e.Class != outcome.Retry || !strings.Contains(e.Reason, "not one of the public internet") {
			t.Errorf("%s: got %v want a refusal of the address", host, err)
		}
	}
	if calls.Load() != 0 {
		t.Errorf("got %d calls want none", calls.Load())
	}
	if _, err := newClient(t, Options{}).Do(t.Context(), post(t, server.URL)); err != nil {
		t.Error(err)
	}
}

// TestPublicOnlyTakesNoProxy runs itself in a process with a proxy in its environment, because net/http reads that once.
func TestPublicOnlyTakesNoProxy(t *testing.T) {
	const key = "APSS_TEST_TARGET"
	if target := os.Getenv(key); target != "" {
		if _, err := newClient(t, Options{}).Do(t.Context(), post(t, target)); err != nil {
			t.Errorf("by the proxy: %v", err)
		}
		if r, err := newClient(t, Options{PublicOnly: true}).Do(t.Context(), post(t, target)); err == nil {
			t.Errorf("got %v want no answer: the proxy would give one", r)
		}
		return
	}
	var calls atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer proxy.Close()
	child := exec.Command(os.Args[0], "-test.run=^TestPublicOnlyTakesNoProxy$")
	child.Env = append(os.Environ(), key+"=http://10.255.255.1:9/", "HTTP_PROXY="+proxy.URL, "http_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the proxy got %d calls want 1", n)
	}
}
