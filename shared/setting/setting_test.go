package setting

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/secret"
)

type relay struct {
	Port    uint16        `env:"PORT, default=8444"`
	Timeout time.Duration `env:"TIMEOUT"`
}

type settings struct {
	Paths    []string        `env:"WATCH_PATHS, default=/etc,/usr/bin"`
	Interval time.Duration   `env:"NET_SCAN_INTERVAL, default=500ms"`
	Buffer   int             `env:"APSS_BUFFER"`
	Small    int8            `env:"APSS_SMALL"`
	Quiet    bool            `env:"APSS_QUIET"`
	Share    float64         `env:"APSS_SHARE"`
	Least    event.Severity  `env:"APSS_LEAST"`
	Listen   netip.AddrPort  `env:"APSS_LISTEN"`
	Address  *netip.Addr     `env:"APSS_ADDRESS"`
	Nets     []netip.Prefix  `env:"APSS_NETS"`
	Waits    []time.Duration `env:"APSS_WAITS"`
	Ports    map[string]int  `env:"APSS_PORTS"`
	Marks    map[string]int  `env:"APSS_MARKS, delimiter=;, separator=="`
	URL      url.URL         `env:"APSS_URL"`
	Key      secret.Value    `env:"APSS_KEY"`
	Keys     []secret.Value  `env:"APSS_KEYS"`
	Cluster  string          `env:"APSS_CLUSTER, required"`
	Relay    relay           `env:", prefix=APSS_RELAY_"`
	Other    *relay          `env:", prefix=APSS_OTHER_"`
	Ignored  string

	check func(*settings) error
}

func (s *settings) Validate() error {
	if s.check == nil {
		return nil
	}
	return s.check(s)
}

var prefixes = []string{"APSS_", "WATCH_", "NET_"}

