package detect

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/apss-sensor/apss/shared/event"
)

// logsource is what a rule's logsource means here: the events it is about, and the names it may call their fields by.
type logsource struct {
	category, product, service string
	types                      []event.Type
	names                      map[string]string // Sigma's name to ours; "" is a field no sensor fills
	keywords                   []string          // fields that keywords are searched in
	audit                      bool
}

// categories are Sigma's categories by the events they are about. Beside them, the name of every event type is a
// category of its own.
var categories = map[string][]event.Type{
	"process_creation":    {event.ProcessExec},
	"process_termination": {event.ProcessExit},
	// Sysmon's event 11, which file_event stands for, is a file that was created or overwritten; a rename is how most
	// programs put a file's new content in place.
	"file_event":         {event.FileCreate, event.FileModify, event.FileRename},
	"file_change":        {event.FileModify, event.FileChmod, event.FileChown},
	"file_access":        {event.FileRead},
	"network_connection": {event.NetworkConnect},
	"admission":          {event.AdmissionPod, event.AdmissionExec},
	"agent":              {event.AgentHeartbeat, event.AgentCoverage, event.AgentIdentityConflict},
}

// auditTypes are the events that the record types EXECVE, SYSCALL (of execve) and PATH of auditd are about.
var auditTypes = []event.Type{
	event.ProcessExec, event.FileCreate, event.FileModify, event.FileDelete, event.FileRename, event.FileChmod,
	event.FileChown, event.FileRead,
}

// newLogsource decides what a rule is about, or says why nothing here is.
func newLogsource(line int, category, product, service string) (*logsource, error) {
	s := &logsource{category: category, product: product, service: service, names: sysmonNames, keywords: keywordFields}
	switch product {
	case "", "linux", "kubernetes", "apss":
	default:
		return nil, faultf(line, "product may be linux, kubernetes, or be left out", "logsource product %q has no events here", product)
	}
	switch {
	case service == "auditd" && category == "":
		s.types, s.names, s.keywords, s.audit = auditTypes, auditNames, auditKeywordFields, true
	case service != "":
		return nil, faultf(line, "name a category instead, such as process_creation; of services only auditd is mapped",
			"logsource service %q has no events here", service)
	case categories[category] != nil:
		s.types = categories[category]
	case event.Type(category).Known():
		s.types = []event.Type{event.Type(category)}
	case category == "":
		return nil, faultf(line, "name a category, such as process_creation", "the logsource has neither category nor a service that is mapped")
	default:
		known := slices.Sorted(maps.Keys(categories))
		return nil, faultf(line, "the categories are "+strings.Join(known, ", ")+", and every event type",
			"logsource category %q has no events here", category)
	}
	return s, nil
}

// field resolves the name that a rule calls a field by.
func (s *logsource) field(line int, name string) (*field, error) {
	if s.audit {
		if f, ok := auditField(name); ok {
			return f, nil
		}
	}
	if ours, ok := s.names[name]; ok {
		if ours == "" {
			return &field{name: name}, nil
		}
		if s.about("file") && name == "sha256" {
			ours = "file.sha256"
		}
		f, _ := fieldNamed(ours)
		return f, nil
	}
	if f, ok := fieldNamed(name); ok {
		return f, nil
	}
	if s.audit { // auditd's dictionary has hundreds of fields: what is not mapped is known to have no source
		return &field{name: name}, nil
	}
	instead := "use a name of Sigma's taxonomy (Image, CommandLine, TargetFilename, DestinationIp, ...) or of the event's JSON (process.exe, metadata.KEY, ...)"
	least := 3
	for _, known := range slices.Concat(slices.Sorted(maps.Keys(s.names)), slices.Sorted(maps.Keys(contractFields))) {
		off := distance(strings.ToLower(known), strings.ToLower(name))
		if strings.HasSuffix(known, "."+strings.ToLower(name)) {
			off = 1
		}
		if off < min(least, len(name)/2+1) {
			least, instead = off, "did you mean "+known+"?"
		}
	}
	return nil, faultf(line, instead, "field %q is unknown", name)
}

// about reports whether any of the source's events is of the family.
func (s *logsource) about(family string) bool {
	return slices.ContainsFunc(s.types, func(t event.Type) bool { return strings.HasPrefix(string(t), family+"_") })
}

// covers reports whether a filter written for s is meant for rules of t (filters specification: log source).
func (s *logsource) covers(t *logsource) bool {
	return (s.product == "" || t.product == "" || s.product == t.product) &&
		slices.ContainsFunc(t.types, func(x event.Type) bool { return slices.Contains(s.types, x) })
}

