package file

import (
	"os"
	"testing"
)

// Of a log only what is not its daily work is told.
func TestLogs(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	log := d + "/auth.log"
	write(t, log, "one\n")
	r := start(t, Config{Paths: []string{d + "/else"}, Logs: []string{d + "/auth.log*"}, Redact: hide})
	r.hashed(t)
	add := func(text string) {
		f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString(text)
		must(t, err, f.Close())
	}
	add("two\n")
	must(t, os.Chmod(log, 0o600))
	e := r.want(t, "chmod "+log)["chmod "+log] // and nothing before it
	if e.File.SHA256 != "" || e.File.Size != 8 {
		t.Errorf("got %+v, want the size and no hash", e.File)
	}
	add("three\n")
	must(t, os.Truncate(log, 0))
	if e := r.want(t, "modify "+log)["modify "+log]; e.File.Diff != "" || e.File.Size != 0 {
		t.Errorf("got %+v, want no diff", e.File)
	}
	must(t, os.Rename(log, log+".1"))
	r.want(t, "rename "+log+".1")
	write(t, log, "")
	r.want(t, "create "+log)
	must(t, os.Remove(log))
	r.want(t, "delete "+log)
}
