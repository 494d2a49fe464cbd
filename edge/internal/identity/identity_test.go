package identity_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/shared/event"
)

func TestAgentID(t *testing.T) {
	for _, c := range []struct{ given, node, pod, want string }{
		{"", "", "", "c/host"},
		{"", "node-a", "", "c/node-a"},
		{"", "node-a", "pod-x", "c/pod-x"},
		{"mine", "node-a", "pod-x", "mine"},
	} {
		if got := identity.New(c.given, "c", c.node, c.pod, "ns", "host").AgentID; got != c.want {
			t.Errorf("%+v: got %q, want %q", c, got, c.want)
		}
	}
}

func TestFillKeepsWhatIsKnown(t *testing.T) {
	i := identity.New("", "c", "n", "agent-pod", "agent-ns", "h")
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, c := range []struct {
		name string
		give event.Event
		want event.Event
	}{
		{"no place known", event.Event{ID: "id", Timestamp: at},
			event.Event{ID: "id", Timestamp: at, AgentID: "c/agent-pod", Cluster: "c", NodeName: "n", PodName: "agent-pod", PodNamespace: "agent-ns"}},
		{"all known", event.Event{ID: "id", Timestamp: at, Cluster: "x", NodeName: "y", PodName: "p", PodNamespace: "q"},
			event.Event{ID: "id", Timestamp: at, AgentID: "c/agent-pod", Cluster: "x", NodeName: "y", PodName: "p", PodNamespace: "q"}},
		{"a pod without namespace is not given ours", event.Event{ID: "id", Timestamp: at, PodName: "p"},
			event.Event{ID: "id", Timestamp: at, AgentID: "c/agent-pod", Cluster: "c", NodeName: "n", PodName: "p"}},
	} {
		got := c.give
		i.Fill(&got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	var e event.Event
	i.Fill(&e)
	if len(e.ID) != 36 || e.Timestamp.IsZero() {
		t.Errorf("got id %q, time %v; want new ones", e.ID, e.Timestamp)
	}
}
