package outcome

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		err  Error
		want string
	}{
		{Error{Class: Retry, Reason: "HTTP 503 from host", Err: io.EOF}, "retry: HTTP 503 from host: EOF"},
		{Error{Class: Auth, Reason: "key refused"}, "auth: key refused"},
		{Error{Class: Split, Err: io.EOF}, "split: EOF"},
		{Error{Class: Permanent}, "permanent"},
		{Error{Class: Partial}, "partial"},
		{Error{Class: Class(9)}, "Class(9)"},
		{Error{}, "ok"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%#v: got %q want %q", c.err, got, c.want)
		}
	}
}

func TestFrom(t *testing.T) {
	auth := &Error{Class: Auth, Status: 401}
	for name, c := range map[string]struct {
		err  error
		want Class
	}{
		"the outcome itself": {auth, Auth},
		"wrapped":            {fmt.Errorf("sending: %w", auth), Auth},
		"joined":             {errors.Join(io.EOF, auth, &Error{Class: Split}), Auth},
		"inside an outcome":  {&Error{Class: Permanent, Err: auth}, Permanent},
		"unclassified":       {io.ErrUnexpectedEOF, Retry},
	} {
		got := From(c.err)
		if got == nil || got.Class != c.want {
			t.Errorf("%s: got %v want class %s", name, got, c.want)
		}
	}
	if got := From(nil); got != nil {
		t.Errorf("nil: got %v want nil", got)
	}
	if got := From(io.EOF); !errors.Is(got, io.EOF) || got.Status != 0 || got.After != 0 {
		t.Errorf("unclassified: got %#v want one that wraps its cause and claims nothing", got)
	}
}
