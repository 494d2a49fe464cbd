package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var image = "registry.example/apss-agent@sha256:" + strings.Repeat("ab", 32)

func environ(more ...string) []string {
	return append([]string{"POD_NAME=apss-webhook-1", "POD_NAMESPACE=apss", "PUBLISHER=off", "SIDECAR_IMAGE=" + image}, more...)
}

func TestDefaults(t *testing.T) {
	s, err := load(environ())
	if err != nil {
		t.Fatal(err)
	}
	if s.Relay != "https://apss-relay.apss.svc:8444" || s.Certs != "self" || s.Restart || s.All || s.Grace != 720*time.Hour {
		t.Errorf("got %+v", s)
	}
	if diff := cmp.Diff([]string{"apss-webhook.apss.svc", "apss-webhook.apss.svc.cluster.local"}, s.names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"apss-relay.apss.svc", "apss-relay.apss.svc.cluster.local"}, s.relayNames()); diff != "" {
		t.Errorf("the relay's names (-want +got):\n%s", diff)
	}
}

func TestRelayNames(t *testing.T) {
	for _, tt := range []struct{ setting, names, want string }{
		{"https://10.96.0.7:8444", "", "10.96.0.7"},
		{"https://relay.example", "", "relay.example"},
		{"https://relay.example", "a.example,10.0.0.1", "a.example 10.0.0.1"},
	} {
		s, err := load(environ("CONTROLLER_ENDPOINT="+tt.setting, "RELAY_NAMES="+tt.names))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.relayNames(), " "); got != tt.want {
			t.Errorf("%s, %s: got %s want %s", tt.setting, tt.names, got, tt.want)
		}
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := load([]string{
		"SIDECAR_IMAGE=apss:latest", "INJECT_TIER=x", "INJECT_OPT_OUT=y", "INJECT_EXCLUDED=[", "CERTS=files", "CONTROLLER_ENDPOINT=http://relay", "SIDECAR_PORT=80",
		"CA_GRACE=1s", "COVERAGE_INTERVAL=1s", "DRAIN_DELAY=1h", "DRAIN_TIMEOUT=0s", "AUDIT_QUEUE=1", "REVIEWS_IN_FLIGHT=0", "SIDECAR_ENV=a b:c",
		"SIDECAR_IMGE=typo", "APSS_WEBHOOK_SERVICE_HOST=10.0.0.1",
	})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"POD_NAME: it is not set", "POD_NAMESPACE: it is not set", "by digest", `the tier is "x"`, `who may opt out is "y"`, `"[" is no pattern`, "TLS_CERT_FILE", "TLS_KEY_FILE",
		"https://", "port is 80", "CA_GRACE", "COVERAGE_INTERVAL", "DRAIN_DELAY", "DRAIN_TIMEOUT", "AUDIT_QUEUE", "REVIEWS_IN_FLIGHT", `"a b"`, "PUBSUB_PROJECT_ID", "SIDECAR_IMGE",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "SERVICE_HOST") {
		t.Errorf("what Kubernetes sets is refused:\n%v", err)
	}
	for name, more := range map[string]string{"CERTS": "CERTS=x", "PUBLISHER": "PUBLISHER=x", "RELAY_CA_FILE": "RELAY_CA_FILE=/ca"} {
		if _, err := load(environ(more)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", more, err)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		args           []string
		environ        []string
		code           int
		stdout, stderr string
	}{
		{[]string{"-version"}, nil, exitOK, "dev\n", ""},
		{[]string{"-help"}, nil, exitOK, "WEBHOOK_CONFIGURATION", ""},
		{[]string{"run"}, nil, exitUsage, "", "no such use"},
		{nil, []string{"CERTS=x"}, exitUsage, "", "wrong settings, nothing was started"},
		{nil, environ(), exitFailed, "", "as a pod does"}, // outside of a cluster
	} {
		var stdout, stderr bytes.Buffer
		if code := command(tt.args, tt.environ, &stdout, &stderr); code != tt.code {
			t.Errorf("%q: got %d want %d: %s", tt.args, code, tt.code, &stderr)
		}
		if !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%q: got %s\n%s", tt.args, &stdout, &stderr)
		}
	}
}
