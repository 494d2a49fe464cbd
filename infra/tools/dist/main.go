// Command dist makes the zip from which Google's buildpacks build the functions: the module functions at the root, with
// everything that it needs in vendor/, so that the build asks no network.
//
//	dist REPOSITORY ZIP
//
// One zip serves Forward, Notify and Health: they are one package, and the entry point says which of them a build is for. The
// same sources make the same bytes: times and order are fixed, and no tests, test data or commands are in it.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: dist REPOSITORY ZIP")
		os.Exit(2)
	}
	sum, err := dist(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
	fmt.Printf("%s  %s\n", sum, os.Args[2])
}

// dist writes the zip and returns its SHA-256.
func dist(repository, target string) (sum string, err error) {
	staging, err := os.MkdirTemp("", "apss-dist-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	// A sibling, as go.mod's replace says; it is vendored and not shipped.
	for _, module := range []string{"functions", "shared"} {
		if err := copySources(filepath.Join(repository, module), filepath.Join(staging, module)); err != nil {
			return "", err
		}
	}
	root := filepath.Join(staging, "functions")
	vendor := exec.Command("go", "mod", "vendor") //nolint:noctx // it ends with us
	vendor.Dir = root
	vendor.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := vendor.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go mod vendor: %w\n%s", err, out)
	}
	var packed bytes.Buffer
	if err := pack(&packed, os.DirFS(root)); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // what was built is for everybody
		return "", err
	}
	if err := os.WriteFile(target, packed.Bytes(), 0o644); err != nil { //nolint:gosec // likewise
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(packed.Bytes())), nil
}

// copySources copies what a build of the module needs: no tests, no test data, no commands.
func copySources(from, to string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if left(inside) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, inside), 0o700)
		}
		if strings.HasSuffix(inside, "_test.go") || !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, inside), data, 0o600)
	})
}

// left reports whether a folder of a module stays out.
func left(folder string) bool {
	base := filepath.Base(folder)
	return folder != "." && (base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || folder == "cmd")
}

// epoch is the time of every file: the oldest that a zip can say.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// pack writes root's files in the order of their names.
func pack(w io.Writer, root fs.FS) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) { return flate.NewWriter(out, flate.BestCompression) })
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		header := &zip.FileHeader{Name: path.Clean(name), Method: zip.Deflate, Modified: epoch}
		header.SetMode(0o644)
		file, err := z.CreateHeader(header)
		if err != nil {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		_, err = file.Write(data)
		return err
	})
	return errors.Join(err, z.Close())
}
