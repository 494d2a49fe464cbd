package view

import (
	"fmt"
	"path"
	"strings"

	"github.com/apss-sensor/apss/shared/event"
)

// Detail is what else an event tells that a person asks next: where, by whom, what of it. It is empty when there is
// nothing, and as untrusted as the event.
func Detail(e *event.Event) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if where := place(e); where != "" {
		add("in %s", where)
	}
	if e.File != nil {
		fileDetail(e, add)
	}
	if p := e.Process; p != nil {
		if e.File != nil || e.Network != nil {
			add("by %s", named(p.Exe, p.Cmdline, p.PID))
		}
		if script, ok := e.Metadata["script"].(string); ok {
			add("script %s", script)
		}
		if p.ExeDeleted {
			add("its file is gone")
		}
		if e.Metadata["stdio_socket"] == true {
			add("talks over a socket")
		}
		if p.Capture == event.CapturePartial || p.Capture == event.CaptureName {
			add("known %s", map[event.Capture]string{event.CapturePartial: "in part", event.CaptureName: "by name only"}[p.Capture])
		}
		if line := lineage(p); line != "" {
			add("%s", line)
		}
	}
	return strings.Join(parts, " · ")
}

// place is the container and the pod that an event is of.
func place(e *event.Event) string {
	const shortID = 12 // as container runtimes print them
	var name string
	if c := e.Container; c != nil {
		if name = c.Name; name == "" {
			name = c.ID[:min(len(c.ID), shortID)]
		}
	}
	switch {
	case e.PodName == "":
		return name
	case name == "":
		return e.PodNamespace + "/" + e.PodName
	}
	return e.PodNamespace + "/" + e.PodName + "/" + name
}

func fileDetail(e *event.Event, add func(string, ...any)) {
	f := e.File
	if from, ok := e.Metadata["renamed_from"].(string); ok {
		add("from %s", from)
	}
	if p := f.Previous; p != nil && f.Mode != "" && p.Mode != f.Mode {
		add("mode %s, was %s", f.Mode, p.Mode)
	}
	if f.Diff != "" {
		add("%s", diffHint(f.Diff))
	}
	writers := make([]string, 0, len(f.Writers))
	for _, w := range f.Writers {
		writers = append(writers, fmt.Sprintf("%s %.0f%%", named(w.Exe, "", w.PID), 100*w.Confidence))
	}
	if len(writers) > 0 {
		add("perhaps by %s", strings.Join(writers, ", "))
	}
	switch {
	case e.Metadata["while_down"] == true:
		add("while the agent was down")
	case e.Metadata["rescan"] == true:
		add("found by a rescan")
	}
}

// diffHint is how many lines came and went, and the first that came, or else went.
func diffHint(diff string) string {
	var added, removed int
	var first, gone string
	for line := range strings.Lines(diff) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "+++") || strings.HasPrefix(line, "---"):
		case strings.HasPrefix(line, "+"):
			if added++; added == 1 {
				first = line
			}
		case strings.HasPrefix(line, "-"):
			if removed++; removed == 1 {
				gone = line
			}
		}
	}
	if first == "" {
		first = gone
	}
	const most = 60
	return strings.TrimSpace(fmt.Sprintf("+%d −%d lines %s", added, removed, cut(first, most)))
}

// lineage is who started a process, up to the first.
func lineage(p *event.Process) string {
	if p.Parent == nil {
		return ""
	}
	names := []string{"from " + named(p.Parent.Exe, p.Parent.Cmdline, p.Parent.PID)}
	for _, a := range p.Ancestors {
		names = append(names, named(a.Exe, a.Cmdline, a.PID))
	}
	return strings.Join(names, " ← ")
}

// named is a program's name with its pid, as far as they are known.
func named(exe, cmdline string, pid int32) string {
	name, _, _ := strings.Cut(cmdline, " ")
	if exe != "" {
		name = exe
	}
	if name == "" {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("%s[%d]", path.Base(name), pid)
}
