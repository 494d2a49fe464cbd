package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/envelope"
)

// printSpool prints what is not confirmed in dir and below: an agent's SPOOL_DIR, or one of its folders.
func printSpool(w io.Writer, dir string) error {
	out := bufio.NewWriter(w)
	var errs []error
	err := filepath.WalkDir(dir, //nolint:gosec // the folder is the one that the person asked for
		func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) && path != dir {
				return nil // confirmed and removed meanwhile
			}
			if err != nil || !d.IsDir() {
				return err
			}
			for r, err := range spool.Unconfirmed(path) {
				if err == nil {
					err = printMessage(out, r.Payload)
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("reading %s: %w", path, err))
				}
			}
			return nil
		})
	return errors.Join(err, errors.Join(errs...), out.Flush())
}

func printMessage(out *bufio.Writer, payload []byte) error {
	m, err := envelope.ParseMessage(payload)
	if err != nil {
		return err
	}
	if m.Attributes["ce-type"] == envelope.TypeAlert {
		_, err = out.Write(append(m.Data, '\n'))
		return err
	}
	events, err := m.Events(nil)
	for _, e := range events {
		if _, err := out.Write(append(e, '\n')); err != nil {
			return err
		}
	}
	return err
}
