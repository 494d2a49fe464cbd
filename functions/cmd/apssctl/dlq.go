package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"cloud.google.com/go/pubsub/v2"

	"github.com/apss-sensor/apss/functions/internal/deadletter"
)

// filter says which letters are meant. The zero value is all.
type filter struct {
	integration  string
	reason       string // in lower case
	since, until time.Time
}

func (f *filter) match(k *deadletter.Kept) bool {
	return (f.integration == "" || k.Integration == f.integration) &&
		(f.reason == "" || strings.Contains(strings.ToLower(k.Reason), f.reason)) &&
		(f.since.IsZero() || !k.Time.Before(f.since)) && (f.until.IsZero() || k.Time.Before(f.until))
}

// box are the flags of every use of dead letters, and what they say.
type box struct {
	filter
	subscription string
	limit        int
}

func (b *box) flags(f *flag.FlagSet) {
	f.StringVar(&b.subscription, "subscription", "apss-dead-letters", "of the topic of dead letters: an id, or projects/P/subscriptions/S")
	f.IntVar(&b.limit, "limit", 1000, "letters at most, 1 to 10000")
}

func (b *box) filters(f *flag.FlagSet, now time.Time) {
	f.StringVar(&b.integration, "integration", "", "that it was for")
	f.Func("reason", "a part of it; case does not matter", func(s string) error { b.reason = strings.ToLower(s); return nil })
	at := func(t *time.Time) func(string) error {
		return func(s string) (err error) {
			*t, err = moment(s, now)
			return err
		}
	}
	f.Func("since", "given up at that time or later: RFC 3339, or how long ago (2h)", at(&b.since))
	f.Func("until", "given up before that time: RFC 3339, or how long ago (10m)", at(&b.until))
}

func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, errors.New("want a time like 2026-11-22T10:00:00Z, or how long ago, like 2h")
	}
	return t, nil
}

// open returns the box, and what closes it.
func (c *control) open(ctx context.Context, b *box) (*deadletter.Box, func(), error) {
	if b.limit < 1 || b.limit > 10_000 {
		return nil, nil, fmt.Errorf("-limit is %d, want 1 to 10000; %w", b.limit, errUsage)
	}
	project := c.env("PUBSUB_PROJECT_ID")
	if project == "" {
		return nil, nil, fmt.Errorf("PUBSUB_PROJECT_ID is not set: the project of the dead letters; %w", errUsage)
	}
	client, err := pubsub.NewClient(ctx, project)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to Pub/Sub (gcloud auth application-default login lets you): %w", err)
	}
	return deadletter.OpenBox(client, b.subscription), func() { _ = client.Close() }, nil
}

// entry is a letter as list -json prints it.
type entry struct {
	ID              string    `json:"id"`
	Time            time.Time `json:"time"`
	Integration     string    `json:"integration"`
	Topic           string    `json:"topic"`
	Reason          string    `json:"reason"`
	ReceiverStatus  int       `json:"receiver_status,omitempty"`
	Count           int       `json:"count"` // of events; 0: it does not say
	Bytes           int       `json:"bytes"`
	Whole           bool      `json:"whole"`
	MessageID       string    `json:"message_id"`
	Subscription    string    `json:"subscription"`
	DeliveryAttempt int       `json:"delivery_attempt,omitempty"`
}

func entryOf(k *deadletter.Kept) entry {
	count, _ := strconv.Atoi(k.Message.Attributes["count"])
	return entry{
		ID: k.ID, Time: k.Time.UTC(), Integration: k.Integration, Topic: k.Topic, Reason: k.Reason, ReceiverStatus: k.Status, Count: count,
		Bytes: len(k.Message.Data), Whole: !k.Truncated, MessageID: k.MessageID, Subscription: k.Subscription, DeliveryAttempt: k.DeliveryAttempt,
	}
}

// entries prints letters as lines of JSON.
func (c *control) entries(letters []deadletter.Kept) error {
	for i := range letters {
		if err := c.line(entryOf(&letters[i])); err != nil {
			return err
		}
	}
	return nil
}

