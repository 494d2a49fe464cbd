package workload

import "testing"

func TestOf(t *testing.T) {
	for _, tt := range []struct{ name, kind, owner, label, hash, want string }{
		{"Deployment", "ReplicaSet", "web-app-5d4f", LabelHash, "5d4f", "Deployment/web-app"},
		{"ReplicaSet of its own", "ReplicaSet", "web-5d4f", "", "", "ReplicaSet/web-5d4f"},
		{"ReplicaSet with another hash", "ReplicaSet", "web-5d4f", LabelHash, "4f", "ReplicaSet/web-5d4f"},
		{"ReplicaSet that is all hash", "ReplicaSet", "-5d4f", LabelHash, "5d4f", "ReplicaSet/-5d4f"},
		{"Argo Rollout", "ReplicaSet", "web-5d4f", LabelRollout, "5d4f", "Rollout/web"},
		{"CronJob", "Job", "back-up-29387520", "", "", "CronJob/back-up"},
		{"CronJob of Kubernetes 1.20", "Job", "backup-1763251200", "", "", "CronJob/backup"},
		{"Job of a date", "Job", "backup-20261122", "", "", "Job/backup-20261122"},
		{"Job of a number", "Job", "shard-7", "", "", "Job/shard-7"},
		{"Job of a name", "Job", "backup-manual", "", "", "Job/backup-manual"},
		{"Job of digits", "Job", "29387520", "", "", "Job/29387520"},
		{"Job of a sign", "Job", "backup-+9387520", "", "", "Job/backup-+9387520"},
		{"StatefulSet", "StatefulSet", "db", "", "", "StatefulSet/db"},
		{"an operator's", "Workflow", "etl-1", "", "", "Workflow/etl-1"},
		{"static", "Node", "node-1", "", "", "Pod/x-2k4j"},
		{"bare", "", "", "", "", "Pod/x-2k4j"},
	} {
		got := Of("x-2k4j", tt.kind, tt.owner, func(name string) string {
			if name == tt.label {
				return tt.hash
			}
			return ""
		})
		if got != tt.want {
			t.Errorf("%s: got %q want %q", tt.name, got, tt.want)
		}
	}
}
