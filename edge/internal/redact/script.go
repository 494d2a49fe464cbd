package redact

import "strings"

// maxCommandWords bounds the words of one command of a script that are looked at for a program's own flags.
const maxCommandWords = 128

// appendCommands finds what the commands of a script are given as credentials: the word after a long flag, and what a
// program's own flags take. It splits as a shell does, as far as blanks, quotes and what ends a command go.
func appendCommands(spans []part, s string) []part {
	var words []string // of the command, and where they are
	var at []part
	for i := 0; i < len(s); {
		c := s[i]
		if strings.IndexByte(" \t\r\n;&|()`", c) >= 0 {
			if c != ' ' && c != '\t' {
				words, at = words[:0], at[:0]
			}
			i++
			continue
		}
		w := part{i, until(s, i, " \t\r\n;&|()`")}
		if c == '"' || c == '\'' {
			w.from++
			w.to = until(s, w.from, string(c))
			i = w.to + 1
		} else {
			i = w.to
		}
		word := s[w.from:w.to]
		if len(words) == maxCommandWords {
			words, at = append(words[:1], words[2:]...), append(at[:1], at[2:]...) // the program's name stays
		}
		words, at = append(words, word), append(at, w)
		n := len(words) - 1
		if n == 0 || word == "" || strings.HasPrefix(word, "$") {
			continue
		}
		if p, ok := byProgram(words, n); ok {
			if value := word[p.from:p.to]; value != "" && value[0] != '$' {
				spans = append(spans, part{w.from + p.from, w.from + p.to})
			}
		} else if wantsSecret(words[n-1]) && word[0] != '-' {
			spans = append(spans, w)
		}
	}
	return spans
}
