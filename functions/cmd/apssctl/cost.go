package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

//go:embed prices.json
var defaultPrices []byte

// price is one of the table's, with where it is from.
type price struct {
	Price  float64 `json:"price"`
	Source string  `json:"source"`
}

// prices is the table. Each is a list price; free allowances are left out.
type prices struct {
	Currency   string `json:"currency"`
	AsOf       string `json:"as_of"`
	Note       string `json:"note"`
	Region     string `json:"region"`
	PubSub     price  `json:"pubsub_per_tib"`
	LeastBytes price  `json:"pubsub_least_bytes"`
	Requests   price  `json:"requests_per_million"`
	CPU        price  `json:"cpu_per_second"`
	Memory     price  `json:"memory_per_gib_second"`
	Egress     price  `json:"egress_per_gib"`
}

func readPrices(file string) (p prices, err error) {
	text := defaultPrices
	if file != "" {
		if text, err = os.ReadFile(file); err != nil {
			return p, fmt.Errorf("reading the prices: %w; %w", err, errUsage)
		}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("the prices: %w; %w", err, errUsage)
	}
	for _, v := range []price{p.PubSub, p.LeastBytes, p.Requests, p.CPU, p.Memory, p.Egress} {
		if v.Price < 0 || v.Source == "" {
			return p, fmt.Errorf("the prices: each needs a price that is not negative, and its source; %w", errUsage)
		}
	}
	return p, nil
}

// sample is what was measured of events.
type sample struct {
	events, envelopes int
	raw               int64 // bytes of JSON
	published         int64 // bytes that Pub/Sub bills for one publish of each envelope
}

// overhead is what Pub/Sub counts of a message beside data and attributes: a timestamp of 20 bytes and the id, which has
// 16 digits or so (cloud.google.com/pubsub/pricing).
const overhead = 20 + 16

// measure seals events as an agent does and counts bytes.
func measure(r io.Reader, perEnvelope int, least int64) (sample, error) {
	var s sample
	var b envelope.Batch
	seal := func() {
		m := b.Seal(envelope.Source{AgentID: "prod-1/gke-node-1", Cluster: "prod-1"}, time.Now())
		size := int64(len(m.Data) + overhead)
		for k, v := range m.Attributes {
			size += int64(len(k) + len(v))
		}
		s.published += max(size, least)
		s.envelopes++
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, envelope.MaxUnpacked)
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		e, err := event.Decode(line)
		if err != nil {
			return s, fmt.Errorf("line %d is no event: %w; %w", number, err, errUsage)
		}
		b.AppendRaw(line, e.Severity, e.PodNamespace)
		s.events++
		s.raw += int64(len(line)) + 1
		if b.Len() == perEnvelope {
			seal()
		}
	}
	if err := lines.Err(); err != nil {
		return s, fmt.Errorf("reading events: %w; %w", err, errUsage)
	}
	if b.Len() > 0 {
		seal()
	}
	if s.events == 0 {
		return s, fmt.Errorf("there is no event in it; %w", errUsage)
	}
	return s, nil
}

// traffic is how events are carried and delivered.
type traffic struct {
	integrations int     // that take the events
	perCPUSecond float64 // events that a function delivers for each second of its CPU
	memory       float64 // GiB of an instance
	outside      bool    // receivers are outside Google Cloud
}

// item is one part of the price of a million events.
type item struct {
	what   string
	amount float64
	unit   string
	price  price
	usd    float64
}

const (
	million = 1e6
	gib     = 1 << 30
	tib     = 1 << 40
)

// bill is what a million events like those of s cost.
func bill(s sample, t traffic, p prices) []item {
	scale := million / float64(s.events)
	published := float64(s.published) * scale
	delivered := published * float64(t.integrations)
	pushes := float64(s.envelopes) * scale * float64(t.integrations)
	seconds := million / t.perCPUSecond * float64(t.integrations)
	items := []item{
		{"Pub/Sub, publishing", published / tib, "TiB", p.PubSub, published / tib * p.PubSub.Price},
		{"Pub/Sub, delivering", delivered / tib, "TiB", p.PubSub, delivered / tib * p.PubSub.Price},
		{"functions, requests", pushes / million, "million", p.Requests, pushes / million * p.Requests.Price},
		{"functions, CPU", seconds, "s", p.CPU, seconds * p.CPU.Price},
		{"functions, memory", seconds * t.memory, "GiB s", p.Memory, seconds * t.memory * p.Memory.Price},
	}
	if t.outside {
		out := float64(s.raw) * scale * float64(t.integrations) / gib
		items = append(items, item{"network to receivers", out, "GiB", p.Egress, out * p.Egress.Price})
	}
	return items
}