// byTime orders letters, the oldest first.
func byTime(letters []deadletter.Kept) {
	slices.SortStableFunc(letters, func(a, b deadletter.Kept) int { return a.Time.Compare(b.Time) })
}

// list prints the letters, and leaves them where they are.
func (c *control) list(ctx context.Context, args []string) (err error) {
	var b box
	flags := c.flags("dlq list", "")
	b.flags(flags)
	b.filters(flags, time.Now())
	asJSON := flags.Bool("json", false, "print a line of JSON for each")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	letters, more, err := c.read(ctx, &b, b.match)
	if err != nil {
		return err
	}
	if *asJSON {
		err = c.entries(letters)
	} else {
		err = c.letters(letters)
	}
	if err != nil {
		return err
	}
	if more {
		fmt.Fprintln(c.stderr, "apssctl: there are more; raise -limit, or say which with -integration, -reason, -since, -until")
	}
	return nil
}

// read reads letters and gives them back at once.
func (c *control) read(ctx context.Context, b *box, match func(*deadletter.Kept) bool) (letters []deadletter.Kept, more bool, err error) {
	in, done, err := c.open(ctx, b)
	if err != nil {
		return nil, false, err
	}
	defer done()
	if letters, more, err = in.Read(ctx, b.limit, match); err != nil {
		return nil, false, err
	}
	byTime(letters)
	return letters, more, in.Return(context.WithoutCancel(ctx), letters...)
}

