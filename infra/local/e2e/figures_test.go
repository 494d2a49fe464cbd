package e2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/shared/event"
)

// bench prints a figure as make bench does.
func (c *cluster) bench(name string, value float64, unit string) {
	c.t.Helper()
	fmt.Printf("BENCH e2e_%s %.3g %s\n", name, value, unit)
}

// quantile is the value that a part of them does not exceed.
func quantile(all []time.Duration, part float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)].Seconds()
}

// quickness measures how soon deeds are alerts: on the topic, and at Sweet Security.
func (in *cloud) quickness(m *master, pod *corev1.Pod, kind string) {
	in.t.Helper()
	const deeds, rule = 100, "APSS-009"
	i, done := m.caught(pod.Name), map[string]time.Time{}
	for n := range deeds {
		name := fmt.Sprintf("quick-%d", n)
		done["/bin/sh -c id # deed "+name] = i.order(in.t, "shell", name)
		in.pause(pace)
	}
	took := func(alerts func() []arrival[*event.Alert]) (all []time.Duration) {
		in.t.Helper()
		found, from := map[string]bool{}, 0
		in.await(fmt.Sprintf("%d alerts of %s", deeds, rule), func(context.Context) error {
			in.mu.Lock()
			defer in.mu.Unlock()
			for list := alerts(); from < len(list); from++ {
				a := list[from].what
				if a.RuleID != rule || a.PodName != pod.Name || a.Event == nil || a.Event.Process == nil {
					continue
				}
				if did, ok := done[a.Event.Process.Cmdline]; ok && !found[a.Event.Process.Cmdline] {
					found[a.Event.Process.Cmdline] = true
					all = append(all, list[from].at.Sub(did))
				}
			}
			if len(found) < deeds {
				return fmt.Errorf("%d", len(found))
			}
			return nil
		})
		return all
	}
	topic, sweet := took(func() []arrival[*event.Alert] { return in.published }), took(func() []arrival[*event.Alert] { return in.alerts })
	for name, part := range map[string]float64{"p50": .5, "p99": .99} {
		in.bench(kind+"deed_to_alert_"+name, quantile(topic, part), "s")
		in.bench(kind+"deed_to_receiver_"+name, quantile(sweet, part), "s")
	}
}

// place is a program's /metrics, as the API server reaches them.
type place struct {
	namespace, pod string
	port           int
}

var aFigure = regexp.MustCompile(`(?m)^(process_(?:resident_memory_bytes|cpu_seconds_total)) (\S+)$`)

// figures prints what programs take of memory, and of CPU over some seconds: idle, and while an implant runs 100 programs a
// second.
func (r *release) figures(i *implant, places map[string]place) {
	r.t.Helper()
	over := during(30*time.Second, 5*time.Second)
	read := func(at place) map[string]float64 {
		r.t.Helper()
		text, err := r.client.CoreV1().Pods(at.namespace).ProxyGet("http", at.pod, strconv.Itoa(at.port), "/metrics", nil).DoRaw(r.patience())
		if err != nil {
			r.t.Fatalf("the metrics of %s: %v", at.pod, err)
		}
		all := map[string]float64{"at": float64(time.Now().UnixNano()) / 1e9}
		for _, m := range aFigure.FindAllSubmatch(text, -1) {
			if all[string(m[1])], err = strconv.ParseFloat(string(m[2]), 64); err != nil {
				r.t.Fatal(err)
			}
		}
		if len(all) != 3 {
			r.t.Fatalf("the metrics of %s lack its memory or CPU: %v", at.pod, all)
		}
		return all
	}
	for _, state := range []struct {
		name  string
		spend func()
	}{
		{"idle", func() { r.pause(over) }},
		{"100_execs", func() { i.order(r.t, "load", fmt.Sprintf("100*%d", int(over.Seconds()))) }},
	} {
		before := map[string]map[string]float64{}
		for name, at := range places {
			before[name] = read(at)
		}
		state.spend()
		for _, name := range slices.Sorted(maps.Keys(places)) {
			after := read(places[name])
			r.bench(name+"_"+state.name+"_memory", after["process_resident_memory_bytes"]/(1<<20), "MiB")
			r.bench(name+"_"+state.name+"_cpu", (after["process_cpu_seconds_total"]-before[name]["process_cpu_seconds_total"])/(after["at"]-before[name]["at"])*1000, "millicores")
		}
	}
}

// startups measures how soon an application runs, in pods with a sidecar and in others, one after the other.
func (m *master) startups(injected *cluster) {
	m.t.Helper()
	pairs := 1
	if whole {
		pairs = 15
	}
	took := map[string][]time.Duration{}
	for n := range pairs {
		for kind, c := range map[string]*cluster{"with": injected, "without": m.cluster} {
			p := m.victim(c, "").Spec
			p.RestartPolicy = corev1.RestartPolicyNever
			name := fmt.Sprintf("startup-%d", n)
			began := time.Now()
			c.run(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name + "-" + kind}, Spec: p})
			took[kind] = append(took[kind], m.caught(name+"-"+kind).called.Sub(began))
			now := int64(0)
			if err := c.client.CoreV1().Pods(c.namespace).Delete(c.patience(), name+"-"+kind, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	for kind, all := range took {
		m.t.Logf("from a pod to its application, %s a sidecar: %v", kind, all)
		m.bench("pod_start_"+kind+"_sidecar_p50", quantile(all, .5), "s")
	}
}
