// Package house tests the shape of the repository as a whole: which part may import which.
package house

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/apss-sensor/apss/"

// allowed names, for every module, the modules it may import besides itself. shared stands alone; what runs in the
// cluster, in the cloud and at admission meet on the wire only; the local system runs built programs.
var allowed = map[string][]string{
	"shared":       {},
	"edge":         {"shared"},
	"functions":    {"shared"},
	"webhook":      {"shared"},
	"infra/local":  {"shared"},
	"infra/policy": {},
	"infra/tools":  {},
}

// violations lists the imports under root that go against allowed, and Go files outside of every module.
func violations(root fs.FS) ([]string, error) {
	var found []string
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "vendor" || entry.Name() == "bin" || entry.Name() == "dist") {
			return fs.SkipDir
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		from, ok := moduleOf(name)
		if !ok {
			found = append(found, name+" is in no module")
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			ours, is := strings.CutPrefix(imported, module)
			if !is {
				continue
			}
			to, ok := moduleOf(ours + "/")
			if !ok || to != from && !slices.Contains(allowed[from], to) {
				found = append(found, fmt.Sprintf("%s imports %s; %s may import %v", name, imported, from, allowed[from]))
			}
		}
		return nil
	})
	return found, err
}

// moduleOf returns the module that a slash-separated path below the root belongs to.
func moduleOf(name string) (string, bool) {
	for m := range allowed {
		if strings.HasPrefix(name, m+"/") {
			return m, true
		}
	}
	return "", false
}

func TestImportsFollowTheHouse(t *testing.T) {
	found, err := violations(os.DirFS("../../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

func TestViolations(t *testing.T) {
	file := func(imports ...string) *fstest.MapFile {
		s := "package p\n"
		for _, i := range imports {
			s += "import " + strconv.Quote(i) + "\n"
		}
		return &fstest.MapFile{Data: []byte(s)}
	}
	root := fstest.MapFS{
		"shared/event/event.go":          file("time"),
		"shared/event/bad.go":            file(module + "edge/internal/spool"),
		"edge/internal/spool/s.go":       file(module+"shared/envelope", module+"edge/internal/buffer"),
		"edge/internal/spool/bad.go":     file(module + "functions/internal/push"),
		"functions/functions.go":         file("os", module+"shared/event"),
		"infra/local/cmd/bad.go":         file(module + "edge/internal/agent"),
		"infra/local/testdata/hidden.go": file(module + "edge/internal/agent"),
		"stray.go":                       file(),
	}
	got, err := violations(root)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i], _, _ = strings.Cut(got[i], ";")
	}
	want := []string{
		"edge/internal/spool/bad.go imports " + module + "functions/internal/push",
		"infra/local/cmd/bad.go imports " + module + "edge/internal/agent",
		"shared/event/bad.go imports " + module + "edge/internal/spool",
		"stray.go is in no module",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
}
