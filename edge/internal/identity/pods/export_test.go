package pods

import (
	"log/slog"

	"k8s.io/client-go/tools/cache"
)

var Workload = workloadOf

// NewStored returns a directory and the store that a reflector would fill.
func NewStored(log *slog.Logger) (*Directory, cache.ReflectorStore) {
	d := newDirectory(log)
	return d, (*store)(d)
}
