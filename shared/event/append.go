package event

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
)

// AppendJSON appends e to b as one line of JSON without a newline and returns the extended slice. It allocates only
// to grow b, or for Metadata values of types that [Decode] never makes.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, e.ID)
	b = append(b, `,"agent_id":`...)
	b = appendString(b, e.AgentID)
	b = append(b, `,"type":`...)
	b = appendString(b, string(e.Type))
	b = append(b, `,"severity":"`...)
	b = append(b, e.Severity.String()...)
	b = append(b, `","timestamp":`...)
	b = appendTime(b, e.Timestamp)
	b = appendPlace(b, e.Cluster, e.NodeName, e.PodName, e.PodNamespace, e.Workload)
	if c := e.Container; c != nil {
		b = append(b, `,"container":`...)
		b = c.appendJSON(b)
	}
	if p := e.Process; p != nil {
		b = append(b, `,"process":`...)
		b = p.appendJSON(b)
	}
	if f := e.File; f != nil {
		b = append(b, `,"file":`...)
		b = f.appendJSON(b)
	}
	if n := e.Network; n != nil {
		b = append(b, `,"network":`...)
		b = n.appendJSON(b)
	}
	if len(e.Rules) > 0 {
		b = append(b, `,"rules":`...)
		b = appendStrings(b, e.Rules)
	}
	if len(e.Metadata) > 0 {
		b = append(b, `,"metadata":`...)
		b = appendMap(b, e.Metadata)
	}
	return appendEnd(b, e.Extra)
}

// MarshalJSON implements [json.Marshaler] through [Event.AppendJSON].
func (e *Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// typicalAlert is room for most alerts with their events: growing to it by steps costs more than what may be left over.
const typicalAlert = 3 << 10

// AppendJSON appends a to b as one line of JSON without a newline and returns the extended slice.
func (a *Alert) AppendJSON(b []byte) []byte {
	b = append(slices.Grow(b, typicalAlert), `{"id":`...)
	b = appendString(b, a.ID)
	b = append(b, `,"timestamp":`...)
	b = appendTime(b, a.Timestamp)
	b = append(b, `,"severity":"`...)
	b = append(b, a.Severity.String()...)
	b = append(b, `","rule_id":`...)
	b = appendString(b, a.RuleID)
	b = append(b, `,"rule_name":`...)
	b = appendString(b, a.RuleName)
	b = append(b, `,"description":`...)
	b = appendString(b, a.Description)
	b = appendPlace(b, a.Cluster, a.NodeName, a.PodName, a.PodNamespace, a.Workload)
	b = append(b, `,"mitre_tactic":`...)
	b = appendString(b, a.MITRETactic)
	b = append(b, `,"mitre_id":`...)
	b = appendString(b, a.MITREID)
	b = append(b, `,"event_ids":`...)
	b = appendStrings(b, a.EventIDs)
	b = append(b, `,"fingerprint":`...)
	b = appendString(b, a.Fingerprint)
	b = append(b, `,"count":`...)
	b = strconv.AppendInt(b, int64(a.Count), 10)
	b = append(b, `,"first_seen":`...)
	b = appendTime(b, a.FirstSeen)
	b = append(b, `,"last_seen":`...)
	b = appendTime(b, a.LastSeen)
	if a.Resolved {
		b = append(b, `,"resolved":true`...)
	}
	if a.Event != nil {
		b = append(b, `,"event":`...)
		b = a.Event.AppendJSON(b)
	}
	b = append(b, `,"metadata":{"source":`...)
	b = appendString(b, a.Metadata.Source)
	if len(a.Metadata.RecommendedActions) > 0 {
		b = append(b, `,"recommended_actions":`...)
		b = appendStrings(b, a.Metadata.RecommendedActions)
	}
	if len(a.Metadata.References) > 0 {
		b = append(b, `,"references":`...)
		b = appendStrings(b, a.Metadata.References)
	}
	if len(a.Metadata.FalsePositives) > 0 {
		b = append(b, `,"false_positives":`...)
		b = appendStrings(b, a.Metadata.FalsePositives)
	}
	if a.Metadata.Summary {
		b = append(b, `,"summary":true`...)
	}
	if a.Metadata.Suppressed != 0 {
		b = append(b, `,"suppressed":`...)
		b = strconv.AppendInt(b, int64(a.Metadata.Suppressed), 10)
	}
	b = appendEnd(b, a.Metadata.Extra)
	return appendEnd(b, a.Extra)
}

// MarshalJSON implements [json.Marshaler] through [Alert.AppendJSON].
func (a *Alert) MarshalJSON() ([]byte, error) { return a.AppendJSON(nil), nil }

func appendPlace(b []byte, cluster, node, pod, namespace, workload string) []byte {
	b = append(b, `,"cluster":`...)
	b = appendString(b, cluster)
	b = append(b, `,"node_name":`...)
	b = appendString(b, node)
	b = append(b, `,"pod_name":`...)
	b = appendString(b, pod)
	b = append(b, `,"pod_namespace":`...)
	b = appendString(b, namespace)
	b = append(b, `,"workload":`...)
	return appendString(b, workload)
}

func (c *Container) appendJSON(b []byte) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, c.ID)
	b = append(b, `,"name":`...)
	b = appendString(b, c.Name)
	b = append(b, `,"image":`...)
	b = appendString(b, c.Image)
	return appendEnd(b, c.Extra)
}

