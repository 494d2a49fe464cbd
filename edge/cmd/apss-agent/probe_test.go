package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProbe(t *testing.T) {
	var out, errs bytes.Buffer
	if code := command([]string{"probe"}, nil, &out, &errs); code != exitOK {
		t.Fatalf("got exit code %d: %s", code, &errs)
	}
	for _, want := range []string{"tier  ", "capabilities  ", "processes in view  ", "  executables  ", "connector ", "polling ", "inotify ",
		"/proc/net ", "cgroup ", "NODE_NAME is not set"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant it to have %q", &out, want)
		}
	}
	if strings.Count(out.String(), "polling  ") != 1 {
		t.Errorf("got\n%s\nwant polling once", &out)
	}
	if code := command([]string{"probe"}, []string{"HOST_PROC=" + t.TempDir()}, &out, &errs); code != exitFailed {
		t.Errorf("got exit code %d where there is no procfs", code)
	}
}

func TestProbeJSON(t *testing.T) {
	var out, errs bytes.Buffer
	if code := command([]string{"probe", "-json"}, []string{"POD_NAME=p", "POD_NAMESPACE=n"}, &out, &errs); code != exitOK {
		t.Fatalf("got exit code %d: %s", code, &errs)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	used := map[string]int{}
	for _, m := range r.Mechanisms {
		if m.State == inUse {
			used[m.Sensor]++
		}
		if m.State == refused && (m.Detail == "" || m.Help == "") {
			t.Errorf("%s is refused without a reason or help: %+v", m.Name, m)
		}
	}
	if r.Tier == "" || used["process"] != 1 || used["identity"] != 2 || r.View.Others == 0 {
		t.Errorf("got %s", &out)
	}
}

func TestBest(t *testing.T) {
	states := func(all []mechanism) (s []state) {
		for _, m := range all {
			s = append(s, m.State)
		}
		return s
	}
	bad := mechanism{State: refused}
	if diff := cmp.Diff([]state{refused, inUse, available, refused}, states(best("x", bad, mechanism{}, mechanism{}, bad))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]state{refused}, states(best("x", bad))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
