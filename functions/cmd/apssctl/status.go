package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apss-sensor/apss/functions/internal/health"
)

// status prints the report; it is unwell when an integration fails.
func (c *control) status(ctx context.Context, args []string) error {
	flags := c.flags("status", "")
	asJSON := flags.Bool("json", false, "print the report as it came")
	check := flags.Bool("check", false, "ask every receiver now, and wait for it")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	f, err := c.functions()
	if err != nil {
		return err
	}
	defer f.client.Close()
	query := ""
	if *check {
		query = "check=now"
	}
	var r health.Report
	if err := f.ask(ctx, http.MethodGet, "/health", query, &r, http.StatusOK); err != nil {
		return err
	}
	if *asJSON {
		err = c.json(r)
	} else {
		err = c.table(&r)
	}
	if err == nil && r.Status == health.Failing {
		return errUnwell
	}
	return err
}

func (c *control) json(v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (c *control) table(r *health.Report) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tKIND\tSTATUS\tLAST SUCCESS\tPER HOUR\tFAILURES\tDEAD\tWAITING\tBREAKER\tCANARY")
	for _, i := range r.Integrations {
		waiting := "-"
		if i.Waiting != nil {
			waiting = strconv.FormatInt(*i.Waiting, 10)
			if i.WaitingAge != nil && *i.Waiting > 0 {
				waiting += ", " + (time.Duration(*i.WaitingAge) * time.Second).String()
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\n", printable(i.Name), printable(i.Kind), i.Status, ago(r.Time, i.LastSuccess),
			i.PerHour, failures(i.Failures), i.DeadLetters, waiting, breaker(r.Time, i.Breaker), canary(i.Canary))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Integrations) == 0 {
		fmt.Fprintln(c.stdout, "There is no integration; write APSS_INTEGRATIONS (docs/integrations.md).")
	}
	gap := "\n"
	for _, i := range r.Integrations {
		if i.Status == health.Disabled {
			continue
		}
		for _, reason := range i.Reasons {
			fmt.Fprintf(c.stdout, "%s%s: %s\n", gap, printable(i.Name), printable(reason))
			gap = ""
		}
	}
	fmt.Fprintf(c.stdout, "\nagents: %d live, %d silent, %d ended in the last day\n", r.Agents.Live, r.Agents.Silent, r.Agents.Ended)
	for _, a := range r.Agents.List {
		fmt.Fprintf(c.stdout, "  silent: %s, last heard %s\n", printable(a.ID), ago(r.Time, a.Last))
	}
	if r.WaitingError != "" {
		fmt.Fprintf(c.stdout, "waiting: not known: %s\n", printable(r.WaitingError))
	}
	switch {
	case !r.State.DownSince.IsZero():
		fmt.Fprintf(c.stdout, "state: down since %s, going on with memory: %s\n", r.State.DownSince.Format(time.RFC3339), printable(r.State.Reason))
	case !r.State.Shared:
		fmt.Fprintln(c.stdout, "state: not shared; deliveries of other instances are not in these figures")
	}
	return nil
}

// printable is s without what could write over a terminal.
func printable(s string) string {
	q := strconv.Quote(s)
	q = q[1 : len(q)-1]
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q)
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return max(now.Sub(t), 0).Round(time.Second).String() + " ago"
}

func failures(m map[string]int64) string {
	parts := make([]string, 0, len(m))
	for _, class := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s:%d", printable(class), m[class]))
	}
	return cmp.Or(strings.Join(parts, " "), "-")
}

func breaker(now time.Time, b health.BreakerReport) string {
	if wait := b.NextRetry.Sub(now); wait > 0 {
		return printable(b.State) + ", retry in " + wait.Round(time.Second).String()
	}
	return printable(b.State)
}

func canary(m map[string]health.CanaryReport) string {
	parts := make([]string, 0, len(m))
	for _, topic := range slices.Sorted(maps.Keys(m)) {
		age := "none yet"
		if s := m[topic].AgeSeconds; s >= 0 {
			age = (time.Duration(s) * time.Second).String() + " old"
		}
		parts = append(parts, printable(topic)+" "+age)
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}

// test sends a marked test and says what the receiver said.
func (c *control) test(ctx context.Context, args []string) error {
	flags := c.flags("test", "INTEGRATION")
	asJSON := flags.Bool("json", false, "print the answer as it came")
	operands, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	f, err := c.functions()
	if err != nil {
		return err
	}
	defer f.client.Close()
	var r health.TestReport
	if err := f.ask(ctx, http.MethodPost, "/health/"+url.PathEscape(operands[0])+"/test", "", &r, http.StatusOK, http.StatusBadGateway); err != nil {
		return err
	}
	if *asJSON {
		err = c.json(r)
	} else {
		for _, t := range r.Results {
			said := "accepted"
			if !t.OK {
				said = "not accepted: " + t.Error
			}
			if t.HTTP != 0 && t.OK {
				said += fmt.Sprintf(", HTTP %d", t.HTTP)
			}
			if t.Answer != "" && t.OK {
				said += ": " + t.Answer
			}
			fmt.Fprintf(c.stdout, "%s, %s: %s (%.1f ms)\n", printable(r.Integration), printable(t.Topic), printable(said), t.LatencyMS)
		}
	}
	if err == nil && !r.OK {
		return errUnwell
	}
	return err
}
