// Command images makes container images of our programs without Docker, the same as infra/images/Dockerfile does: a
// program alone, for a user without rights, on a base that is only certificates.
//
//	images [-base REF] [-out DIR] [-push REGISTRY] [-version V] bin/apss-agent...
//
// For each it writes DIR/NAME.tar, an OCI image layout in a tar archive (what skopeo calls oci-archive), and
// DIR/NAME.spdx.json, its SBOM in SPDX 2.3, and prints the name, the digest and the compressed size. -base scratch takes
// no base but the certificates of this machine, for tests and for machines without a network. The same program makes the
// same digest: no time, user or path of the machine gets into an image (SOURCE_DATE_EPOCH sets its time).
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/google"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// distroless is the base of our images: certificates, time zones and a user, no shell and no library. The Dockerfile has
// the same.
const distroless = "gcr.io/distroless/static:nonroot@sha256:f7f8f729987ad0fdf6b05eeeae94b26e6a0f613bdf46feea7fc40f7bd72953e6"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	base := flags.String("base", distroless, "image to start from, by digest, or scratch")
	dir := flags.String("out", "dist/images", "folder for the archives")
	push := flags.String("push", "", "registry and folder to push to as well, for instance europe-west1-docker.pkg.dev/my-project/apss")
	version := flags.String("version", "dev", "version, the label and the tag")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no programs: images [flags] PROGRAM..., for instance bin/apss-agent")
	}
	made, err := epoch(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	from, err := start(*base)
	if err != nil {
		return err
	}
	for _, path := range flags.Args() {
		p, err := read(path)
		if err != nil {
			return err
		}
		image, err := p.on(from, *version, made)
		if err != nil {
			return fmt.Errorf("image of %s: %w", p.name, err)
		}
		if err := p.write(*dir, image, *version, made); err != nil {
			return fmt.Errorf("writing the image of %s: %w", p.name, err)
		}
		if *push != "" {
			if err := send(image, *push+"/"+p.name+":"+*version); err != nil {
				return err
			}
		}
		if err := say(out, p.name, image); err != nil {
			return err
		}
	}
	return nil
}

// epoch reads https://reproducible-builds.org/specs/source-date-epoch.
func epoch(s string) (time.Time, error) {
	if s == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, want seconds since 1970", s)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func send(image v1.Image, to string) error {
	ref, err := name.NewTag(to)
	if err != nil {
		return err
	}
	keys := authn.NewMultiKeychain(authn.DefaultKeychain, google.Keychain)
	if err := remote.Write(ref, image, remote.WithAuthFromKeychain(keys)); err != nil {
		return fmt.Errorf("pushing %s: %w", to, err)
	}
	return nil
}

// say prints a line: name, digest, bytes as they are pulled.
func say(out io.Writer, name string, image v1.Image) error {
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	total := int64(0)
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return err
		}
		total += n
	}
	_, err = fmt.Fprintf(out, "%s %s %.1f MiB\n", name, digest, float64(total)/(1<<20))
	return err
}

// write writes the archive and the SBOM.
func (p *program) write(dir string, image v1.Image, version string, made time.Time) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	sbom, err := p.sbom(version, made)
	if err != nil {
		return err
	}
	return errors.Join(
		archive(filepath.Join(dir, p.name+".tar"), image, made),
		os.WriteFile(filepath.Join(dir, p.name+".spdx.json"), sbom, 0o600)) //nolint:gosec // the folder that was asked for
}
