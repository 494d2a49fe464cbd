package slack

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// What a message may hold (docs.slack.dev/reference/block-kit/blocks; docs.slack.dev/reference/methods/chat.postMessage:
// 40,000 characters of text). No limit of the whole is documented; 11,300 characters in blocks were seen to be refused
// (github.com/slackapi/bolt-js/issues/2867).
const (
	maxBlocks   = 50
	maxHeader   = 150
	maxSection  = 3_000
	maxFields   = 10
	maxField    = 2_000
	maxElements = 10
	maxText     = 40_000
	maxWhole    = 11_300
)

// block is one of those that are shown here: header, section, context, divider.
type block struct {
	Type     string `json:"type"`
	Text     *text  `json:"text"`
	Fields   []text `json:"fields"`
	Elements []text `json:"elements"`
}

type text struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

func (t *text) fits(limit int) bool {
	n := utf8.RuneCountInString(t.Text)
	return (t.Type == "plain_text" || t.Type == "mrkdwn") && n >= 1 && n <= limit
}

// fault is Slack's word for what is wrong with m; "" for nothing.
func (m message) fault() string {
	whole := 0
	for _, b := range m.Blocks {
		ok := true
		switch b.Type {
		case "header":
			ok = b.Text != nil && b.Text.Type == "plain_text" && b.Text.fits(maxHeader)
		case "section":
			ok = b.Text != nil || len(b.Fields) > 0
			ok = ok && (b.Text == nil || b.Text.fits(maxSection)) && len(b.Fields) <= maxFields
			for _, f := range b.Fields {
				ok = ok && f.fits(maxField)
			}
		case "context":
			ok = len(b.Elements) >= 1 && len(b.Elements) <= maxElements
			for _, e := range b.Elements {
				ok = ok && e.fits(maxSection)
			}
		case "divider":
		default:
			ok = false
		}
		if !ok {
			return "invalid_blocks"
		}
		for _, t := range b.texts() {
			whole += utf8.RuneCountInString(t.Text)
		}
	}
	switch {
	case len(m.Blocks) > maxBlocks:
		return "invalid_blocks"
	case whole > maxWhole:
		return "msg_blocks_too_long"
	case utf8.RuneCountInString(m.Text) > maxText:
		return "msg_too_long"
	case m.Text == "" && len(m.Blocks) == 0:
		return "no_text"
	}
	return ""
}

func (b block) texts() []text {
	var all []text
	if b.Text != nil {
		all = append(all, *b.Text)
	}
	return append(append(all, b.Fields...), b.Elements...)
}

// title is the header, or the first line of what is shown.
func (m message) title() string {
	for _, b := range m.Blocks {
		if b.Type == "header" {
			return b.Text.shown()
		}
	}
	line, _, _ := strings.Cut(m.shown(), "\n")
	return line
}

// shown is what a person reads, in lines. The text of a message with blocks is for notifications.
func (m message) shown() string {
	if len(m.Blocks) == 0 {
		return (&text{Type: "mrkdwn", Text: m.Text}).shown()
	}
	var lines []string
	for _, b := range m.Blocks {
		if b.Text != nil {
			lines = append(lines, b.Text.shown())
		}
		for _, f := range b.Fields {
			lines = append(lines, strings.Replace(f.shown(), "\n", ": ", 1)) // a name above its value
		}
		for _, e := range b.Elements {
			lines = append(lines, e.shown())
		}
	}
	return strings.Join(lines, "\n")
}

var (
	fence    = regexp.MustCompile("(?m)^```\n?|\n?```$")
	emphasis = regexp.MustCompile(`(?m)^\*([^*\n]+)\*|` + "`([^`\n]*)`")
	named    = regexp.MustCompile(`<([^|<>]+)\|([^<>]+)>`)
	link     = regexp.MustCompile(`<([^<>]+)>`)
	unescape = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&")
)

// shown is t without its marks (docs.slack.dev/messaging/formatting-message-text).
func (t *text) shown() string {
	s := t.Text
	if t.Type == "mrkdwn" {
		s = fence.ReplaceAllString(s, "")
		s = emphasis.ReplaceAllString(s, "$1$2")
		s = named.ReplaceAllString(s, "$2 ($1)")
		s = link.ReplaceAllString(s, "$1")
	}
	return unescape.Replace(s)
}