func (p *Process) appendJSON(b []byte) []byte {
	b = append(b, `{"pid":`...)
	b = strconv.AppendInt(b, int64(p.PID), 10)
	b = append(b, `,"ppid":`...)
	b = strconv.AppendInt(b, int64(p.PPID), 10)
	b = append(b, `,"exe":`...)
	b = appendString(b, p.Exe)
	b = append(b, `,"cmdline":`...)
	b = appendString(b, p.Cmdline)
	if len(p.Args) > 0 {
		b = append(b, `,"args":`...)
		b = appendStrings(b, p.Args)
	}
	b = append(b, `,"cwd":`...)
	b = appendString(b, p.Cwd)
	b = append(b, `,"uid":`...)
	b = strconv.AppendUint(b, uint64(p.UID), 10)
	b = append(b, `,"user":`...)
	b = appendString(b, p.User)
	b = append(b, `,"login_uid":`...)
	b = strconv.AppendUint(b, uint64(p.LoginUID), 10)
	b = append(b, `,"session_id":`...)
	b = strconv.AppendUint(b, uint64(p.SessionID), 10)
	if !p.StartTime.IsZero() {
		b = append(b, `,"start_time":`...)
		b = appendTime(b, p.StartTime)
	}
	b = append(b, `,"exe_deleted":`...)
	b = strconv.AppendBool(b, p.ExeDeleted)
	b = append(b, `,"capture":`...)
	b = appendString(b, string(p.Capture))
	if p.Parent != nil {
		b = append(b, `,"parent":`...)
		b = p.Parent.appendJSON(b)
	}
	if len(p.Ancestors) > 0 {
		b = append(b, `,"ancestors":[`...)
		for i := range p.Ancestors {
			if i > 0 {
				b = append(b, ',')
			}
			b = p.Ancestors[i].appendJSON(b)
		}
		b = append(b, ']')
	}
	return appendEnd(b, p.Extra)
}

func (a *Ancestor) appendJSON(b []byte) []byte {
	b = append(b, `{"pid":`...)
	b = strconv.AppendInt(b, int64(a.PID), 10)
	b = append(b, `,"exe":`...)
	b = appendString(b, a.Exe)
	b = append(b, `,"cmdline":`...)
	b = appendString(b, a.Cmdline)
	return appendEnd(b, a.Extra)
}

