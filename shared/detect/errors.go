package detect

import (
	"errors"
	"fmt"
	"strings"
)

// Error is one fault of one document. It never concerns the other documents of the file.
type Error struct {
	File string // as given to [Parse]
	Rule string // the document's title; empty when it has none
	Line int    // in the file, from 1; 0 when the fault has no place
	// Problem says what is wrong or unsupported, Instead what to write; Instead may be empty.
	Problem, Instead string
}

// Error implements error: file:line: rule "title": problem: instead.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Rule != "" {
		fmt.Fprintf(&b, ": rule %q", e.Rule)
	}
	b.WriteString(": " + e.Problem)
	if e.Instead != "" {
		b.WriteString("; " + e.Instead)
	}
	return b.String()
}

// fault is an error on its way up to the document that knows file and title.
type fault struct {
	line             int
	problem, instead string
}

func (f *fault) Error() string { return f.problem }

// faultf makes a fault; what to write instead is given separately, since it is a sentence of its own.
func faultf(line int, instead, format string, args ...any) error {
	return &fault{line: line, problem: fmt.Sprintf(format, args...), instead: instead}
}

// faults flattens err into the document's errors.
func (d *document) faults(err error) []*Error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, e := range joined.Unwrap() {
			all = append(all, d.faults(e)...)
		}
		return all
	}
	e := &Error{File: d.file, Rule: d.title, Line: d.line, Problem: err.Error()}
	var f *fault
	if errors.As(err, &f) {
		e.Problem, e.Instead = f.problem, f.instead
		if f.line > 0 {
			e.Line = f.line
		}
	}
	return []*Error{e}
}
