package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/apss-sensor/apss/edge/internal/tier"
)

// printProbe prints what an agent may see here, and why not more.
func printProbe(w io.Writer, proc string) error {
	v, err := tier.Look(proc)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "tier\t%s\n", v.Tier())
	fmt.Fprintf(table, "user id\t%d\n", v.UID)
	fmt.Fprintf(table, "capabilities\t%s\n", cmp.Or(strings.Join(v.Capabilities, " "), "none that matter"))
	fmt.Fprintf(table, "processes in view\t%d besides the agent's\n", v.Others)
	fmt.Fprintf(table, "  command lines\t%v\n", v.Cmdline)
	fmt.Fprintf(table, "  executables\t%v\n", v.Exe)
	fmt.Fprintf(table, "  root folders\t%v\n", v.Root)
	fmt.Fprintf(table, "  open files\t%v\n", v.FD)
	for i, r := range v.Reasons() {
		name := ""
		if i == 0 {
			name = "why not more"
		}
		fmt.Fprintf(table, "%s\t%s\n", name, r)
	}
	return table.Flush()
}
