package main

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
)

// TestAnAddressThatIsTaken: the agent goes on without it, and says so.
func TestAnAddressThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	if l := listen(t.Context(), taken.Addr().String(), log); l != nil || !strings.Contains(said.String(), "set HTTP_ADDR to another address") {
		t.Errorf("got %v, and said %q", l, &said)
	}
	said.Reset()
	if l := listen(t.Context(), off, log); l != nil || said.Len() > 0 {
		t.Errorf("off: got %v, and said %q", l, &said)
	}
	l := listen(t.Context(), "127.0.0.1:0", log)
	if l == nil {
		t.Fatalf("a free address: got none, and said %q", &said)
	}
	_ = l.Close()
}
