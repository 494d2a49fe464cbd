package detect

import (
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// field is something of an event that rules ask for. Its name is its place in the JSON contract, or one of the names
// that [fieldNamed] documents.
type field struct {
	name string
	// load appends the field's values; nil for a field that Sigma knows and no sensor of ours can fill.
	load func(*event.Event, *values)
	// fixed, where set, are the field's values as the event's type alone decides them.
	fixed func(event.Type) []string
}

// fieldNamed returns the field of a dotted name: those of the JSON contract, and process.name, process.parent.name,
// process.ancestors.name (see program), file.name (the last element of the path), process.args.N (from 0), network.initiated
// (direction is outbound) and metadata.KEY (KEY may lead into nested objects by further dots).
func fieldNamed(name string) (*field, bool) {
	if load, ok := contractFields[name]; ok {
		f := &field{name: name, load: load}
		if name == "type" {
			f.fixed = func(t event.Type) []string { return []string{string(t)} }
		}
		return f, true
	}
	if key, ok := strings.CutPrefix(name, "metadata."); ok && key != "" {
		return &field{name: name, load: func(e *event.Event, v *values) { v.any(member(e.Metadata, key)) }}, true
	}
	if index, ok := strings.CutPrefix(name, "process.args."); ok {
		if i, err := strconv.ParseUint(index, 10, 16); err == nil && strconv.FormatUint(i, 10) == index {
			return &field{name: name, load: process(func(p *event.Process, v *values) {
				if int(i) < len(p.Args) {
					v.text(p.Args[i])
				}
			})}, true
		}
	}
	return nil, false
}

// member finds key in m: as it is, or as a path of keys.
func member(m map[string]any, key string) any {
	if x, ok := m[key]; ok {
		return x
	}
	for i := range key {
		if key[i] != '.' {
			continue
		}
		if inner, ok := m[key[:i]].(map[string]any); ok {
			return member(inner, key[i+1:])
		}
	}
	return nil
}

func process(load func(*event.Process, *values)) func(*event.Event, *values) {
	return func(e *event.Event, v *values) {
		if e.Process != nil {
			load(e.Process, v)
		}
	}
}

func parent(load func(*event.Ancestor, *values)) func(*event.Event, *values) {
	return process(func(p *event.Process, v *values) {
		if p.Parent != nil {
			load(p.Parent, v)
		}
	})
}

func ancestors(load func(*event.Ancestor, *values)) func(*event.Event, *values) {
	return process(func(p *event.Process, v *values) {
		for i := range p.Ancestors {
			load(&p.Ancestors[i], v)
		}
	})
}

func container(load func(*event.Container, *values)) func(*event.Event, *values) {
	return func(e *event.Event, v *values) {
		if e.Container != nil {
			load(e.Container, v)
		}
	}
}

func file(load func(*event.File, *values)) func(*event.Event, *values) {
	return func(e *event.Event, v *values) {
		if e.File != nil {
			load(e.File, v)
		}
	}
}

// state is of a file that could be read: numbers of one that could not are not zeros but nothing.
func state(load func(*event.FileState, *values)) func(*event.Event, *values) {
	return file(func(f *event.File, v *values) {
		if f.Mode != "" {
			load(&f.FileState, v)
		}
	})
}

func previous(load func(*event.FileState, *values)) func(*event.Event, *values) {
	return file(func(f *event.File, v *values) {
		if f.Previous != nil && f.Previous.Mode != "" {
			load(f.Previous, v)
		}
	})
}

func network(load func(*event.Network, *values)) func(*event.Event, *values) {
	return func(e *event.Event, v *values) {
		if e.Network != nil {
			load(e.Network, v)
		}
	}
}

// id is a uid, gid, login uid or session.
func id(n uint32, v *values) {
	if n != event.UnknownID {
		v.int(int64(n))
	}
}

// port 0 is no port: a listening socket has no peer.
func port(n uint16, v *values) {
	if n != 0 {
		v.int(int64(n))
	}
}

func base(s string, v *values) {
	if s != "" {
		v.text(path.Base(s))
	}
}

// program is the name of the program that runs: the last element of the executable's path, which a process cannot choose.
// Where that does not tell, because one file is many programs or because it could not be read, it is what the first
// argument says, without the dash of a login shell and what a daemon appends ("nginx: worker process").
func program(exe, arg0, arg1 string, v *values) {
	name := path.Base(exe)
	switch name {
	case "busybox", "toybox", "coreutils":
		if path.Base(arg0) == name && arg1 != "" && arg1[0] != '-' {
			arg0 = arg1 // busybox sh
		}
	default:
		if exe != "" {
			v.text(name)
			return
		}
	}
	if i := strings.IndexAny(arg0, ": "); i >= 0 {
		arg0 = arg0[:i]
	}
	if arg0 = strings.TrimPrefix(arg0, "-"); arg0 != "" {
		v.text(path.Base(arg0))
	} else if exe != "" {
		v.text(name)
	}
}

func ancestorName(a *event.Ancestor, v *values) {
	arg0, rest, _ := strings.Cut(a.Cmdline, " ")
	arg1, _, _ := strings.Cut(rest, " ")
	program(a.Exe, arg0, arg1, v)
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return ""
}

// contractFields are the fields of DESIGN's event; it is never changed.
var contractFields = map[string]func(*event.Event, *values){
	"id":            func(e *event.Event, v *values) { v.text(e.ID) },
	"agent_id":      func(e *event.Event, v *values) { v.text(e.AgentID) },
	"type":          func(e *event.Event, v *values) { v.text(string(e.Type)) },
	"severity":      func(e *event.Event, v *values) { v.text(e.Severity.String()) },
	"timestamp":     func(e *event.Event, v *values) { v.time(e.Timestamp) },
	"cluster":       func(e *event.Event, v *values) { v.text(e.Cluster) },
	"node_name":     func(e *event.Event, v *values) { v.text(e.NodeName) },
	"pod_name":      func(e *event.Event, v *values) { v.text(e.PodName) },
	"pod_namespace": func(e *event.Event, v *values) { v.text(e.PodNamespace) },
	"workload":      func(e *event.Event, v *values) { v.text(e.Workload) },
	"rules":         func(e *event.Event, v *values) { v.strings(e.Rules) },

	"container.id":    container(func(c *event.Container, v *values) { v.text(c.ID) }),
	"container.name":  container(func(c *event.Container, v *values) { v.text(c.Name) }),
	"container.image": container(func(c *event.Container, v *values) { v.text(c.Image) }),

	"process.pid":         process(func(p *event.Process, v *values) { v.int(int64(p.PID)) }),
	"process.ppid":        process(func(p *event.Process, v *values) { v.int(int64(p.PPID)) }),
	"process.exe":         process(func(p *event.Process, v *values) { v.text(p.Exe) }),
	"process.name":        process(func(p *event.Process, v *values) { program(p.Exe, at(p.Args, 0), at(p.Args, 1), v) }),
	"process.cmdline":     process(func(p *event.Process, v *values) { v.text(p.Cmdline) }),
	"process.args":        process(func(p *event.Process, v *values) { v.strings(p.Args) }),
	"process.cwd":         process(func(p *event.Process, v *values) { v.text(p.Cwd) }),
	"process.uid":         process(func(p *event.Process, v *values) { id(p.UID, v) }),
	"process.user":        process(func(p *event.Process, v *values) { v.text(p.User) }),
	"process.login_uid":   process(func(p *event.Process, v *values) { id(p.LoginUID, v) }),
	"process.session_id":  process(func(p *event.Process, v *values) { id(p.SessionID, v) }),
	"process.start_time":  process(func(p *event.Process, v *values) { v.time(p.StartTime) }),
	"process.exe_deleted": process(func(p *event.Process, v *values) { v.bool(p.ExeDeleted) }),
	"process.capture":     process(func(p *event.Process, v *values) { v.text(string(p.Capture)) }),

	"process.parent.pid":        parent(func(a *event.Ancestor, v *values) { v.int(int64(a.PID)) }),
	"process.parent.exe":        parent(func(a *event.Ancestor, v *values) { v.text(a.Exe) }),
	"process.parent.name":       parent(ancestorName),
	"process.parent.cmdline":    parent(func(a *event.Ancestor, v *values) { v.text(a.Cmdline) }),
	"process.ancestors.exe":     ancestors(func(a *event.Ancestor, v *values) { v.text(a.Exe) }),
	"process.ancestors.name":    ancestors(ancestorName),
	"process.ancestors.cmdline": ancestors(func(a *event.Ancestor, v *values) { v.text(a.Cmdline) }),

	"file.path":      file(func(f *event.File, v *values) { v.text(f.Path) }),
	"file.name":      file(func(f *event.File, v *values) { base(f.Path, v) }),
	"file.operation": file(func(f *event.File, v *values) { v.text(f.Operation) }),
	"file.diff":      file(func(f *event.File, v *values) { v.text(f.Diff) }),
	"file.mode":      state(func(s *event.FileState, v *values) { v.text(s.Mode) }),
	"file.uid":       state(func(s *event.FileState, v *values) { id(s.UID, v) }),
	"file.gid":       state(func(s *event.FileState, v *values) { id(s.GID, v) }),
	"file.size":      state(func(s *event.FileState, v *values) { v.int(s.Size) }),
	"file.sha256":    file(func(f *event.File, v *values) { v.text(f.SHA256) }),
	"file.writers.exe": file(func(f *event.File, v *values) {
		for i := range f.Writers {
			v.text(f.Writers[i].Exe)
		}
	}),
	"file.previous.mode":   previous(func(s *event.FileState, v *values) { v.text(s.Mode) }),
	"file.previous.uid":    previous(func(s *event.FileState, v *values) { id(s.UID, v) }),
	"file.previous.gid":    previous(func(s *event.FileState, v *values) { id(s.GID, v) }),
	"file.previous.size":   previous(func(s *event.FileState, v *values) { v.int(s.Size) }),
	"file.previous.sha256": previous(func(s *event.FileState, v *values) { v.text(s.SHA256) }),

	"network.protocol":           network(func(n *event.Network, v *values) { v.text(n.Protocol) }),
	"network.direction":          network(func(n *event.Network, v *values) { v.text(n.Direction) }),
	"network.src_ip":             network(func(n *event.Network, v *values) { v.text(n.SrcIP) }),
	"network.src_port":           network(func(n *event.Network, v *values) { port(n.SrcPort, v) }),
	"network.dst_ip":             network(func(n *event.Network, v *values) { v.text(n.DstIP) }),
	"network.dst_port":           network(func(n *event.Network, v *values) { port(n.DstPort, v) }),
	"network.state":              network(func(n *event.Network, v *values) { v.text(n.State) }),
	"network.is_external":        network(func(n *event.Network, v *values) { v.bool(n.IsExternal) }),
	"network.is_suspicious_port": network(func(n *event.Network, v *values) { v.bool(n.IsSuspiciousPort) }),
	"network.bytes_sent":         network(func(n *event.Network, v *values) { v.uint(n.BytesSent) }),
	"network.bytes_received":     network(func(n *event.Network, v *values) { v.uint(n.BytesReceived) }),
	"network.initiated": network(func(n *event.Network, v *values) {
		if n.Direction != "" {
			v.bool(n.Direction == "outbound")
		}
	}),
}

// timed reports whether the time modifiers may ask for parts of the field.
func (f *field) timed() bool {
	switch f.name {
	case "timestamp", "process.start_time":
		return true
	}
	return strings.HasPrefix(f.name, "metadata.")
}

// timeOf is the time that the values are, also when it is written as RFC 3339.
func (v *values) timeOf() (time.Time, bool) {
	if !v.when.IsZero() {
		return v.when, true
	}
	if len(v.texts) != 1 {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, v.texts[0])
	return t.UTC(), err == nil
}