// cost prints the bill of a million events.
func (c *control) cost(args []string) (err error) {
	flags := c.flags("cost", "EVENTS")
	file := flags.String("prices", "", "file of prices in the form of the built-in one (-print-prices)")
	asJSON := flags.Bool("json", false, "print the bill as JSON")
	show := flags.Bool("print-prices", false, "print the built-in prices with their sources, and nothing else")
	perEnvelope := flags.Int("batch", 100, "events of one message, 1 to 10000; an agent seals at 100, or after 200 ms")
	var t traffic
	flags.IntVar(&t.integrations, "integrations", 1, "that take all of the events, 1 to 1000")
	flags.Float64Var(&t.perCPUSecond, "per-cpu-second", 100_000, "events that a function delivers for each second of CPU, as make bench measures it")
	flags.Float64Var(&t.memory, "memory", 0.5, "GiB of an instance of a function")
	flags.BoolVar(&t.outside, "outside", true, "receivers are outside Google Cloud, and their traffic is billed")
	if len(args) == 1 && args[0] == "-print-prices" {
		_, err := c.stdout.Write(defaultPrices)
		return err
	}
	operands, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	if *show || *perEnvelope < 1 || *perEnvelope > envelope.MaxEvents || t.integrations < 1 || t.integrations > 1000 || !(t.perCPUSecond >= 1) || !(t.memory > 0) {
		return fmt.Errorf("cost: a flag is out of its range; apssctl cost -help names them; %w", errUsage)
	}
	p, err := readPrices(*file)
	if err != nil {
		return err
	}
	in, err := os.Open(operands[0]) //nolint:gosec // the user says which
	if err != nil {
		return fmt.Errorf("reading events: %w; %w", err, errUsage)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	s, err := measure(in, *perEnvelope, int64(p.LeastBytes.Price))
	if err != nil {
		return err
	}
	if *asJSON {
		return c.json(account(s, bill(s, t, p), p))
	}
	return c.bill(s, bill(s, t, p), p)
}

func (c *control) bill(s sample, items []item, p prices) error {
	fmt.Fprintf(c.stdout, "measured: %d events, %.0f bytes each; in %d envelopes, %.0f billed bytes for each event\n",
		s.events, float64(s.raw)/float64(s.events), s.envelopes, float64(s.published)/float64(s.events))
	fmt.Fprintf(c.stdout, "prices of %s, %s\n\n", printable(p.AsOf), printable(p.Region))
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	total := 0.0
	for _, i := range items {
		fmt.Fprintf(w, "%s\t%.6g\t%s\t%.5f\t%s\t\n", i.what, i.amount, i.unit, i.usd, printable(p.Currency))
		total += i.usd
	}
	fmt.Fprintf(w, "a million events\t\t\t%.5f\t%s\t\n", total, printable(p.Currency))
	return w.Flush()
}

// billed is a bill as -json prints it.
type billed struct {
	Events        int          `json:"events"` // measured
	Envelopes     int          `json:"envelopes"`
	BytesPerEvent float64      `json:"bytes_per_event"`
	BilledBytes   float64      `json:"billed_bytes_per_event"`
	AsOf          string       `json:"prices_as_of"`
	Region        string       `json:"region"`
	Currency      string       `json:"currency"`
	Items         []billedItem `json:"items"` // of a million events
	Total         float64      `json:"total"`
}

type billedItem struct {
	What   string  `json:"what"`
	Amount float64 `json:"amount"`
	Unit   string  `json:"unit"`
	Price  float64 `json:"price"`
	Source string  `json:"source"`
	Cost   float64 `json:"cost"`
}

func account(s sample, items []item, p prices) billed {
	b := billed{
		Events: s.events, Envelopes: s.envelopes, BytesPerEvent: float64(s.raw) / float64(s.events), BilledBytes: float64(s.published) / float64(s.events),
		AsOf: p.AsOf, Region: p.Region, Currency: p.Currency,
	}
	for _, i := range items {
		b.Items = append(b.Items, billedItem{i.what, i.amount, i.unit, i.price.Price, i.price.Source, i.usd})
		b.Total += i.usd
	}
	return b
}
