package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin/pagerduty"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/infra/local/internal/view"
)

// canaryEvery is the functions' shortest.
const canaryEvery = 10 * time.Second

// report is what the scenario reads of the answer of GET /health.
type report struct {
	Status       string        `json:"status"`
	WaitingError string        `json:"waiting_error"`
	Integrations []integration `json:"integrations"`
	Agents       struct {
		Live   int           `json:"live"`
		Silent []silentAgent `json:"silent_list"`
	} `json:"agents"`
}

type silentAgent struct {
	ID string `json:"agent_id"`
}

type integration struct {
	Name        string     `json:"name"`
	Status      string     `json:"status"`
	Reasons     []string   `json:"reasons"`
	LastSuccess *time.Time `json:"last_success"`
	DeadLetters int64      `json:"dead_letters"`
	Waiting     *int64     `json:"waiting"`
	Age         *float64   `json:"waiting_seconds"`
	Check       *struct {
		OK bool `json:"ok"`
	} `json:"check"`
	Canary map[string]struct {
		Age float64 `json:"age_seconds"`
	} `json:"canary"`
}

// look asks GET /health.
func (p *play) look(ctx context.Context, query string) (r report, err error) {
	status, body, err := p.Ask(ctx, http.MethodGet, "/health"+query)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %.200s", status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil {
		return r, fmt.Errorf("asking GET /health: %w", err)
	}
	return r, nil
}

// patience bounds the wait for what takes several rounds of the functions.
const patience = 30 * time.Second

// until waits until GET /health says what is wanted.
func (p *play) until(ctx context.Context, what string, there func(*report) bool) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if r, err := p.look(waiting, ""); err == nil && there(&r) {
			return nil
		}
		if pause(waiting, 200*time.Millisecond) != nil {
			return fmt.Errorf("GET /health does not know of %s after %v", what, patience)
		}
	}
}

func (r *report) of(name string) integration {
	for _, i := range r.Integrations {
		if i.Name == name {
			return i
		}
	}
	return integration{Name: name, Status: "not there"}
}

// unwell says what is not as it should be while everything works. Who gets canaries is in canaries, with the topics.
func (r *report) unwell(canaries map[string][]string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if r.Status != "healthy" || r.WaitingError != "" {
		fault("all are %s; %s", r.Status, r.WaitingError)
	}
	for name, topics := range canaries {
		i := r.of(name)
		switch {
		case i.Status != "healthy":
			fault("%s is %s: %s", name, i.Status, strings.Join(i.Reasons, "; "))
		case i.Check == nil || !i.Check.OK:
			fault("%s has no check that was well", name)
		case i.LastSuccess == nil:
			fault("%s has no last success", name)
		case i.Waiting == nil || i.Age == nil:
			fault("what waits for %s is not known", name)
		case len(i.Canary) != len(topics):
			fault("%s has canaries of %d topics, want %d", name, len(i.Canary), len(topics))
		}
		for _, topic := range topics {
			if age := i.Canary[topic].Age; age <= 0 || age > (3*canaryEvery).Seconds() {
				fault("the canary of %s at %s is %.0f s old", topic, name, age)
			}
		}
	}
	return faults
}

