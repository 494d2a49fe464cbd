package discord

import (
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/event"
)

// Discord's limits, in characters (docs.discord.com/developers/resources/message#embed-object-embed-limits). All together
// a message's embeds have at most 6,000, and an embed at most 25 fields: here are at most 8.
const (
	maxTitle = 256
)

// What each part of an incident may have: together, with the fields' names, below 6,000.
const (
	maxText        = 900 // any one text before it is escaped
	forDescription = 1000
	forWhere       = 700
	forTree        = 900
	forWhat        = 700
	forDiff        = 400
	forTechnique   = 300
	forActions     = 600
	forHarmless    = 250
	forReferences  = 400
	forFooter      = 300
	forLine        = 100 // of a digest
)

type payload struct {
	Embeds   []embed  `json:"embeds"`
	Mentions mentions `json:"allowed_mentions"`
}

// mentions allows none: parse is empty, not missing (docs.discord.com/developers/resources/message#allowed-mentions-object).
type mentions struct {
	Parse []string `json:"parse"`
}

type embed struct {
	Title       string  `json:"title,omitempty"`
	Description string  `json:"description,omitempty"`
	Color       int     `json:"color"`
	Fields      []field `json:"fields,omitempty"`
	Footer      *footer `json:"footer,omitempty"`
	Timestamp   string  `json:"timestamp,omitempty"`
}

type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type footer struct {
	Text string `json:"text"`
}

// escape takes the meaning from every character that has one in Discord's Markdown, mentions and bare links included.
func escape(s string) string { return escaper.Replace(s) }

var escaper = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", `*`, `\*`, `_`, `\_`, `~`, `\~`, `|`, `\|`, `<`, `\<`, `>`, `\>`, `[`, `\[`, `]`, `\]`,
	`(`, `\(`, `)`, `\)`, `#`, `\#`, `-`, `\-`, `+`, `\+`, `:`, `\:`, `@`, `\@`, `/`, `\/`,
)

func color(s event.Severity, c integration.Change) int {
	switch {
	case c == integration.Resolved:
		return 0x2eb67d
	case s == event.Critical:
		return 0xd92d20
	case s == event.High:
		return 0xf79009
	case s == event.Medium:
		return 0xfdb022
	case s == event.Low:
		return 0x2e90fa
	default:
		return 0x98a2b3
	}
}

func wrap(e ...embed) payload {
	return payload{Embeds: e, Mentions: mentions{Parse: []string{}}}
}

func incident(i integration.Incident) payload {
	m := message.Of(i, maxText)
	e := embed{
		Title:       message.Fit(m.Symbol()+" "+m.Headline(), maxTitle, escape),
		Description: message.Fit(m.Description, forDescription, escape),
		Color:       color(m.Severity, m.Change),
		Footer:      &footer{message.Cut(m.SmallPrint(), forFooter)}, // has no Markdown
	}
	if m.Test {
		e.Description = "**" + message.TestNote + "**\n" + e.Description
	}
	add := func(name, value string) {
		if value != "" {
			e.Fields = append(e.Fields, field{name, value})
		}
	}
	add("Where", facts(m.Where, forWhere))
	add("Process", fenced(message.List(m.Tree, forTree, message.Code)))
	add("What", facts(m.What, forWhat))
	add("Change of the file", fenced(message.Fit(strings.TrimSpace(m.Diff), forDiff, message.Code)))
	add("Why it matters", why(m))
	add("What to do", message.List(bullets(m.Actions, forActions), forActions, nil))
	add("It may be harmless", message.List(bullets(m.Harmless, forHarmless), forHarmless, nil))
	add("More", message.List(references(m.References), forReferences, nil))
	if t := m.LastSeen; !t.IsZero() && t.Year() > 0 && t.Year() < 10_000 {
		e.Timestamp = t.UTC().Format(time.RFC3339)
	}
	return wrap(e)
}

func fenced(s string) string {
	if s == "" {
		return ""
	}
	return "```\n" + s + "\n```"
}

func facts(list []message.Fact, limit int) string {
	shown := make([]string, len(list))
	for i, f := range list {
		shown[i] = f.Name + ": `" + message.Fit(f.Value, limit/5, message.Code) + "`"
	}
	return message.List(shown, limit, nil)
}

func why(m message.Incident) string {
	s := message.Fit(m.Technique, forTechnique/2, escape)
	if m.TechniqueURL != "" {
		s = "[" + m.Technique + "](" + m.TechniqueURL + ")"
	}
	if m.Tactic != "" {
		s += " " + message.Fit(m.Tactic, forTechnique/2, escape)
	}
	return s
}

func bullets(list []string, limit int) []string {
	shown := make([]string, len(list))
	for i, s := range list {
		shown[i] = "• " + message.Fit(s, limit/3-2, escape)
	}
	return shown
}

// references are links that show their own address and no preview, or code.
func references(list []string) []string {
	shown := make([]string, len(list))
	for i, s := range list {
		if link := "<" + s + ">"; message.IsLink(s) && len(link) <= forReferences/3 {
			shown[i] = link
		} else {
			shown[i] = "`" + message.Fit(s, forReferences/3-2, message.Code) + "`"
		}
	}
	return shown
}

// digest is a message of up to two embeds: half of the lines, in code so that no escape makes them longer, fit into one.
func digest(d integration.Digest) payload {
	const half, room = integration.MaxDigest / 2, 2650
	m := message.OfDigest(d, forLine)
	first, rest := m.Lines[:min(half, len(m.Lines))], m.Lines[min(half, len(m.Lines)):]
	one := embed{
		Title: message.Fit(m.Symbol()+" "+m.Headline, maxTitle, escape), Color: color(m.Severity, integration.Opened),
		Description: escape(m.Why) + "\n" + fenced(message.List(first, room, message.Code)),
	}
	more := fenced(message.List(rest, room, message.Code))
	if m.More != "" {
		more += "\n" + escape(m.More)
	}
	if more = strings.TrimSpace(more); len(rest) == 0 {
		one.Description = strings.TrimSpace(one.Description + "\n" + more)
		return wrap(one)
	}
	return wrap(one, embed{Color: one.Color, Description: more})
}