func (c *control) letters(letters []deadletter.Kept) error {
	if len(letters) == 0 {
		fmt.Fprintln(c.stdout, "there are no such dead letters")
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTIME\tINTEGRATION\tTOPIC\tHTTP\tEVENTS\tBYTES\tREASON")
	for i := range letters {
		e := entryOf(&letters[i])
		status := "-"
		if e.ReceiverStatus != 0 {
			status = strconv.Itoa(e.ReceiverStatus)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", printable(e.ID), e.Time.Format(time.RFC3339), printable(e.Integration), printable(e.Topic),
			status, e.Count, e.Bytes, printable(e.Reason))
	}
	return w.Flush()
}

// show prints one letter with what is in it.
func (c *control) show(ctx context.Context, args []string) error {
	var b box
	flags := c.flags("dlq show", "ID")
	b.flags(flags)
	operands, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	b.limit = 1
	letters, _, err := c.read(ctx, &b, func(k *deadletter.Kept) bool { return k.ID == operands[0] })
	if err != nil {
		return err
	}
	if len(letters) == 0 {
		fmt.Fprintf(c.stderr, "apssctl: there is no dead letter %s; apssctl dlq list names them\n", printable(operands[0]))
		return errUnwell
	}
	k := &letters[0]
	if err := c.json(struct {
		entry
		Attributes map[string]string `json:"attributes"`
	}{entryOf(k), k.Message.Attributes}); err != nil {
		return err
	}
	if a, err := k.Message.Alert(); err == nil {
		_, err = fmt.Fprintf(c.stdout, "%s\n", a.AppendJSON(nil))
		return err
	}
	events, err := k.Message.Events(nil)
	for _, e := range events {
		fmt.Fprintf(c.stdout, "%s\n", e)
	}
	if err != nil {
		fmt.Fprintf(c.stdout, "%s\n", printable(err.Error())) // of a letter it is what there is to see
	}
	return nil
}

// margin is for the last push and its removal: a letter must not be held by nobody while it is on its way.
const margin = longest + 10*time.Second

// replay brings letters to where they were to go. A letter is removed only after that was accepted, so that one of which
// the answer is lost is brought again, under the same id.
func (c *control) replay(ctx context.Context, args []string) error {
	begin := time.Now()
	var b box
	flags := c.flags("dlq replay", "")
	b.flags(flags)
	b.filters(flags, begin)
	all := flags.Bool("all", false, "whatever the reason, for every integration")
	asJSON := flags.Bool("json", false, "print what was done as JSON")
	dry := flags.Bool("dry-run", false, "say which, and bring none")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	if b.filter == (filter{}) != *all {
		return fmt.Errorf("dlq replay: say which with -integration, -reason, -since, -until, or say -all; %w", errUsage)
	}
	if *dry {
		letters, _, err := c.read(ctx, &b, b.match)
		if err != nil {
			return err
		}
		if *asJSON {
			return c.entries(letters)
		}
		return c.letters(letters)
	}
	f, err := c.functions()
	if err != nil {
		return err
	}
	defer f.client.Close()
	in, done, err := c.open(ctx, &b)
	if err != nil {
		return err
	}
	defer done()
	// All are read before the first is brought: what is refused again is a new letter, and must not be brought in a circle.
	letters, more, err := in.Read(ctx, b.limit, b.match)
	if err != nil {
		return err
	}
	byTime(letters)
	r := replayer{control: c, box: in, functions: f, held: begin.Add(deadletter.Hold - margin)}
	err = r.run(ctx, letters)
	if *asJSON {
		err = errors.Join(err, c.json(replayed{r.brought, len(letters) - r.total(), more}))
	} else {
		for _, name := range slices.Sorted(maps.Keys(r.brought)) {
			fmt.Fprintf(c.stdout, "%s: %d brought\n", printable(name), r.brought[name])
		}
		fmt.Fprintf(c.stdout, "%d letters brought, %d left\n", r.total(), len(letters)-r.total())
	}
	if more {
		fmt.Fprintln(c.stderr, "apssctl: there are more; run it again")
	}
	if err == nil && r.total() < len(letters) {
		return errUnwell
	}
	return err
}

// replayed is what a replay came to, as -json prints it.
type replayed struct {
	Brought map[string]int `json:"brought"` // by integration
	Left    int            `json:"left"`    // of those that were meant
	More    bool           `json:"more"`    // there are more than the limit
}

// replayer is one replay.
type replayer struct {
	*control
	box       *deadletter.Box
	functions *functions
	held      time.Time // until then what was read is ours
	brought   map[string]int
}

func (r *replayer) total() (n int) {
	for _, m := range r.brought {
		n += m
	}
	return n
}

// mostRefusals in a row mean that the receiver is not well, and not the letters.
const mostRefusals = 3

func (r *replayer) run(ctx context.Context, letters []deadletter.Kept) error {
	r.brought = map[string]int{}
	var left []deadletter.Kept
	refused := map[string]int{} // in a row, by integration
	var failure error
	for i := range letters {
		k := &letters[i]
		switch {
		case failure != nil || ctx.Err() != nil, refused[k.Integration] >= mostRefusals:
			left = append(left, *k)
			continue
		case time.Now().After(r.held):
			failure = errors.New("the time for which letters are held is over; run it again for the rest")
			left = append(left, *k)
			continue
		case k.Truncated || k.Integration == "" || k.Topic != "events" && k.Topic != "alerts":
			fmt.Fprintf(r.stderr, "apssctl: %s: it is not whole, or does not say where it was to go; apssctl dlq show says what it is\n", printable(k.ID))
			left = append(left, *k)
			continue
		}
		if err := r.functions.push(ctx, k); err != nil {
			fmt.Fprintf(r.stderr, "apssctl: %s for %s was not accepted: %s\n", printable(k.ID), printable(k.Integration), printable(err.Error()))
			if refused[k.Integration]++; refused[k.Integration] == mostRefusals {
				fmt.Fprintf(r.stderr, "apssctl: the rest for %s is left; apssctl status says how it is\n", printable(k.Integration))
			}
			left = append(left, *k)
			continue
		}
		refused[k.Integration] = 0
		r.brought[k.Integration]++
		// Also when the user has enough: it was accepted.
		if failure = r.box.Remove(context.WithoutCancel(ctx), k); failure != nil {
			failure = fmt.Errorf("%w; it was accepted, and is brought again with the next replay", failure)
		}
	}
	return errors.Join(failure, ctx.Err(), r.box.Return(context.WithoutCancel(ctx), left...))
}

// line prints v as one line.
func (c *control) line(v any) error {
	return json.NewEncoder(c.stdout).Encode(v)
}
