package redact

import "strings"

// Text returns text, a file's, without what looks like a credential. What the file is for is not known: a line is looked
// at as settings, YAML, JSON, a shell script and more are written. Blocks of YAML are followed to their ends.
func (r Redactor) Text(text string) string {
	spans := appendTokens(appendUserInfo(nil, text), text)
	block := -1 // the indentation of the key whose block is a credential
	for at := 0; at < len(text); {
		end := at + len(text[at:])
		if n := strings.IndexByte(text[at:], '\n'); n >= 0 {
			end = at + n
		}
		s := strings.TrimRight(text[at:end], " \t\r")
		indent := len(s) - len(strings.TrimLeft(s, " \t"))
		switch {
		case block >= 0 && (s == "" || indent > block):
			spans = append(spans, part{at + indent, at + len(s)})
		default:
			block = -1
			before := len(spans)
			spans = appendPairs(spans, s, line)
			spans = appendField(spans, s)
			for i := range spans[before:] {
				spans[before+i].from += at
				spans[before+i].to += at
			}
			if opensBlock(s) {
				block = indent
			}
		}
		at = end + 1
	}
	clean, _ := r.replace(text, spans)
	return clean
}

// lineValue returns the value that starts at. Of a setting that is all of its line it ends with the line where blanks or
// a colon stand before it, and at a blank otherwise, for what follows may be a command.
func lineValue(s, key string, at int, spaced, whole bool) (from, to int) {
	value := s[at:]
	switch {
	case harmlessValue(key, value), blockMark(value), markLen(value) > 0:
		return at, at
	case value[0] == '"', value[0] == '\'', value[0] == '\\', !whole:
		return literal(s, at)
	case strings.HasPrefix(value, "$(") || strings.HasPrefix(value, "${") || strings.HasPrefix(value, "{{"),
		strings.HasPrefix(value, "`"), value[0] == '$' && !spaced:
		return at, at
	case spaced:
		return at, len(s)
	}
	to = until(s, at, " \t")
	if to > at+1 && s[to-1] == ';' {
		to--
	}
	return at, to
}

// isLineStart reports whether what stands before a key is none: blanks, a list's dash, a comment's sign, quotes, or words
// that say that a setting follows.
func isLineStart(before string) bool {
	switch word := strings.Trim(before, " \t\"'-#;"); word {
	case "", "export", "set", "setenv", "Environment=", "env":
		return true
	}
	return false
}

// appendField finds the value of a line of two words, of which the first names a credential: ssh's, login's and many
// servers' settings are written so.
func appendField(spans []part, s string) []part {
	key, value, found := strings.Cut(strings.TrimLeft(s, " \t"), " ")
	if k, v, tab := strings.Cut(strings.TrimLeft(s, " \t"), "\t"); tab && len(k) < len(key) {
		key, value, found = k, v, true
	}
	value = strings.TrimLeft(value, " \t")
	if !found || value == "" || strings.ContainsAny(value, " \t") || strings.ContainsAny(key, "=:#/") || strings.IndexByte("=:", value[0]) >= 0 ||
		!sensitive(key) || harmlessValue(key, value) {
		return spans
	}
	return append(spans, part{len(s) - len(value), len(s)})
}

// harmlessValue reports whether value, which may be followed by more, is none that a credential has.
func harmlessValue(key, value string) bool {
	word := strings.ToLower(strings.Trim(value[:until(value, 0, " \t,;")], `"'`))
	switch word {
	case "yes", "no", "true", "false", "on", "off", "none", "null", "nil", "~", "all":
		return true
	case "files", "compat", "db", "sss", "systemd", "ldap", "nis", "winbind": // nsswitch.conf(5), passwd:
		return strings.EqualFold(key, "passwd")
	}
	return key == "PASSWD" && strings.HasPrefix(value, "/") // sudoers(5), a tag of commands
}

// blockMark reports whether value begins a block scalar, YAML 1.2.2 section 8.1.
func blockMark(value string) bool {
	return value != "" && (value[0] == '|' || value[0] == '>') && strings.Trim(value[1:], "+-0123456789") == ""
}

// opensBlock reports whether the lines that follow s are a credential.
func opensBlock(s string) bool {
	key, value, found := strings.Cut(s, ":")
	key = strings.Trim(key, " \t\"'-")
	return found && blockMark(strings.TrimLeft(value, " \t")) && sensitive(key)
}
