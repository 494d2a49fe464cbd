package slack

import (
	"slices"
	"strings"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/message"
)

// Slack's limits, in characters (docs.slack.dev/reference/block-kit/blocks: header-block, section-block, context-block;
// docs.slack.dev/reference/block-kit/composition-objects/text-object). 50 blocks are more than are made here.
const (
	maxHeader  = 150
	maxSection = 3000
	maxFields  = 10 // of a section
)

// What each part of a message may have. All together are below 9,000: no limit of the whole is documented, 9,600
// characters were seen to pass and 11,300 to be refused as msg_blocks_too_long (github.com/slackapi/bolt-js/issues/2867).
const (
	maxText        = 1000 // any one text before it is escaped
	forDescription = 1200
	forFact        = 170 // at most 18 of them; Slack takes 2,000
	forTree        = 1700
	forDiff        = 600
	forTechnique   = 200
	forActions     = 1000
	forHarmless    = 400
	forReferences  = 700
	forIDs         = 600
	forLine        = 100 // of a digest, before it is escaped
)

// payload is a message, of a webhook or of a method.
type payload struct {
	Channel  string  `json:"channel,omitempty"`
	TS       string  `json:"ts,omitempty"`
	ThreadTS string  `json:"thread_ts,omitempty"`
	Text     string  `json:"text,omitempty"` // what a notification shows
	Blocks   []block `json:"blocks,omitempty"`
	// Nothing in a text is looked up: no names, no addresses, no pages of an attacker to preview.
	LinkNames   bool   `json:"link_names"`
	Parse       string `json:"parse,omitempty"`
	UnfurlLinks bool   `json:"unfurl_links"`
	UnfurlMedia bool   `json:"unfurl_media"`
}

type block struct {
	Type     string `json:"type"`
	Text     *text  `json:"text,omitempty"`
	Fields   []text `json:"fields,omitempty"`
	Elements []text `json:"elements,omitempty"`
}

// text is a text object. In plain_text nothing is formatted; in mrkdwn, which this package uses for its own words, what
// comes from elsewhere is in code. Verbatim keeps Slack from making links of what looks like one.
type text struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Verbatim bool   `json:"verbatim,omitempty"`
}

// escape replaces the three characters with a meaning (docs.slack.dev/messaging/formatting-message-text#escaping), so
// that neither mentions nor links can be written.
func escape(s string) string { return escaper.Replace(s) }

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func code(s string) string { return escape(message.Code(s)) }

func plain(s string, limit int) *text {
	return &text{Type: "plain_text", Text: message.Fit(s, limit, escape)}
}

func mrkdwn(s string) *text { return &text{Type: "mrkdwn", Text: s, Verbatim: true} }

func section(t *text) block { return block{Type: "section", Text: t} }

func header(s string) block { return block{Type: "header", Text: plain(s, maxHeader)} }

func facts(list []message.Fact) (blocks []block) {
	for part := range slices.Chunk(list, maxFields) {
		b := block{Type: "section"}
		for _, f := range part {
			b.Fields = append(b.Fields, *mrkdwn("*" + f.Name + "*\n`" + message.Fit(f.Value, forFact, code) + "`"))
		}
		blocks = append(blocks, b)
	}
	return blocks
}

func fenced(name, s string) block { return section(mrkdwn("*" + name + "*\n```\n" + s + "\n```")) }

// wrap is a message of blocks.
func wrap(summary string, blocks []block) payload {
	return payload{Text: message.Fit(summary, maxSection, escape), Blocks: blocks, Parse: "none"}
}

// incident is the whole message.
func incident(i integration.Incident) payload {
	m := message.Of(i, maxText)
	blocks := []block{header(m.Symbol() + " " + m.Headline())}
	if m.Test {
		blocks = append(blocks, section(plain(message.TestNote, maxSection)))
	}
	if m.Description != "" {
		blocks = append(blocks, section(plain(m.Description, forDescription)))
	}
	blocks = append(blocks, facts(m.Where)...)
	if len(m.Tree) > 0 {
		blocks = append(blocks, fenced("Process", message.List(m.Tree, forTree, code)))
	}
	blocks = append(blocks, facts(m.What)...)
	if m.Diff != "" {
		blocks = append(blocks, fenced("Change of the file", message.Fit(strings.TrimSpace(m.Diff), forDiff, code)))
	}
	if m.Technique != "" {
		why := "*Why it matters*\n`" + message.Fit(m.Technique, forTechnique/2, code) + "`"
		if m.TechniqueURL != "" {
			why = "*Why it matters*\n<" + m.TechniqueURL + "|" + m.Technique + ">"
		}
		if m.Tactic != "" {
			why += " `" + message.Fit(m.Tactic, forTechnique/2, code) + "`"
		}
		blocks = append(blocks, section(mrkdwn(why)))
	}
	if len(m.Actions) > 0 {
		blocks = append(blocks, bullets("What to do", m.Actions, forActions))
	}
	if len(m.Harmless) > 0 {
		blocks = append(blocks, bullets("It may be harmless", m.Harmless, forHarmless))
	}
	if len(m.References) > 0 {
		blocks = append(blocks, section(mrkdwn("*More*\n"+message.List(references(m.References), forReferences, nil))))
	}
	return wrap(m.Summary(), append(blocks, last(m)))
}

func bullets(name string, list []string, limit int) block {
	shown := make([]string, len(list))
	for i, s := range list {
		shown[i] = "• " + s
	}
	return section(&text{Type: "plain_text", Text: name + "\n" + message.List(shown, limit, escape)})
}

// references are links that show their own address, or code.
func references(list []string) []string {
	shown := make([]string, len(list))
	for i, s := range list {
		if link := "<" + escape(s) + ">"; message.IsLink(s) && len(link) <= forReferences/3 {
			shown[i] = link
		} else {
			shown[i] = "`" + message.Fit(s, forReferences/3-2, code) + "`"
		}
	}
	return shown
}

// last is the small print.
func last(m message.Incident) block {
	return block{Type: "context", Elements: []text{*plain(m.SmallPrint(), forIDs)}}
}

// change is the short message of a repeat or an end.
func change(i integration.Incident) payload {
	m := message.Of(i, maxText)
	what := m.Symbol() + " Again: " + m.Summary()
	if i.Change == integration.Resolved {
		what = m.Symbol() + " " + m.Summary()
	}
	return wrap(what, []block{section(plain(what, 3*maxHeader)), last(m)})
}

func digest(d integration.Digest) payload {
	m := message.OfDigest(d, forLine)
	blocks := []block{header(m.Symbol() + " " + m.Headline), section(plain(m.Why, maxSection))}
	// Half of the lines fit into a section, each within its share, so that no text of one incident hides another.
	const half = integration.MaxDigest / 2
	for part := range slices.Chunk(m.Lines, half) {
		lines := make([]string, len(part))
		for i, line := range part {
			lines[i] = message.Fit(line, maxSection/half-len("\n"), escape)
		}
		blocks = append(blocks, section(&text{Type: "plain_text", Text: strings.Join(lines, "\n")}))
	}
	if m.More != "" {
		blocks = append(blocks, section(plain(m.More, maxSection)))
	}
	return wrap(m.Headline, blocks)
}
