package rulebook

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/detect/fixture"
	"github.com/apss-sensor/apss/shared/detect/rules"
)

// Read reads the rules at paths and below. The faults are those of documents; the error is that something could not be
// read at all.
func Read(paths []string) ([]*detect.Rule, []*detect.Error, error) {
	var all []*detect.Rule
	var faults []*detect.Error
	err := Files(paths, func(name string, data []byte) {
		parsed, errs := detect.Parse(name, data)
		all, faults = append(all, parsed...), append(faults, errs...)
	})
	return all, faults, err
}

// WithPack returns the rules at paths laid over the pack: a rule with the id of one of the pack takes its place.
func WithPack(paths []string) ([]*detect.Rule, []*detect.Error, error) {
	pack, faults := rules.Pack()
	over, errs, err := Read(paths)
	return detect.Override(pack, over), append(faults, errs...), err
}

// fixtures reads the fixtures at paths and below.
func fixtures(paths []string) ([]fixture.Case, error) {
	var cases []fixture.Case
	var errs []error
	err := walk(paths, isFixture, func(name string, data []byte) {
		some, err := fixture.Parse(name, data)
		cases, errs = append(cases, some...), append(errs, err)
	})
	return cases, errors.Join(append(errs, err)...)
}

func isYAML(name string) bool {
	return strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".yaml")
}

func isFixture(name string) bool {
	return strings.HasSuffix(name, ".test.yml") || strings.HasSuffix(name, ".test.yaml")
}

// walk reads the files at paths and below that are wanted, in the order of their names. A file named by itself is
// always read.
func walk(paths []string, wanted func(string) bool, use func(name string, data []byte)) error {
	var errs []error
	for _, root := range paths {
		info, err := os.Stat(root)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if info.IsDir() {
			root = filepath.Clean(root) + "/" // followed where it is a link itself
		}
		errs = append(errs, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				errs = append(errs, err)
				return nil
			case d.IsDir() && name != root && strings.HasPrefix(d.Name(), "."):
				return fs.SkipDir
			case d.IsDir() || !wanted(name):
				return nil
			}
			data, err := readFile(name)
			if err != nil {
				errs = append(errs, err)
			} else if data != nil {
				use(name, data)
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

// readFile reads one byte more than a file may have, so that the parser sees that it is too large. It returns nil for
// what is no regular file, also behind a link.
func readFile(name string) ([]byte, error) {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, detect.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return data, nil
}