func (f *File) appendJSON(b []byte) []byte {
	b = append(b, `{"path":`...)
	b = appendString(b, f.Path)
	b = append(b, `,"operation":`...)
	b = appendString(b, f.Operation)
	b = append(b, ',')
	b = f.appendMembers(b)
	if f.Previous != nil {
		b = append(b, `,"previous":{`...)
		b = f.Previous.appendMembers(b)
		b = append(b, '}')
	}
	if f.Diff != "" {
		b = append(b, `,"diff":`...)
		b = appendString(b, f.Diff)
	}
	if len(f.Writers) > 0 {
		b = append(b, `,"writers":[`...)
		for i := range f.Writers {
			if i > 0 {
				b = append(b, ',')
			}
			w := &f.Writers[i]
			b = append(b, `{"pid":`...)
			b = strconv.AppendInt(b, int64(w.PID), 10)
			b = append(b, `,"exe":`...)
			b = appendString(b, w.Exe)
			b = append(b, `,"confidence":`...)
			b = appendFloat(b, w.Confidence)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return appendEnd(b, f.Extra)
}

func (s *FileState) appendMembers(b []byte) []byte {
	b = append(b, `"mode":`...)
	b = appendString(b, s.Mode)
	b = append(b, `,"uid":`...)
	b = strconv.AppendUint(b, uint64(s.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(s.GID), 10)
	b = append(b, `,"size":`...)
	b = strconv.AppendInt(b, s.Size, 10)
	b = append(b, `,"sha256":`...)
	return appendString(b, s.SHA256)
}

func (n *Network) appendJSON(b []byte) []byte {
	b = append(b, `{"protocol":`...)
	b = appendString(b, n.Protocol)
	b = append(b, `,"direction":`...)
	b = appendString(b, n.Direction)
	b = append(b, `,"src_ip":`...)
	b = appendString(b, n.SrcIP)
	b = append(b, `,"src_port":`...)
	b = strconv.AppendUint(b, uint64(n.SrcPort), 10)
	b = append(b, `,"dst_ip":`...)
	b = appendString(b, n.DstIP)
	b = append(b, `,"dst_port":`...)
	b = strconv.AppendUint(b, uint64(n.DstPort), 10)
	b = append(b, `,"state":`...)
	b = appendString(b, n.State)
	b = append(b, `,"is_external":`...)
	b = strconv.AppendBool(b, n.IsExternal)
	b = append(b, `,"is_suspicious_port":`...)
	b = strconv.AppendBool(b, n.IsSuspiciousPort)
	b = append(b, `,"bytes_sent":`...)
	b = strconv.AppendUint(b, n.BytesSent, 10)
	b = append(b, `,"bytes_received":`...)
	b = strconv.AppendUint(b, n.BytesReceived, 10)
	return appendEnd(b, n.Extra)
}

// appendEnd closes an object, after the members of extra, itself an object or empty.
func appendEnd(b, extra []byte) []byte {
	extra = bytes.TrimSpace(extra)
	if len(extra) > len("{}") {
		if members := bytes.TrimSpace(extra[1 : len(extra)-1]); len(members) > 0 {
			b = append(b, ',')
			b = appendInline(b, members)
		}
	}
	return append(b, '}')
}

func appendStrings(b []byte, ss []string) []byte {
	b = append(b, '[')
	for i, s := range ss {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

// appendMap writes m with its keys sorted, so that equal events are equal bytes.
func appendMap(b []byte, m map[string]any) []byte {
	var room [16]string
	keys := room[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		if i == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = appendString(b, k)
		b = append(b, ':')
		b = appendValue(b, m[k])
	}
	return append(b, '}')
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return appendString(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case uint64:
		return strconv.AppendUint(b, v, 10)
	case float64: // this and []any are what Decode makes of numbers and lists
		return appendFloat(b, v)
	case []string:
		return appendStrings(b, v)
	case []any:
		b = append(b, '[')
		for i, v := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, v)
		}
		return append(b, ']')
	case map[string]any:
		if len(v) == 0 {
			return append(b, "{}"...)
		}
		return appendMap(b, v)
	}
	j, err := json.Marshal(v)
	if err != nil { // a channel: say so where a reader will see it
		return appendString(b, "!"+err.Error())
	}
	return appendInline(b, j)
}