// health looks at everything while it works, by HTTP and with apssctl, and has each receiver tested.
func (p *play) health(ctx context.Context) error {
	canaries := map[string][]string{system.SweetSecurity: {"alerts", "events"}, system.Webhook: {"alerts"}, system.Slack: nil, system.PagerDuty: nil}
	waiting, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	var faults []string
	for {
		r, err := p.look(waiting, "?check=now")
		if err != nil && waiting.Err() == nil {
			return err
		}
		if err == nil {
			faults = r.unwell(canaries)
		}
		if len(faults) == 0 {
			p.tell("GET /health: all %d integrations are healthy, delivered, nothing is late; canaries come out at %s and %s", len(r.Integrations), system.SweetSecurity, system.Webhook)
			break
		}
		if pause(waiting, 200*time.Millisecond) != nil {
			return fmt.Errorf("GET /health: after %v: %s", arrival, strings.Join(faults, "; "))
		}
	}
	if err := p.canaryMetric(ctx, canaries); err != nil {
		return err
	}
	if out, err := p.control(ctx, "status"); err == nil {
		head, _, _ := strings.Cut(out, "\n\n")
		for line := range strings.Lines(head) {
			p.tell("    %s", strings.TrimRight(line, "\n"))
		}
	}
	for _, r := range p.Receivers() {
		if err := p.test(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// canaryMetric waits until the age of every canary is a metric: it is of the functions' last look.
func (p *play) canaryMetric(ctx context.Context, canaries map[string][]string) error {
	waiting, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	for {
		_, body, err := p.Ask(waiting, http.MethodGet, "/metrics")
		missing := 0
		for name, topics := range canaries {
			for _, topic := range topics {
				if !hasSample(body, "apss_canary_age", `integration="`+name+`"`, `topic="`+topic+`"`) {
					missing++
				}
			}
		}
		if err == nil && missing == 0 {
			return nil
		}
		if pause(waiting, 200*time.Millisecond) != nil {
			return fmt.Errorf("after %v, %d canaries have no metric of their age", arrival, missing)
		}
	}
}

// hasSample reports whether a line of metrics begins with name and has the labels.
func hasSample(metrics []byte, name string, labels ...string) bool {
	for line := range bytes.Lines(metrics) {
		found := bytes.HasPrefix(line, []byte(name))
		for _, l := range labels {
			found = found && bytes.Contains(line, []byte(l))
		}
		if found {
			return true
		}
	}
	return false
}

// test has a receiver tested by HTTP and by apssctl, and looks at what a person sees of it.
func (p *play) test(ctx context.Context, r *system.Receiver) error {
	marked := func() (n int64) {
		if r.Incidents == nil {
			return r.Tests()
		}
		for _, m := range r.Board.Messages() {
			if strings.Contains(m.Text, system.TestNote) && (m.State == "" || m.State == pagerduty.Resolved) {
				n++
			}
		}
		return n
	}
	before := marked()
	if r.Incidents != nil && before > 0 {
		p.fault("%s shows %d marked messages before anybody tested it", r.Kind, before)
	}
	status, body, err := p.Ask(ctx, http.MethodPost, "/health/"+r.Name+"/test")
	if err != nil {
		return fmt.Errorf("testing %s: %w", r.Name, err)
	}
	var answer struct {
		OK      bool `json:"ok"`
		Results []struct {
			Topic   string  `json:"topic"`
			OK      bool    `json:"ok"`
			Latency float64 `json:"latency_ms"`
			HTTP    int     `json:"http_status"`
			Answer  string  `json:"answer"`
		} `json:"results"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK || !answer.OK || len(answer.Results) == 0 {
		p.fault("POST /health/%s/test answers HTTP %d: %.300s", r.Name, status, body)
	}
	for _, t := range answer.Results {
		if !t.OK || t.Latency <= 0 || t.HTTP < 200 || t.HTTP > 299 {
			p.fault("the test of %s by %s came to %+v", r.Name, t.Topic, t)
		}
		p.tell("test of %s, %s: HTTP %d %s in %.1f ms", r.Kind, t.Topic, t.HTTP, view.Printable(t.Answer), t.Latency)
	}
	if _, err := p.control(ctx, "test", r.Name); err != nil {
		return err
	}
	if got, want := marked()-before, int64(2*len(answer.Results)); got < want { // a canary may come meanwhile
		p.fault("%s got %d marked messages of two tests, want %d", r.Kind, got, want)
	}
	return nil
}

// waits looks, until a time, for what GET /health says of a receiver that hangs.
func (p *play) waits(ctx context.Context, name string, until time.Time) error {
	looking, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		r, err := p.look(looking, "")
		if err == nil {
			if i := r.of(name); i.Waiting != nil && *i.Waiting > 0 && i.Age != nil && *i.Age > 0 {
				p.tell("GET /health: %d messages wait for %s, the oldest for %.0f s", *i.Waiting, name, *i.Age)
				return nil
			}
		}
		if pause(looking, 200*time.Millisecond) != nil {
			p.fault("GET /health never said that something waits for %s, which hangs", name)
			return ctx.Err()
		}
	}
}

// control runs apssctl, which must find nothing wrong, and returns what it printed.
func (p *play) control(ctx context.Context, args ...string) (string, error) {
	out, errs, code, err := p.Control(ctx, args...)
	if err != nil {
		return "", err
	}
	if code != 0 {
		p.fault("apssctl %s ended with exit code %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out, nil
}
