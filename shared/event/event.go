package event

import (
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Event is one thing that happened where an agent looks. Exactly one of Process, File and Network is what a process_,
// file_ or network_ event is about; Process also stands on file and network events when the actor is known.
type Event struct {
	// ID is a UUIDv7. It identifies the event through every redelivery.
	ID string `json:"id"`
	// AgentID is "<cluster>/<node or pod>".
	AgentID   string    `json:"agent_id"`
	Type      Type      `json:"type"`
	Severity  Severity  `json:"severity"`
	Timestamp time.Time `json:"timestamp"`

	Cluster      string `json:"cluster"`
	NodeName     string `json:"node_name"`
	PodName      string `json:"pod_name"`
	PodNamespace string `json:"pod_namespace"`
	// Workload is "<Kind>/<name>" of the pod's top owner, for instance "Deployment/my-app".
	Workload string `json:"workload"`

	Container *Container `json:"container,omitzero"`
	Process   *Process   `json:"process,omitzero"`
	File      *File      `json:"file,omitzero"`
	Network   *Network   `json:"network,omitzero"`

	// Rules are the ids of the rules that matched.
	Rules []string `json:"rules,omitempty"`
	// Metadata holds what has no field: strings, booleans, numbers, lists of strings, or anything encoding/json takes.
	// In a decoded event numbers are float64 and lists []any.
	Metadata map[string]any `json:"metadata,omitempty"`

	// Extra holds the members that this version does not know, as one JSON object; nil when there are none.
	Extra jsontext.Value `json:",embed"`
}

// Container is where the event's process runs.
type Container struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Image string `json:"image"`

	Extra jsontext.Value `json:",embed"`
}

// UnknownID is the uid, gid, login uid or session of a process or file that could not be read. The kernel uses the same
// value, (uid_t)-1, for a login uid that was never set (proc_pid_loginuid(5)).
const UnknownID = 1<<32 - 1

// Capture tells how much of a process could be read before it was gone.
type Capture string

// The degrees of capture.
const (
	CaptureFull    Capture = "full"    // command line, credentials, parent and executable
	CapturePartial Capture = "partial" // some of those
	CaptureName    Capture = "name"    // only which executable was run
)

// Process is a running or finished process as the sensor saw it.
type Process struct {
	PID     int32    `json:"pid"`
	PPID    int32    `json:"ppid"`
	Exe     string   `json:"exe"`
	Cmdline string   `json:"cmdline"`
	Args    []string `json:"args,omitempty"`
	Cwd     string   `json:"cwd"`
	// UID is [UnknownID] when it could not be read: 0 is a claim.
	UID  uint32 `json:"uid"`
	User string `json:"user"`
	// LoginUID is [UnknownID] for what no login started.
	LoginUID  uint32 `json:"login_uid"`
	SessionID uint32 `json:"session_id"`
	// StartTime and PID together identify a process; a pid alone is reused.
	StartTime time.Time `json:"start_time,omitzero"`
	// ExeDeleted is true when the executable's file is gone, or never had a name (memfd).
	ExeDeleted bool    `json:"exe_deleted"`
	Capture    Capture `json:"capture"`

	Parent *Ancestor `json:"parent,omitzero"`
	// Ancestors starts at the parent's parent.
	Ancestors []Ancestor `json:"ancestors,omitempty"`

	Extra jsontext.Value `json:",embed"`
}

// Clone copies p so that whoever gets the copy may change it. The clone of nil is nil.
func (p *Process) Clone() *Process {
	if p == nil {
		return nil
	}
	c := *p
	c.Args = slices.Clone(p.Args)
	c.Ancestors = slices.Clone(p.Ancestors)
	if p.Parent != nil {
		parent := *p.Parent
		c.Parent = &parent
	}
	return &c
}

// Ancestor is a process seen from its descendant.
type Ancestor struct {
	PID     int32  `json:"pid"`
	Exe     string `json:"exe"`
	Cmdline string `json:"cmdline"`

	Extra jsontext.Value `json:",embed"`
}

