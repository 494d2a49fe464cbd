package secret

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Setenv("APSS_TEST_SECRET", " from the environment\n")
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	write(t, path, "from a file\r\n\n")
	schemes := Schemes{"vault": func(ref string) (Source, error) {
		if ref == "vault://refused" {
			return nil, errors.New("the vault refuses")
		}
		return Plain{New("vault gave " + ref)}, nil
	}}
	for _, c := range []struct{ ref, want, err string }{
		{ref: "hunter2", want: "hunter2"},
		{ref: "  hunter2\n", want: "hunter2"},
		{ref: "a:b", want: "a:b"},
		{ref: "0a://b", want: "0a://b"},
		{ref: "pass word://x", want: "pass word://x"},
		{ref: "://", want: "://"},
		{ref: "https://hooks.slack.com/services/T/B/X", want: "https://hooks.slack.com/services/T/B/X"},
		{ref: "HTTPS://k@sentry.io/1", want: "HTTPS://k@sentry.io/1"},
		{ref: "redis://cache:6379", want: "redis://cache:6379"},
		{ref: "sqlserver://u:p@db/x", want: "sqlserver://u:p@db/x"},
		{ref: "file://" + path, want: "from a file"},
		{ref: "FILE://" + path, want: "from a file"},
		{ref: "env://APSS_TEST_SECRET", want: "from the environment"},
		{ref: "vault://a/b", want: "vault gave vault://a/b"},
		{ref: "vault://refused", err: "the vault refuses"},
		{ref: "", err: "empty"},
		{ref: " \n", err: "empty"},
		{ref: "secret://name", err: "here work file:///path, env://NAME, vault://"},
		{ref: "aws-sm://name/user@x", err: "unknown scheme"},
		{ref: "file:/etc/key", err: "file://"},
		{ref: "env:NAME", err: "env://"},
		{ref: "file://etc/key", err: "absolute"},
		{ref: "env://", err: "env://API_KEY"},
		{ref: "env://1A", err: "env://API_KEY"},
		{ref: "env://A-B", err: "env://API_KEY"},
	} {
		src, err := schemes.Parse(c.ref)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: got %v want an error with %q", c.ref, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.ref, err)
			continue
		}
		if got, err := src.Get(t.Context()); err != nil || got.Reveal() != c.want {
			t.Errorf("%q: got %q, %v want %q", c.ref, got.Reveal(), err, c.want)
		}
	}
}

func TestErrorsDoNotQuoteWhatMayBeASecret(t *testing.T) {
	for _, ref := range []string{"hunter2hunter2://hunter2hunter2", "file://hunter2hunter2", "env://hunter2hunter2$", "env:hunter2hunter2"} {
		if _, err := Parse(ref); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v want an error without it", ref, err)
		}
	}
}

func TestOnlyAPlainSecretIsPlain(t *testing.T) {
	for ref, want := range map[string]bool{"hunter2": true, "env://A": false, "file:///a": false} {
		src, err := Parse(ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := src.(Plain); got != want {
			t.Errorf("%q: got plain %v want %v", ref, got, want)
		}
	}
}

func TestEnvUnset(t *testing.T) {
	t.Setenv("APSS_TEST_SECRET", " ")
	src, _ := Parse("env://APSS_TEST_SECRET")
	if v, err := src.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "APSS_TEST_SECRET") {
		t.Errorf("got %v, %v want an error that names the variable", v, err)
	}
}

func TestFileIsReadAgainOnChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	src, err := Parse("file://" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.Get(t.Context()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Fatalf("missing file: got %v want an error that names it", err)
	}
	old := time.Now().Add(-time.Hour)

	steps := []struct {
		name   string
		change func()
		want   string
	}{
		{"first", func() { write(t, path, "one") }, "one"},
		{"written at once, same size and stamp", func() { write(t, path, "two") }, "two"},
		{"settled", func() { chtimes(t, path, old) }, "two"},
		{"same inode, size and time", func() { write(t, path, "xxx"); chtimes(t, path, old) }, "two"},
		{"time", func() { chtimes(t, path, old.Add(time.Second)) }, "xxx"},
		{"size", func() { write(t, path, "three"); chtimes(t, path, old.Add(time.Second)) }, "three"},
		{"inode", func() {
			write(t, path+".new", "four!")
			chtimes(t, path+".new", old.Add(time.Second))
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}, "four!"},
		{"too large", func() { write(t, path, strings.Repeat("x", maxSize+1)) }, "four!"},
		{"empty", func() { write(t, path, "\n") }, "four!"},
		{"gone", func() { os.Remove(path) }, "four!"},
		{"a folder", func() { os.Mkdir(path, 0o700) }, "four!"},
	}
	for _, s := range steps {
		s.change()
		if got := get(t, src); got != s.want {
			t.Fatalf("%s: got %q want %q", s.name, got, s.want)
		}
	}

	src.Refresh()
	if v, err := src.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("after Refresh: got %v, %v want the reason", v, err)
	}
	os.Remove(path)
	write(t, path, strings.Repeat("x", maxSize))
	if got := get(t, src); len(got) != maxSize {
		t.Errorf("the largest secret: got %d bytes want %d", len(got), maxSize)
	}
}

func TestFileFaultsAreNamed(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"empty": {"\n\n", "is empty"}, "large": {strings.Repeat("x", maxSize+1), "more than 65536 bytes"},
	} {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, c.content)
		src, _ := Parse("file://" + path)
		if _, err := src.Get(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v want %q and the path", name, err, c.want)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func chtimes(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, src Source) string {
	t.Helper()
	v, err := src.Get(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return v.Reveal()
}
