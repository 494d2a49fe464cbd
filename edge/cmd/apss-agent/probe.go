package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/apss-sensor/apss/edge/internal/tier"
)

// report is what an agent may see where it runs.
type report struct {
	Tier       tier.Tier   `json:"tier"`
	WhyNotMore []string    `json:"why_not_more"`
	View       tier.View   `json:"view"`
	Mechanisms []mechanism `json:"mechanisms"`
}

// probe tries what the agent would do with these settings. Faults in those that only a running agent needs do not matter.
func probe(ctx context.Context, s *settings) (*report, error) {
	s.Proc = cmp.Or(s.Proc, "/proc")
	v, err := tier.Look(s.Proc)
	if err != nil {
		return nil, err
	}
	return &report{v.Tier(), v.Reasons(), v, mechanisms(s, v, askPods(ctx, s))}, nil
}

// printProbe prints a report: a table for a person, or JSON.
func printProbe(w io.Writer, environ []string, asJSON bool) error {
	s, _ := load(environ)
	r, err := probe(context.Background(), s)
	if err != nil {
		return err
	}
	if asJSON {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(r)
	}
	return r.print(w)
}

func (r *report) print(w io.Writer) error {
	v := r.View
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "tier\t%s\n", r.Tier)
	for i, reason := range r.WhyNotMore {
		fmt.Fprintf(table, "%s\t%s\n", []string{"why not more", ""}[min(i, 1)], reason)
	}
	fmt.Fprintf(table, "user id\t%d\n", v.UID)
	fmt.Fprintf(table, "capabilities\t%s\n", cmp.Or(strings.Join(v.Capabilities, " "), "none that matter"))
	fmt.Fprintf(table, "processes in view\t%d besides the agent's\n", v.Others)
	fmt.Fprintf(table, "  command lines\t%v\n", v.Cmdline)
	fmt.Fprintf(table, "  executables\t%v\n", v.Exe)
	fmt.Fprintf(table, "    of the own user\t%v\n", v.SameUID)
	fmt.Fprintf(table, "  root folders\t%v\n", v.Root)
	fmt.Fprintf(table, "  open files\t%v\n", v.FD)
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(table, "\nSENSOR\tMECHANISM\tSTATE\t")
	for _, m := range r.Mechanisms {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", m.Sensor, m.Name, m.State, m.Detail)
		if m.Help != "" {
			fmt.Fprintf(table, "\t\t\t-> %s\n", m.Help)
		}
	}
	return table.Flush()
}

// facts are a report for heartbeats.
func (r *report) facts() map[string]any {
	how := map[string]any{}
	for _, m := range r.Mechanisms {
		text := string(m.State)
		if m.Detail != "" {
			text += ": " + m.Detail
		}
		how[m.Sensor+"/"+m.Name] = text
	}
	return map[string]any{"tier": string(r.Tier), "why_not_more": r.WhyNotMore, "mechanisms": how}
}