// sysmonNames is the taxonomy appendix's, which follows Sysmon. It is never changed.
var sysmonNames = map[string]string{
	"UtcTime": "timestamp", "Computer": "node_name", "ComputerName": "node_name", "Hostname": "node_name",
	"Image": "process.exe", "CommandLine": "process.cmdline", "CurrentDirectory": "process.cwd",
	"ProcessId": "process.pid", "ProcessName": "process.name", "User": "process.user",
	// Sysmon for Linux writes the uid as LogonId.
	"LogonId": "process.uid", "TerminalSessionId": "process.session_id",
	"ParentProcessId": "process.ppid", "ParentImage": "process.parent.exe", "ParentCommandLine": "process.parent.cmdline",
	"OriginalFileName": "", "ProcessGuid": "", "FileVersion": "", "Description": "", "Product": "", "Company": "",
	"LogonGuid": "", "IntegrityLevel": "", "imphash": "", "md5": "", "sha1": "", "sha256": "", "Hashes": "",
	"ParentProcessGuid": "", "ParentUser": "", "EventID": "", "RuleName": "",

	"TargetFilename": "file.path", "SourceFilename": "", "CreationUtcTime": "", "PreviousCreationUtcTime": "",

	"Protocol": "network.protocol", "Initiated": "network.initiated",
	"SourceIp": "network.src_ip", "SourcePort": "network.src_port",
	"DestinationIp": "network.dst_ip", "DestinationPort": "network.dst_port",
	"src_ip": "network.src_ip", "src_port": "network.src_port", "dst_ip": "network.dst_ip", "dst_port": "network.dst_port",
	"SourceHostname": "", "SourcePortName": "", "SourceIsIpv6": "",
	"DestinationHostname": "", "DestinationPortName": "", "DestinationIsIpv6": "",
}

// auditNames are auditd's (auditctl(8), audit.h's record types).
var auditNames = map[string]string{
	"name": "file.path", "exe": "process.exe", "comm": "process.name", "cwd": "process.cwd", "proctitle": "process.cmdline",
	"pid": "process.pid", "ppid": "process.ppid", "uid": "process.uid", "euid": "process.uid", "auid": "process.login_uid",
	"ses": "process.session_id", "UID": "process.user", "EUID": "process.user",
}

// auditField returns the fields that auditd's records have by their type, and the arguments of EXECVE.
func auditField(name string) (*field, bool) {
	var fixed func(event.Type) []string
	switch name {
	case "type":
		fixed = func(t event.Type) []string {
			if t == event.ProcessExec {
				return []string{"EXECVE", "SYSCALL"}
			}
			return []string{"PATH"}
		}
	case "SYSCALL", "syscall":
		fixed = func(t event.Type) []string {
			if t == event.ProcessExec {
				return []string{"execve"}
			}
			return nil
		}
	case "nametype":
		fixed = func(t event.Type) []string {
			switch t {
			case event.FileCreate:
				return []string{"CREATE"}
			case event.FileDelete:
				return []string{"DELETE"}
			case event.ProcessExec:
				return nil
			default:
				return []string{"NORMAL"}
			}
		}
	default:
		if index, ok := strings.CutPrefix(name, "a"); ok {
			if i, err := strconv.ParseUint(index, 10, 16); err == nil && strconv.FormatUint(i, 10) == index {
				return fieldNamed("process.args." + index)
			}
		}
		return nil, false
	}
	return &field{name: "auditd." + strings.ToLower(name), fixed: fixed, load: func(e *event.Event, v *values) {
		v.any(fixed(e.Type))
	}}, true
}

// keywordFields are what a keyword without a field is searched in: what people and programs chose, not the ids, names
// and times that the agent adds to every event.
var keywordFields = []string{
	"process.exe", "process.cmdline", "process.cwd", "process.user", "process.parent.exe",
	"process.parent.cmdline", "file.path", "file.diff", "file.writers.exe", "network.protocol", "network.direction",
	"network.src_ip", "network.dst_ip", "network.state", "container.name", "container.image", "pod_name", "workload",
	"metadata",
}

// auditKeywordFields are what stands in an EXECVE or PATH record.
var auditKeywordFields = []string{"process.cmdline", "file.path"}

// keywordField is the field that holds all the texts of s that keywords are searched in.
func (s *logsource) keywordField() *field {
	loads := make([]func(*event.Event, *values), 0, len(s.keywords))
	name := "keywords"
	if s.audit {
		name = "auditd.keywords"
	}
	for _, n := range s.keywords {
		if n == "metadata" {
			loads = append(loads, func(e *event.Event, v *values) {
				for _, x := range e.Metadata {
					v.any(x)
				}
			})
			continue
		}
		loads = append(loads, contractFields[n])
	}
	return &field{name: name, load: func(e *event.Event, v *values) {
		for _, load := range loads {
			load(e, v)
		}
	}}
}
