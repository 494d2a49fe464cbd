package tier

import (
	"slices"
	"strings"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/event"
)

// Sight is what the agent's sensors fill at t, by which a rule is live, degraded or blind there. At SameUID it is what is
// seen of the processes that run as the agent's user. Admission is the webhook's to see, at no tier the agent's.
func (t Tier) Sight() detect.Sight {
	s := detect.Sight{Type: func(typ event.Type) bool {
		family, _, _ := strings.Cut(string(typ), "_")
		return slices.Contains([]string{"process", "file", "network", "agent"}, family)
	}}
	if t == Limited {
		s.Field = limitedField
	}
	return s
}

// Sights are what the sensors fill of each kind of process in v: where another user's are in view besides the agent's own, of
// those what Limited sees.
func (v View) Sights() []detect.Sight {
	t := v.Tier()
	if v.Mixed() {
		return []detect.Sight{t.Sight(), Limited.Sight()}
	}
	return []detect.Sight{t.Sight()}
}

// idle are processes of another user that a pod has in any case: the pause container's.
const idle = 1

// Mixed reports whether v is SameUID and there is more in it than the agent's user's.
func (v View) Mixed() bool { return v.Tier() == SameUID && v.Exe.Refused-v.Hide > idle }

// limitedField is what may be read of a process without its consent: proc(5), "ptrace access mode". The names of the
// programs come from their command lines.
func limitedField(typ event.Type, name string) bool {
	family, _, _ := strings.Cut(string(typ), "_")
	switch {
	case name == "metadata.stdio_socket", name == "metadata.env", name == "file.writers.exe":
		return false
	case family != "process" && strings.HasPrefix(name, "process."):
		return false // who holds a socket or a file is in /proc/PID/fd
	}
	return !slices.Contains([]string{
		"process.exe", "process.exe_deleted", "process.cwd", "process.parent.exe", "process.ancestors.exe", "metadata.previous_exe",
	}, name)
}
