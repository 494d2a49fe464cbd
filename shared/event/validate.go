package event

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/uuid"
)

// Validate reports everything that keeps e from being a valid event of the contract, or nil.
func (e *Event) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := uuid.Parse(e.ID); err != nil || len(e.ID) != idLength {
		fault("id %q is not a UUID", e.ID)
	}
	if e.AgentID == "" {
		fault("agent_id is empty")
	}
	if !e.Type.Known() {
		fault("type %q is unknown", e.Type)
	}
	if e.Severity > Critical {
		fault("severity %d does not exist", e.Severity)
	}
	if e.Timestamp.IsZero() {
		fault("timestamp is missing")
	}
	family, _, _ := strings.Cut(string(e.Type), "_")
	switch {
	case family == "process" && e.Process == nil:
		fault("a %s event has no process", e.Type)
	case family == "file" && e.File == nil:
		fault("a %s event has no file", e.Type)
	case family == "network" && e.Network == nil:
		fault("a %s event has no network", e.Type)
	}
	if p := e.Process; p != nil {
		if p.PID < 0 || p.PPID < 0 {
			fault("process has a negative pid: %d, parent %d", p.PID, p.PPID)
		}
		switch p.Capture {
		case CaptureFull, CapturePartial, CaptureName:
		default:
			fault("process.capture %q is none of full, partial, name", p.Capture)
		}
	}
	if f := e.File; f != nil {
		if f.Path == "" {
			fault("file.path is empty")
		}
		if family == "file" && "file_"+f.Operation != string(e.Type) {
			fault("file.operation %q contradicts type %q", f.Operation, e.Type)
		}
	}
	if n := e.Network; n != nil {
		for name, ip := range map[string]string{"src_ip": n.SrcIP, "dst_ip": n.DstIP} {
			if _, err := netip.ParseAddr(ip); ip != "" && err != nil {
				fault("network.%s %q is not an IP address", name, ip)
			}
		}
	}
	return errors.Join(errs...)
}

// Validate reports everything that keeps a from being a valid alert of the contract, or nil.
func (a *Alert) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := uuid.Parse(a.ID); err != nil || len(a.ID) != idLength {
		fault("id %q is not a UUID", a.ID)
	}
	if a.RuleID == "" {
		fault("rule_id is empty")
	}
	if a.Severity > Critical {
		fault("severity %d does not exist", a.Severity)
	}
	if a.Timestamp.IsZero() {
		fault("timestamp is missing")
	}
	if a.Fingerprint == "" {
		fault("fingerprint is empty")
	}
	if a.Count < 1 {
		fault("count %d is less than one", a.Count)
	}
	if a.Event != nil {
		if err := a.Event.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("event: %w", err))
		}
	}
	return errors.Join(errs...)
}
