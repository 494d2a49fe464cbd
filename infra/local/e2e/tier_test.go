package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// probed is what matters here of apss-agent probe -json.
type probed struct {
	Tier       string   `json:"tier"`
	WhyNotMore []string `json:"why_not_more"`
	Mechanisms []struct {
		Sensor, Name, State, Detail, Help string
	} `json:"mechanisms"`
}

// using returns the mechanisms of a sensor that are in use.
func (p probed) using(sensor string) string {
	var names []string
	for _, m := range p.Mechanisms {
		if m.Sensor == sensor && m.State == "in use" {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, ", ")
}

// seen is what witness look tells of a process.
type seen struct {
	PID         int
	UID         int
	Cmdline     string
	Exe         string
	Root, Files bool
	Mine        bool
}

// TestProbeTellsTheTruth runs the agent with every right that it may have in a cluster, beside an application of user
// 1000 and another of user 2000, and an eye with the same rights as the agent.
func TestProbeTellsTheTruth(t *testing.T) {
	c := open(t)
	share := func(p *corev1.Pod) *corev1.Pod {
		yes := true
		p.Spec.ShareProcessNamespace = &yes
		return p
	}
	alone := func(p *corev1.Pod) *corev1.Pod { return p }
	for _, test := range []struct {
		name         string
		uid          int64
		capabilities []corev1.Capability
		place        func(*corev1.Pod) *corev1.Pod
		want         string
		app, other   bool // the processes of both may be read
		process      string
		why          string
	}{
		{"node", 0, everything, nodeAgent, "node", true, true, "connector", ""},
		{"node-without-capabilities", 0, nil, nodeAgent, "pod-limited", false, false, "connector", "CAP_SYS_PTRACE"},
		{"pod-full", 0, everything, share, "pod-full", true, true, "opens", "hostPID"},
		{"pod-full-without-dac", 0, everything[:1], share, "pod-same-uid", true, true, "opens", "CAP_DAC_OVERRIDE"},
		{"pod-same-uid", 1000, nil, share, "pod-same-uid", true, false, "opens", "1 of 3"},
		{"capabilities-for-nobody", 65534, everything, share, "pod-limited", false, false, "opens", "CAP_SYS_PTRACE"},
		{"pod-limited", 65534, nil, share, "pod-limited", false, false, "opens", "application's user"},
		{"alone", 0, everything, alone, "pod-limited", false, false, "opens", "shareProcessNamespace"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := *c
			c.t = t
			apps := "2"
			if test.name == "alone" {
				apps = "0"
			}
			after := []string{"/bin/witness", "after", apps}
			c.run(test.place(c.pod(test.name,
				c.container("app", 1000, nil, "/bin/witness", "app"),
				c.container("other", 2000, nil, "/bin/witness", "app"),
				c.container("probe", test.uid, test.capabilities, append(after, "/bin/apss-agent", "probe")...),
				c.container("json", test.uid, test.capabilities, append(after, "/bin/apss-agent", "probe", "-json")...),
				c.container("eye", test.uid, test.capabilities, append(after, "/bin/witness", "look")...),
			)))
			t.Logf("apss-agent probe:\n%s", c.output(test.name, "probe"))
			var got probed
			if err := json.Unmarshal([]byte(c.output(test.name, "json")), &got); err != nil {
				t.Fatal(err)
			}
			var truth []seen
			if err := json.Unmarshal([]byte(c.output(test.name, "eye")), &truth); err != nil {
				t.Fatal(err)
			}
			if got.Tier != test.want || got.using("process") != test.process {
				t.Errorf("got tier %q by %q, want %q by %q", got.Tier, got.using("process"), test.want, test.process)
			}
			if why := strings.Join(got.WhyNotMore, "\n"); !strings.Contains(why, test.why) {
				t.Errorf("got why_not_more %q, want %q in it", why, test.why)
			}
			for _, uid := range []int{1000, 2000} {
				want := map[int]bool{1000: test.app, 2000: test.other}[uid]
				var exes, files, all int
				for _, p := range truth {
					if p.UID != uid || !strings.Contains(p.Cmdline, "/witness app") {
						continue
					}
					all++
					if p.Exe != "" && p.Root {
						exes++
					}
					if p.Files {
						files++
					}
				}
				if (all > 0) != (test.name != "alone") {
					t.Errorf("the eye sees %d applications of user %d", all, uid)
				}
				// What the tier claims is what the eye reads: all of them or none.
				if want && exes != all || !want && exes != 0 {
					t.Errorf("the eye reads %d of %d executables of user %d, and the tier is %s", exes, all, uid, got.Tier)
				}
				if claims := got.Tier == "node" || got.Tier == "pod-full" || got.Tier == "pod-same-uid" && int64(uid) == test.uid; claims != (all > 0 && files == all) {
					t.Errorf("the eye reads the files of %d of %d processes of user %d, and the tier is %s", files, all, uid, got.Tier)
				}
			}
		})
	}
}
