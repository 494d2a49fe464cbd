package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nonroot is the user of distroless images.
const nonroot = "65532:65532"

// certificates is where Debian, and distroless, have the authorities that are trusted.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// program is what an image runs.
type program struct {
	name    string
	content []byte
	build   *buildinfo.BuildInfo
}

func read(path string) (*program, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: run make build", err)
	}
	build, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("%s is no Go program: %w", path, err)
	}
	return &program{filepath.Base(path), content, build}, nil
}

// setting returns a setting of p's build, for instance GOARCH.
func (p *program) setting(key string) string {
	for _, s := range p.build.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// start returns what images are built on.
func start(base string) (v1.Image, error) {
	if base == "scratch" {
		return scratch()
	}
	ref, err := name.NewDigest(base)
	if err != nil {
		return nil, fmt.Errorf("the base must be given by digest: %w", err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		return nil, fmt.Errorf("pulling the base (-base scratch does without): %w", err)
	}
	return image, nil
}

// scratch is what our programs need of a base: certificates, a user, a folder for temporary files.
func scratch() (v1.Image, error) {
	authorities, err := os.ReadFile(certificates)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files := []file{
		{"etc/passwd", []byte("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"), 0o644},
		{"etc/group", []byte("root:x:0:\nnonroot:x:65532:\n"), 0o644},
		{"tmp/", nil, 0o1777},
	}
	if err == nil {
		files = append(files, file{certificates[1:], authorities, 0o644})
	}
	l, err := layer(time.Unix(0, 0), files...)
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(empty.Image, l)
}

// on returns the image of p on base.
func (p *program) on(base v1.Image, version string, made time.Time) (v1.Image, error) {
	if p.setting("GOOS") != "linux" || p.setting("CGO_ENABLED") != "0" {
		return nil, errors.New("the program must be built for linux with CGO_ENABLED=0: a base without libraries runs no other")
	}
	l, err := layer(made, file{p.name, p.content, 0o755})
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(base, l)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", p.setting("GOARCH")
	config.Created = v1.Time{Time: made}
	config.Config.User = nonroot
	config.Config.Entrypoint, config.Config.Cmd = []string{"/" + p.name}, nil
	config.Config.WorkingDir = "/"
	config.Config.Labels = map[string]string{
		"org.opencontainers.image.title":    p.name,
		"org.opencontainers.image.version":  version,
		"org.opencontainers.image.revision": p.setting("vcs.revision"),
		"org.opencontainers.image.source":   "https://github.com/apss-sensor/apss",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON), nil
}

// file is one of a layer; a folder when its path ends with a slash.
type file struct {
	path    string
	content []byte
	mode    int64
}

func layer(made time.Time, files ...file) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := add(w, f, made); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithMediaType(types.OCILayer))
}

func add(w *tar.Writer, f file, made time.Time) error {
	h := &tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.content)), ModTime: made, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if f.path[len(f.path)-1] == '/' {
		h.Typeflag = tar.TypeDir
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(f.content)
	return err
}

// archive writes image as a layout of the OCI image specification, in a tar archive whose bytes depend on image alone.
func archive(path string, image v1.Image, made time.Time) (err error) {
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := to.AppendImage(image); err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { // in lexical order
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p) //nolint:gosec // of our own temporary folder
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		return add(w, file{relative, content, 0o644}, made)
	})
	return errors.Join(err, w.Close())
}