// File is a file after what happened to it.
type File struct {
	// Path is the path as the container sees it.
	Path string `json:"path"`
	// Operation is the event type without "file_": create, modify, delete, rename, chmod, chown, read.
	Operation string `json:"operation"`
	FileState
	// Previous is the state before, where a baseline knew it.
	Previous *FileState `json:"previous,omitzero"`
	// Diff is a unified diff of a small text file that is not secret.
	Diff string `json:"diff,omitempty"`
	// Writers are the processes that may have done it; never a certainty.
	Writers []Writer `json:"writers,omitempty"`

	Extra jsontext.Value `json:",embed"`
}

// FileState is what a stat and a read tell of a file. Mode is octal as chmod(1) takes it ("0644"), empty when the file
// could not be read. SHA256 is lowercase hex, empty when it was not computed.
type FileState struct {
	Mode   string `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Writer is a process that may have changed a file, with a confidence between 0 and 1.
type Writer struct {
	PID        int32   `json:"pid"`
	Exe        string  `json:"exe"`
	Confidence float64 `json:"confidence"`
}

// Network is a connection or a listening socket. Its member names are Sweet Security's.
type Network struct {
	Protocol string `json:"protocol"`
	// Direction is "outbound", "inbound" or "listen".
	Direction string `json:"direction"`
	SrcIP     string `json:"src_ip"`
	SrcPort   uint16 `json:"src_port"`
	DstIP     string `json:"dst_ip"`
	DstPort   uint16 `json:"dst_port"`
	// State is the TCP state's name as ss(8) and the kernel's tcp_states.h spell it, without the prefix.
	State            string `json:"state"`
	IsExternal       bool   `json:"is_external"`
	IsSuspiciousPort bool   `json:"is_suspicious_port"`
	BytesSent        uint64 `json:"bytes_sent"`
	BytesReceived    uint64 `json:"bytes_received"`

	Extra jsontext.Value `json:",embed"`
}

// Alert is a rule's finding. It carries the event that made it.
type Alert struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Severity  Severity  `json:"severity"`

	RuleID      string `json:"rule_id"`
	RuleName    string `json:"rule_name"`
	Description string `json:"description"`

	Cluster      string `json:"cluster"`
	NodeName     string `json:"node_name"`
	PodName      string `json:"pod_name"`
	PodNamespace string `json:"pod_namespace"`
	Workload     string `json:"workload"`

	MITRETactic string `json:"mitre_tactic"`
	MITREID     string `json:"mitre_id"`

	EventIDs []string `json:"event_ids"`
	// Fingerprint is equal for repeats of one incident; see [Fingerprint].
	Fingerprint string    `json:"fingerprint"`
	Count       int       `json:"count"`
	FirstSeen   time.Time `json:"first_seen"`
	LastSeen    time.Time `json:"last_seen"`

	// Resolved says that the incident of the fingerprint is over, and not that something happened.
	Resolved bool `json:"resolved,omitzero"`

	Event    *Event        `json:"event,omitzero"`
	Metadata AlertMetadata `json:"metadata"`

	Extra jsontext.Value `json:",embed"`
}

// AlertMetadata is what helps the person who reads an alert.
type AlertMetadata struct {
	Source             string   `json:"source"`
	RecommendedActions []string `json:"recommended_actions,omitempty"`
	References         []string `json:"references,omitempty"`
	// FalsePositives are what may make the rule err.
	FalsePositives []string `json:"false_positives,omitempty"`
	// Summary is true for an alert about repeats that were held back, all of one fingerprint: Count is how many matches
	// there were in the window from FirstSeen to LastSeen, Suppressed how many of those no alert has told of yet.
	Summary    bool `json:"summary,omitzero"`
	Suppressed int  `json:"suppressed,omitzero"`

	Extra jsontext.Value `json:",embed"`
}
