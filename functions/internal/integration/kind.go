package integration

import (
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/shared/secret"
)

// Kind makes integrations of one kind. Each folder below integrations/ has a function Kind that returns it.
type Kind struct {
	Name string // as in the document: "slack"
	Rate Rate   // of an instance whose document says none: what the receiver is known to bear
	// Settings returns a pointer to a new struct with the kind's own settings at their defaults. Its fields have yaml
	// tags, none of them a key of [Instance]'s; the document is decoded into it, and an unknown key is a fault.
	Settings func() Settings
}

// Settings are one instance's own, from the document.
type Settings interface {
	// Validate reports every fault of the settings, joined. Each names the key.
	Validate() error
	// New makes the integration. Nothing outside is called yet.
	New(e Env) (Integration, error)
}

// Env is what an integration gets from the program.
type Env struct {
	Name    string // of the instance
	Version string // of the program, for User-Agent
	// Local: a run on a developer's machine. Plain HTTP and private addresses are allowed.
	Local    bool
	Timeout  time.Duration // of one call to the receiver
	MaxConns int           // calls at the same time
	Log      *slog.Logger
	Meter    metric.Meter
}

// UserAgent is what the integration calls itself at its receiver.
func (e Env) UserAgent() string { return strings.TrimSuffix("apss-functions/"+e.Version, "/") }

// Secret is a setting whose value is a reference ("secret://projects/P/secrets/S/versions/V", "file://", "env://"). The
// document's reader refuses a plain value outside local runs, and sets Source.
type Secret struct {
	secret.Source
	Ref string // as in the document, for messages; empty when the value was plain or is not set
}

// Set reports whether the document has it.
func (s Secret) Set() bool { return s.Source != nil }
