// Package eventtest has events and alerts for everybody's tests: one of each kind with every field that a sensor can
// fill ([Exec], [FileModify], [Connect], [Alert]), and as many as one busy node would emit ([Many]).
//
// All are valid, and each call returns new values that the test may change. Many is the same for the same seed; what is
// random in production (ids, ports, hashes, the digits of a nanosecond) is random there too, so that compressed sizes
// measured on it are honest.
package eventtest

import (
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// The place of the canonical events.
const (
	Cluster   = "prod-1"
	Node      = "gke-prod-1-pool-1-5f3c1a9e-x7kq"
	AgentID   = Cluster + "/" + Node
	Namespace = "default"
	Pod       = "my-app-7d4b9c6f5d-abc12"
	Workload  = "Deployment/my-app"
)

// Time is when the canonical events happened.
func Time() time.Time { return time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC) }

// Exec is a process_exec with everything known: a shell as a reverse shell starts it.
func Exec() *event.Event {
	e := newEvent("0199f0a2-4e10-7c3d-9a61-2f6de0b1a901", event.ProcessExec, event.High)
	e.Process = shell()
	e.Rules = []string{"APSS-001"}
	e.Metadata = map[string]any{"tty": true, "tier": "node"}
	return e
}

// FileModify is a file_modify of /etc/passwd, with the state before and the processes that may have done it.
func FileModify() *event.Event {
	e := newEvent("0199f0a2-4e11-7a0b-8c52-91d3c7f4e802", event.FileModify, event.Critical)
	e.File = &event.File{
		Path:      "/etc/passwd",
		Operation: "modify",
		FileState: event.FileState{
			Mode: "0644", Size: 1303,
			SHA256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
		},
		Previous: &event.FileState{
			Mode: "0644", Size: 1262,
			SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		},
		Diff:    "@@ -20,0 +21 @@\n+toor:x:0:0::/root:/bin/bash\n",
		Writers: []event.Writer{{PID: 4242, Exe: "/bin/bash", Confidence: 0.9}},
	}
	e.Rules = []string{"APSS-014", "APSS-015"}
	return e
}

// Connect is a network_connect to a suspicious port outside, with the process that did it.
func Connect() *event.Event {
	e := newEvent("0199f0a2-4e12-7f5e-b3c4-0a8e6d2b7703", event.NetworkConnect, event.Critical)
	e.Process = shell()
	e.Network = &event.Network{
		Protocol: "tcp", Direction: "outbound", SrcIP: "10.8.1.17", SrcPort: 51044, DstIP: "1.2.3.4", DstPort: 4444,
		State: "ESTABLISHED", IsExternal: true, IsSuspiciousPort: true, BytesSent: 1832, BytesReceived: 964,
	}
	e.Rules = []string{"APSS-001"}
	return e
}

// Alert is what the rule of [Connect] makes of it, seen three times: the summary of the two that were held back.
func Alert() *event.Alert {
	e := Connect()
	return &event.Alert{
		ID: "0199f0a2-4e13-7b21-a7d8-6c90f1e3d504", Timestamp: Time().Add(time.Second), Severity: event.Critical,
		RuleID: "APSS-001", RuleName: "Reverse shell",
		Description: "A shell has a connection to a suspicious port outside of the cluster.",
		Cluster:     e.Cluster, NodeName: e.NodeName, PodName: e.PodName, PodNamespace: e.PodNamespace, Workload: e.Workload,
		MITRETactic: "Command and Control", MITREID: "T1059.004",
		EventIDs: []string{e.ID}, Fingerprint: event.Fingerprint("APSS-001", e, e.Network.DstIP), Count: 3,
		FirstSeen: Time(), LastSeen: Time().Add(time.Second),
		Event: e,
		Metadata: event.AlertMetadata{
			Source:             "apss",
			RecommendedActions: []string{"Isolate the pod.", "Find out how the shell came in."},
			References:         []string{"https://attack.mitre.org/techniques/T1059/004/"},
			FalsePositives:     []string{"A penetration test."},
			Summary:            true,
			Suppressed:         2,
		},
	}
}

func newEvent(id string, t event.Type, s event.Severity) *event.Event {
	return &event.Event{
		ID: id, AgentID: AgentID, Type: t, Severity: s, Timestamp: Time(),
		Cluster: Cluster, NodeName: Node, PodName: Pod, PodNamespace: Namespace, Workload: Workload,
		Container: &event.Container{
			ID:    "c27c302e5fc3a1b94d07e6d5b8f2a3908172635445362718290a1b2c3d4e5f60",
			Name:  "app",
			Image: "europe-docker.pkg.dev/acme/shop/my-app:1.14.2",
		},
	}
}

func shell() *event.Process {
	return &event.Process{
		PID: 4242, PPID: 4101, Exe: "/bin/bash", Cmdline: "bash -i", Args: []string{"bash", "-i"}, Cwd: "/",
		User: "root", LoginUID: event.UnknownID, SessionID: 1, StartTime: Time().Add(-time.Second).Truncate(10 * time.Millisecond),
		Capture:   event.CaptureFull,
		Parent:    &event.Ancestor{PID: 4101, Exe: "/usr/bin/python3.12", Cmdline: "python3 /app/server.py"},
		Ancestors: []event.Ancestor{{PID: 3980, Exe: "/usr/bin/containerd-shim-runc-v2", Cmdline: "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io"}},
	}
}
