package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxSize is the largest secret that a file may hold: the limit of a Secret Manager payload
// (cloud.google.com/secret-manager/quotas).
const maxSize = 64 << 10

// settle is the age from which a file's modification time tells that it did not change since it was read: time stamps
// are as coarse as the kernel's tick (inode_set_ctime_current) or the file system (2 s on FAT), so a younger file may
// be written again within the same stamp.
const settle = 2 * time.Second

// file is a file that is read again when its inode, size or modification time changes. Kubernetes replaces a mounted
// secret by switching a symbolic link, which changes the inode.
type file struct {
	path string

	mu   sync.Mutex
	last Value
	seen fs.FileInfo // of last
	at   time.Time   // when last was read
}

func newFile(path string) (Source, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("file:// is not followed by an absolute path; write it like file:///etc/apss/key")
	}
	return &file{path: path}, nil
}

// Get returns the file's content without trailing line ends. When the file cannot be read, the last good value stands
// until Refresh.
func (f *file) Get(context.Context) (Value, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.current()
	if err != nil && f.last.Empty() {
		return Value{}, fmt.Errorf("reading a secret: %w", err)
	}
	if err == nil {
		f.last = v
	}
	return f.last, nil
}

// Refresh drops the last value.
func (f *file) Refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.seen = Value{}, nil
}

func (f *file) current() (Value, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return Value{}, err
	}
	if f.seen != nil && os.SameFile(info, f.seen) && info.Size() == f.seen.Size() &&
		info.ModTime().Equal(f.seen.ModTime()) && f.at.Sub(info.ModTime()) > settle {
		return f.last, nil
	}
	if !info.Mode().IsRegular() { // a pipe would block
		return Value{}, fmt.Errorf("%s is not a regular file", f.path)
	}
	at := time.Now()
	h, err := os.Open(f.path)
	if err != nil {
		return Value{}, err
	}
	defer h.Close()
	if info, err = h.Stat(); err != nil {
		return Value{}, err
	}
	data, err := io.ReadAll(io.LimitReader(h, maxSize+1))
	if err != nil {
		return Value{}, err
	}
	if len(data) > maxSize {
		return Value{}, fmt.Errorf("%s holds more than %d bytes, which is no secret", f.path, maxSize)
	}
	if data = bytes.TrimRight(data, "\r\n"); len(data) == 0 {
		return Value{}, fmt.Errorf("%s is empty", f.path)
	}
	f.seen, f.at = info, at
	return New(string(data)), nil
}
