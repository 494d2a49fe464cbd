package alerting

import "github.com/apss-sensor/apss/shared/event"

// base is what an event is worth before any rule has spoken: it orders what may give way when buffers are full. Files
// are watched because somebody named them. Reads are told of secrets only, and what may be amiss with one says a rule.
func base(e *event.Event) event.Severity {
	switch e.Type {
	case event.FileCreate, event.FileModify, event.FileDelete, event.FileRename, event.FileChmod, event.FileChown:
		return event.Low
	case event.NetworkListen:
		return event.Low
	case event.NetworkConnect:
		if e.Network != nil && (e.Network.IsExternal || e.Network.IsSuspiciousPort) {
			return event.Low
		}
	default:
	}
	return event.Info
}
