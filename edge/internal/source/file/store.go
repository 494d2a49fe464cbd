package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxStateFile bounds what is read of a state file: several times what 100,000 files with long names make.
const maxStateFile = 1 << 28

// The names beside the state file that are the store's own.
const (
	newSuffix     = ".new"
	corruptSuffix = ".corrupt"
)

// store is the state file. It is written by one goroutine.
type store struct {
	path string
	file *os.File // open for appending; nil until the first whole write
	size int64    // up to the end of the last whole record
	base int64    // size after the last whole write
}

// load gives the records of the state file to covers and put and leaves it open for append. found is false when there
// is none. A damaged one is renamed to .corrupt, and the error, an [errCorrupt], says so: what was given is then void.
func (st *store) load(covers func([]string), put func(string, state)) (found bool, err error) {
	f, err := os.OpenFile(st.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening the state file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err != nil {
		return false, errors.Join(fmt.Errorf("reading the state file: %w", err), f.Close())
	}
	whole, err := decode(data, covers, put)
	if len(data) > maxStateFile {
		err = errors.New("it is larger than any state file")
	}
	if err != nil {
		return false, errors.Join(&errCorrupt{st.path, err}, f.Close(), os.Rename(st.path, st.path+corruptSuffix))
	}
	if whole == 0 {
		return false, f.Close()
	}
	if err := f.Truncate(int64(whole)); err != nil {
		return false, errors.Join(fmt.Errorf("cutting the torn tail of the state file: %w", err), f.Close())
	}
	st.file, st.size, st.base = f, int64(whole), int64(whole)
	return true, nil
}

// errCorrupt says that the state file was damaged and set aside.
type errCorrupt struct {
	path  string
	cause error
}

func (e *errCorrupt) Error() string {
	return fmt.Sprintf("the state file is damaged, it is kept as %s: %v", e.path+corruptSuffix, e.cause)
}

func (e *errCorrupt) Unwrap() error { return e.cause }

// crowded reports whether most of the file is outdated records.
func (st *store) crowded() bool { return st.size > 2*st.base+1<<16 }

// append adds records to the file. They are not forced to the disk: what a power failure takes of them is found again
// as a change made while down, so it is told twice and not lost.
func (st *store) append(records []byte) error {
	if st.file == nil {
		return errors.New("appending to the state file: it was never written whole")
	}
	if _, err := st.file.WriteAt(records, st.size); err != nil {
		return fmt.Errorf("appending to the state file: %w", errors.Join(err, st.file.Truncate(st.size)))
	}
	st.size += int64(len(records))
	return nil
}

// replace makes records the whole content, by way of a new file.
func (st *store) replace(records []byte) error {
	f, err := os.OpenFile(st.path+newSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing the state file: %w", err)
	}
	_, err = f.Write(records)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(st.path+newSuffix, st.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the state file: %w", err), f.Close(), os.Remove(st.path+newSuffix))
	}
	old := st.file
	st.file, st.size, st.base = f, int64(len(records)), int64(len(records))
	if old != nil {
		_ = old.Close() // nothing is written to it any more
	}
	return syncFolder(filepath.Dir(st.path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing the state file's folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("writing the state file's folder: %w", err)
	}
	return nil
}

func (st *store) close() error {
	if st.file == nil {
		return nil
	}
	return st.file.Close()
}