func TestLoad(t *testing.T) {
	address := netip.MustParseAddr("10.0.0.1")
	defaults := settings{
		Paths: []string{"/etc", "/usr/bin"}, Interval: 500 * time.Millisecond, Cluster: "c",
		Relay: relay{Port: 8444}, Other: &relay{Port: 8444},
	}
	for _, c := range []struct {
		name    string
		environ []string
		want    func(*settings)
	}{
		{"defaults", nil, func(*settings) {}},
		{"empty is unset", []string{"NET_SCAN_INTERVAL=", "WATCH_PATHS= \t", "APSS_LEAST=", "APSS_UNKNOWN="}, func(*settings) {}},
		{"the last counts", []string{"APSS_BUFFER=1", "APSS_BUFFER=2", "APSS_SMALL=1", "APSS_SMALL="}, func(s *settings) { s.Buffer = 2 }},
		{"trimmed", []string{"APSS_BUFFER= 7\n", "WATCH_PATHS= /a , /b "}, func(s *settings) {
			s.Buffer, s.Paths = 7, []string{"/a", "/b"}
		}},
		{"foreign keys", []string{"HOME=/", "apss_x=1", "GARBAGE", "=::"}, func(*settings) {}},
		{"every type", []string{
			"NET_SCAN_INTERVAL=2s", "APSS_QUIET=true", "APSS_SHARE=0.5", "APSS_LEAST=high", "APSS_LISTEN=[::1]:80",
			"APSS_ADDRESS=10.0.0.1", "APSS_NETS=10.0.0.0/8,fc00::/7", "APSS_WAITS=1s,2s", "APSS_PORTS=a:1,b:2", "APSS_MARKS=a=1;b=2",
			"APSS_URL=https://h/p", "APSS_KEY=hunter2", "APSS_KEYS=a,b", "APSS_SMALL=-128",
			"APSS_RELAY_PORT=1", "APSS_OTHER_TIMEOUT=3s",
		}, func(s *settings) {
			s.Interval, s.Quiet, s.Share, s.Least, s.Small = 2*time.Second, true, 0.5, event.High, -128
			s.Listen, s.Address = netip.MustParseAddrPort("[::1]:80"), &address
			s.Nets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}
			s.Waits, s.Ports = []time.Duration{time.Second, 2 * time.Second}, map[string]int{"a": 1, "b": 2}
			s.Marks = s.Ports
			s.URL = url.URL{Scheme: "https", Host: "h", Path: "/p"}
			s.Key, s.Keys = secret.New("hunter2"), []secret.Value{secret.New("a"), secret.New("b")}
			s.Relay.Port, s.Other.Timeout = 1, 3*time.Second
		}},
		{"service links", []string{
			"APSS_RELAY_SERVICE_HOST=10.0.0.1", "APSS_RELAY_SERVICE_PORT=8444", "APSS_RELAY_SERVICE_PORT_HTTPS=8444",
			"APSS_SERVER_PORT=tcp://10.0.0.1:8444", "APSS_RELAY_PORT_8444_TCP=tcp://10.0.0.1:8444",
			"APSS_RELAY_PORT_8444_TCP_PROTO=tcp", "APSS_RELAY_PORT_8444_TCP_PORT=8444", "APSS_RELAY_PORT_8444_TCP_ADDR=10.0.0.1",
		}, func(*settings) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := defaults
			other := *defaults.Other
			want.Other = &other
			c.want(&want)
			var got settings
			if err := Load(append([]string{"APSS_CLUSTER=c"}, c.environ...), prefixes, &got); err != nil {
				t.Fatal(err)
			}
			diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
				cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".check" }, cmp.Ignore()))
			if diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name    string
		environ []string
		check   func(*settings) error
		want    []string
	}{
		{name: "values", environ: []string{
			"APSS_CLUSTER=c",
			"NET_SCAN_INTERVAL=5 s", "APSS_BUFFER=many", "APSS_SMALL=128", "APSS_QUIET=si", "APSS_SHARE=half", "APSS_LEAST=dire",
			"APSS_ADDRESS=abcd", "APSS_NETS=10.0.0.0/8,12345", "APSS_WAITS=1s,2", "APSS_PORTS=a=1", "APSS_MARKS=a:1", "APSS_URL=::", "APSS_RELAY_PORT=tcp://10.0.0.1:8444",
		}, want: []string{
			`NET_SCAN_INTERVAL: "5 s" is not a duration; write it like "500ms"`,
			`APSS_BUFFER: "many" is not a whole number from -9223372036854775808 to 9223372036854775807`,
			`APSS_SMALL: "128" is not a whole number from -128 to 127`,
			`APSS_QUIET: "si" is not a switch; write "true" or "false"`,
			`APSS_SHARE: "half" is not a number; write it like "0.5"`,
			`APSS_LEAST: "dire" is not accepted: severity "dire" is none of CRITICAL, HIGH, MEDIUM, LOW, INFO`,
			`APSS_ADDRESS: "abcd" is not accepted: ParseAddr("abcd"): unable to parse IP`,
			`APSS_NETS: "10.0.0.0/8,12345" is not accepted: netip.ParsePrefix("12345"): no '/'`,
			`APSS_WAITS: "1s,2" is not a list in which each is a duration; write it like "500ms"`,
			`APSS_PORTS: "a=1" is not a list of names and values; write it like "name:value,name:value" (a=1: invalid map item)`,
			`APSS_MARKS: "a:1" is not a list of names and values; write it like "name=value;name=value" (a:1: invalid map item)`,
			`APSS_URL: "::" is not accepted: parse "::": missing protocol scheme`,
			`APSS_RELAY_PORT: "tcp://10.0.0.1:8444" is not a whole number from 0 to 65535`,
		}},
		{name: "required", want: []string{`APSS_CLUSTER: is required and not set`}},
		{name: "unknown", environ: []string{
			"APSS_CLUSTER=c", "WATCH_PATH=/a", "NET_SCAN_INTERVALL=1s", "APSS_KYE=hunter2", "APSS_SOMETHING_ELSE=1", "APSS_METRICS_PORT=80",
			"APSS_RELAY_PORT_8444_TCP=is fine",
		}, want: []string{
			`APSS_KYE: is no setting; did you mean APSS_KEY?`,
			`APSS_METRICS_PORT: is no setting`,
			`APSS_SOMETHING_ELSE: is no setting`,
			`NET_SCAN_INTERVALL: is no setting; did you mean NET_SCAN_INTERVAL?`,
			`WATCH_PATH: is no setting; did you mean WATCH_PATHS?`,
		}},
		{name: "a refused value leaves the default, and Validate still speaks", environ: []string{"NET_SCAN_INTERVAL=5", "APSS_BUFFER=-1"},
			check: func(s *settings) error {
				return errors.Join(
					fmt.Errorf("APSS_BUFFER: %d is negative", s.Buffer),
					fmt.Errorf("NET_SCAN_INTERVAL: %s is too short", s.Interval),
					errors.Join(errors.New("APSS_KEY: needs APSS_CLUSTER"), fmt.Errorf("the interval is %s", s.Interval)),
				)
			},
			want: []string{
				`NET_SCAN_INTERVAL: "5" is not a duration; write it like "500ms"`,
				`APSS_CLUSTER: is required and not set`,
				`APSS_BUFFER: -1 is negative`,
				`the interval is 500ms`,
			}},
		{name: "a secret is not shown", environ: []string{"APSS_CLUSTER=c", "APSS_KEY=[redacted]", "APSS_KEYS=hunter2,[redacted]", "APSS_HUNTER=hunter2"},
			want: []string{
				`APSS_KEY: is not accepted (its value is a secret and not shown)`,
				`APSS_KEYS: is not accepted (its value is a secret and not shown)`,
				`APSS_HUNTER: is no setting`,
			}},
		{name: "long values are cut, control characters escaped", environ: []string{"APSS_CLUSTER=c", "APSS_QUIET=\x1b[2J" + strings.Repeat("x", 200)},
			want: []string{`APSS_QUIET: "\x1b[2J` + strings.Repeat("x", 76) + `…" is not a switch; write "true" or "false"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := settings{check: c.check}
			err := Load(c.environ, prefixes, &got)
			if err == nil {
				t.Fatal("got no error")
			}
			if diff := cmp.Diff(c.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

func TestValuesInTheStructAreDefaults(t *testing.T) {
	got := struct {
		A, B string
		C    int `env:"C"`
		D    int `env:"D, default=4"`
	}{A: "a", C: 1, D: 2}
	if err := Load([]string{"C=3"}, nil, &got); err != nil {
		t.Fatal(err)
	}
	if got.A != "a" || got.C != 3 || got.D != 2 {
		t.Errorf("got %+v want C from the environment and the rest as it was", got)
	}
}

func TestMisuse(t *testing.T) {
	var nothing *settings
	for name, into := range map[string]any{"no pointer": settings{}, "nil": nothing, "no struct": new(int), "no value": nil} {
		if err := Load(nil, nil, into); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	for name, into := range map[string]any{
		"unexported": &struct {
			a int `env:"A, default=1"`
		}{},
		"bad option": &struct {
			A int `env:"A, requiredd"`
		}{},
		"bad default": &struct {
			A int `env:"A, default=x"`
		}{},
	} {
		if err := Load(nil, nil, into); err == nil || !strings.HasPrefix(err.Error(), "A: ") {
			t.Errorf("%s: got %v want a fault of A", name, err)
		}
	}
}

func TestServiceLink(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       bool
	}{
		{"REDIS_PRIMARY_SERVICE_HOST", "10.0.0.11", true},
		{"REDIS_PRIMARY_SERVICE_PORT", "6379", true},
		{"REDIS_PRIMARY_SERVICE_PORT_METRICS", "6380", true},
		{"REDIS_PRIMARY_PORT", "tcp://10.0.0.11:6379", true},
		{"REDIS_PRIMARY_PORT", "6379", false},
		{"REDIS_PRIMARY_PORT", "http://10.0.0.11:6379", false},
		{"REDIS_PRIMARY_PORT_6379_TCP", "tcp://10.0.0.11:6379", true},
		{"REDIS_PRIMARY_PORT_6379_UDP_PROTO", "udp", true},
		{"REDIS_PRIMARY_PORT_6379_SCTP_PORT", "6379", true},
		{"REDIS_PRIMARY_PORT_6379_TCP_ADDR", "10.0.0.11", true},
		{"A_PORT_1_PORT_2_TCP", "", true},
		{"_SERVICE_HOST", "", false},
		{"_SERVICE_PORT", "", false},
		{"A_SERVICE_PORTS", "", false},
		{"A_SERVICE_PORT_", "", false},
		{"a_SERVICE_HOST", "", false},
		{"_PORT", "tcp://10.0.0.11:6379", false},
		{"_PORT_1_TCP", "", false},
		{"A_PORT__TCP", "", false},
		{"A_PORT_X_TCP", "", false},
		{"A_PORT_1_ICMP", "", false},
		{"A_PORT_1_TCP_NAME", "", false},
		{"A_PORT_1_TCP_PROTO_PORT", "", false},
		{"A_1_TCP", "", false},
		{"", "", false},
	} {
		if got := serviceLink(c.key, c.value); got != c.want {
			t.Errorf("%s=%s: got %v want %v", c.key, c.value, got, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"A", "", 1}, {"", "AB", 2}, {"KYE", "KEY", 1}, {"key", "KEY", 0}, {"PATH", "PATHS", 1}, {"ABC", "XBZ", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: got %d want %d", c.a, c.b, got, c.want)
		}
	}
}

// FuzzServiceLink compares the matcher with the documented forms as one expression.
func FuzzServiceLink(f *testing.F) {
	for _, key := range []string{
		"APSS_RELAY_SERVICE_HOST", "APSS_RELAY_SERVICE_PORT_HTTPS", "APSS_RELAY_PORT", "APSS_RELAY_PORT_8444_TCP",
		"APSS_RELAY_PORT_8444_UDP_ADDR", "A_PORT_1_PORT_2_SCTP_PROTO", "WATCH_PATHS", "_PORT__TCP", "\xff_PORT_1_TCP", "A_SERVICE_PORTX_SERVICE_PORT",
	} {
		f.Add(key, "tcp://10.0.0.1:8444")
	}
	forms := regexp.MustCompile(`^[A-Z][A-Z0-9_]*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	port := regexp.MustCompile(`^[A-Z][A-Z0-9_]*_PORT$`)
	link := regexp.MustCompile(`^(tcp|udp|sctp)://(?s:.*):`)
	f.Fuzz(func(t *testing.T, key, value string) {
		want := forms.MatchString(key) || port.MatchString(key) && link.MatchString(value)
		if got := serviceLink(key, value); got != want {
			t.Errorf("%q=%q: got %v want %v", key, value, got, want)
		}
	})
}
