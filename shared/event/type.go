package event

import (
	"fmt"
	"slices"
	"strings"
)

// Type says what happened. Its values are the wire's.
type Type string

// The types of events.
const (
	ProcessExec     Type = "process_exec"
	ProcessExit     Type = "process_exit"
	FileCreate      Type = "file_create"
	FileModify      Type = "file_modify"
	FileDelete      Type = "file_delete"
	FileRename      Type = "file_rename"
	FileChmod       Type = "file_chmod"
	FileChown       Type = "file_chown"
	FileRead        Type = "file_read"
	NetworkConnect  Type = "network_connect"
	NetworkListen   Type = "network_listen"
	NetworkClose    Type = "network_close"
	AdmissionPod    Type = "admission_pod"
	AdmissionExec   Type = "admission_exec"
	AgentHeartbeat  Type = "agent_heartbeat"
	AgentCoverage   Type = "agent_coverage"
	IntegrationTest Type = "integration_test"
	// AgentIdentityConflict tells that an agent said to be elsewhere than where its token proves it to be.
	AgentIdentityConflict Type = "agent_identity_conflict"
)

// Types lists every type, in the order of the constants.
func Types() []Type {
	return []Type{
		ProcessExec, ProcessExit,
		FileCreate, FileModify, FileDelete, FileRename, FileChmod, FileChown, FileRead,
		NetworkConnect, NetworkListen, NetworkClose,
		AdmissionPod, AdmissionExec, AgentHeartbeat, AgentCoverage, IntegrationTest, AgentIdentityConflict,
	}
}

// Known reports whether t is one of [Types].
func (t Type) Known() bool { return slices.Contains(Types(), t) }

// Severity orders events and alerts by how much they matter. The zero value is Info.
type Severity uint8

// The severities, least first.
const (
	Info Severity = iota
	Low
	Medium
	High
	Critical
)

var severityNames = [...]string{Info: "INFO", Low: "LOW", Medium: "MEDIUM", High: "HIGH", Critical: "CRITICAL"}

// String returns the wire's name, for instance "HIGH".
func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// MarshalText implements [encoding.TextMarshaler].
func (s Severity) MarshalText() ([]byte, error) {
	if int(s) >= len(severityNames) {
		return nil, fmt.Errorf("severity %d does not exist", uint8(s))
	}
	return []byte(severityNames[s]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]; case does not matter.
func (s *Severity) UnmarshalText(text []byte) error {
	i := slices.IndexFunc(severityNames[:], func(name string) bool { return strings.EqualFold(name, string(text)) })
	if i < 0 {
		return fmt.Errorf("severity %q is none of CRITICAL, HIGH, MEDIUM, LOW, INFO", text)
	}
	*s = Severity(i)
	return nil
}
