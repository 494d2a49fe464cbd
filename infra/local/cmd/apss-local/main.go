// Command apss-local runs the whole of APSS on one machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/measure"
	"github.com/apss-sensor/apss/infra/local/internal/scenario"
	"github.com/apss-sensor/apss/infra/local/internal/system"
)

const usage = `apss-local runs the whole of APSS on this machine: agent, Pub/Sub, functions, and
stand-ins of Sweet Security, Slack, PagerDuty and a webhook.

  apss-local [flags]            runs and shows it until Ctrl-C
  apss-local scenario [flags]   plays a scenario with kills and outages, checks that nothing was lost: exit 0 or 1
  apss-local bench [flags]      measures latency and idle cost, then soaks: lines of "BENCH <name> <value> <unit>"
  apss-local soak [flags]       runs the agent under a steady load for -for, and says whether it grows: exit 0 or 1

With PUBSUB_EMULATOR_HOST set, Google's emulator is used instead of the Pub/Sub in this process.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second one ends it at once
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	success = 0
	failure = 1
	misuse  = 2
)

func run(ctx context.Context, args []string, getenv func(string) string, stdout *os.File, stderr io.Writer) int {
	command := "up"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	config := system.Defaults()
	config.Emulator = getenv("PUBSUB_EMULATOR_HOST")
	flags, asJSON, soakFor := newFlags(&config, stderr)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return success
		}
		return misuse
	}
	complain := func(err error, code int) int {
		fmt.Fprintln(stderr, "apss-local:", strings.ReplaceAll(err.Error(), "\n", "\napss-local: "))
		return code
	}
	var do func() error
	switch command {
	case "up":
		do = func() error { return up(ctx, config, stdout) }
	case "scenario":
		do = func() error { return scenario.Run(ctx, config, stdout, *asJSON) }
	case "bench":
		do = func() error {
			return errors.Join(measure.Run(ctx, config, stdout), measure.Soak(ctx, config, *soakFor, stdout))
		}
	case "soak":
		do = func() error { return measure.Soak(ctx, config, *soakFor, stdout) }
	default:
		return complain(fmt.Errorf("no command %q: there are scenario, bench and soak, and none to stay up", command), misuse)
	}
	if *asJSON && command != "scenario" {
		return complain(errors.New("-json goes with scenario only"), misuse)
	}
	if *soakFor < time.Second {
		return complain(fmt.Errorf("-for %v is less than a second", *soakFor), misuse)
	}
	if flags.NArg() > 0 {
		return complain(fmt.Errorf("%q is too much: flags only", flags.Arg(0)), misuse)
	}
	temporary := config.Dir == ""
	if temporary {
		dir, err := os.MkdirTemp("", "apss-local-")
		if err != nil {
			return complain(fmt.Errorf("making a folder: %w (name one with -dir)", err), misuse)
		}
		config.Dir = dir
	}
	dir, err := filepath.Abs(config.Dir) // the agent takes no other
	if err != nil {
		return complain(err, misuse)
	}
	config.Dir = dir
	if err := config.Validate(); err != nil {
		if temporary {
			_ = os.RemoveAll(config.Dir)
		}
		return complain(err, misuse)
	}
	if err := do(); err != nil {
		complain(err, failure)
		fmt.Fprintln(stderr, "apss-local: the log is", config.LogFile())
		return failure
	}
	if temporary {
		if err := os.RemoveAll(config.Dir); err != nil {
			return complain(err, failure)
		}
	}
	return success
}

func newFlags(c *system.Config, stderr io.Writer) (flags *flag.FlagSet, asJSON *bool, soakFor *time.Duration) {
	flags = flag.NewFlagSet("apss-local", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&c.Bin, "bin", c.Bin, "`folder` of the programs apss-agent and apss-functions")
	flags.StringVar(&c.Dir, "dir", "", "`folder` for logs, spool and the demo files; a temporary one, removed after success, unless given")
	flags.Func("watch", "comma-separated `paths` that the agent watches besides the demo folder (default "+strings.Join(c.Watch, ",")+")",
		func(s string) error {
			c.Watch = strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
			return nil
		})
	flags.IntVar(&c.PubSubPort, "pubsub-port", 0, "`port` of the Pub/Sub in this process; 0 takes a free one, as for the other ports")
	flags.IntVar(&c.FunctionsPort, "functions-port", 0, "`port` of apss-functions")
	flags.IntVar(&c.AgentPort, "agent-port", 0, "`port` of the agent's metrics")
	flags.IntVar(&c.SweetPort, "sweet-port", 0, "`port` of Sweet Security's stand-in")
	flags.IntVar(&c.SlackPort, "slack-port", 0, "`port` of Slack's stand-in")
	flags.IntVar(&c.PagerDutyPort, "pagerduty-port", 0, "`port` of PagerDuty's stand-in")
	flags.IntVar(&c.WebhookPort, "webhook-port", 0, "`port` of the webhooks' stand-in")
	flags.DurationVar(&c.IncidentWindow, "incident-window", c.IncidentWindow, "repeats of an incident within it are one update for people")
	flags.DurationVar(&c.ResolveAfter, "resolve-after", c.ResolveAfter, "an incident that is quiet for so long is over")
	flags.DurationVar(&c.AckDeadline, "ack-deadline", c.AckDeadline, "ack deadline of the push subscriptions")
	flags.DurationVar(&c.MinBackoff, "retry-min", c.MinBackoff, "minimum backoff of their retry policies")
	flags.DurationVar(&c.MaxBackoff, "retry-max", c.MaxBackoff, "maximum backoff of their retry policies")
	flags.IntVar(&c.MaxAttempts, "max-attempts", c.MaxAttempts, "delivery attempts until a message is a dead letter")
	flags.StringVar(&c.Filter, "filter", "", "`filter` of the events' subscription, for instance attributes.severity = \"HIGH\"")
	flags.DurationVar(&c.MaxPushBackoff, "push-backoff-max", c.MaxPushBackoff, "longest stop of all pushes after many failures; the service's is 60s")
	return flags, flags.Bool("json", false, "scenario: print the result as JSON, the story on stderr"),
		flags.Duration("for", 30*time.Second, "bench, soak: how long the agent runs under load; growth shows in an hour")
}
