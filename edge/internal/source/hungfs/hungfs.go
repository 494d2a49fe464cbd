// Package hungfs is for tests: a file system whose server takes requests and does not answer, as that of an NFS or FUSE
// mount that hangs. It speaks the kernel's FUSE protocol (include/uapi/linux/fuse.h) as far as that takes.
package hungfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FS is a mounted file system with one file.
type FS struct {
	// Dir is where it is mounted, File a file in it of 1 MiB, which can be looked at and opened, and not read: who tries
	// waits until the test ends.
	Dir, File string

	silent atomic.Bool
	device *os.File
}

// Hang ends all answers: looks at the file wait too.
func (f *FS) Hang() { f.silent.Store(true) }

// Release ends the file system: who waits gets an error.
func (f *FS) Release() { _ = f.device.Close() }

// Mount mounts one for the test. It skips where that is not allowed.
func Mount(tb testing.TB) *FS {
	tb.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		tb.Skipf("opening /dev/fuse: %v; run as root with FUSE in the kernel", err)
	}
	dir := filepath.Join(tb.TempDir(), "hung")
	if err := os.Mkdir(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("hung", dir, "fuse.hung", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = unix.Close(fd)
		tb.Skipf("mounting FUSE: %v; run as root", err)
	}
	// Before it is mounted the device tells nothing to who polls it.
	f := &FS{Dir: dir, File: dir + "/file", device: os.NewFile(uintptr(fd), "/dev/fuse")}
	var serving sync.WaitGroup
	serving.Go(f.serve)
	tb.Cleanup(func() {
		f.Release()
		serving.Wait()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Errorf("unmounting: %v", err)
		}
	})
	return f
}

// Opcodes and sizes of the protocol.
const (
	lookup, forget, getattr, open, statfs   = 1, 2, 3, 14, 17
	release, flush, initialise, opendir     = 18, 25, 26, 27
	readdir, releasedir, batchForget, inter = 28, 29, 42, 36
	read                                    = 15
	headerIn, headerOut                     = 40, 16
	root, theFile                           = 1, 2
	directIO                                = 1 // FOPEN_DIRECT_IO
)

// HoldMemory makes the calling process hold the lock of its own memory until the file system ends, as one does that maps
// a file of an NFS server that hangs (nfs_file_mmap, fs/nfs/file.c): a page that is being read stays locked, and to map
// the file past the cache waits for that page with the memory locked (fuse_file_mmap, fs/fuse/file.c). It does not return
// before the end.
func HoldMemory(file string) error {
	cached, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	direct, err := unix.Open(file, unix.O_RDONLY|unix.O_SYNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	go func() { _, _ = unix.Read(cached, make([]byte, 1)) }()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for { // until the other goroutine reads
		if _, err := unix.Mmap(direct, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
			return err
		}
		<-again.C
	}
}

// Holds reports whether a process waits as in [HoldMemory]: in mmap(2), where nothing wakes it. The thread that reads waits
// likewise, before and without that; and each try to map waits for a moment.
func Holds(pid int) bool {
	const moment = 50 * time.Millisecond
	first := waiting(pid)
	<-time.NewTimer(moment).C
	return first != "" && waiting(pid) == first
}

// waiting returns which thread waits in mmap(2), and how often it has waited in all, or "".
func waiting(pid int) string {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return ""
	}
	for _, task := range tasks {
		call, err := os.ReadFile(task + "/syscall")
		if number, _, _ := strings.Cut(string(call), " "); err != nil || number != strconv.Itoa(unix.SYS_MMAP) {
			continue
		}
		status, err := os.ReadFile(task + "/status")
		_, switches, found := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		if err == nil && found && strings.Contains(string(status), "\nState:\tD") {
			return task + switches
		}
	}
	return ""
}

// serve answers until the device is closed.
func (f *FS) serve() {
	b := make([]byte, 1<<20)
	for {
		n, err := f.device.Read(b)
		if err != nil {
			return
		}
		if n < headerIn {
			continue
		}
		opcode, unique, node := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])
		body, failed, silent := answer(opcode, node, b[headerIn:n])
		if silent || f.silent.Load() && opcode != initialise {
			continue
		}
		out := make([]byte, headerOut, headerOut+len(body))
		binary.NativeEndian.PutUint32(out, uint32(headerOut+len(body)))
		binary.NativeEndian.PutUint32(out[4:], uint32(-int32(failed)))
		binary.NativeEndian.PutUint64(out[8:], unique)
		_, _ = f.device.Write(append(out, body...)) // who asked may have gone
	}
}

// answer is what a request gets: a body, an error, or nothing at all.
func answer(opcode uint32, node uint64, in []byte) (body []byte, failed unix.Errno, silent bool) {
	switch opcode {
	case initialise:
		body = make([]byte, 64) // struct fuse_init_out
		binary.NativeEndian.PutUint32(body, 7)
		binary.NativeEndian.PutUint32(body[4:], 31)
		binary.NativeEndian.PutUint32(body[20:], 1<<16) // max_write
		return body, 0, false
	case lookup:
		if node != root || string(in) != "file\x00" {
			return nil, unix.ENOENT, false
		}
		entry := append(binary.NativeEndian.AppendUint64(nil, theFile), make([]byte, 32)...) // nothing is valid for long
		return append(entry, attributes(theFile)...), 0, false
	case getattr:
		return append(make([]byte, 16), attributes(node)...), 0, false
	case open, opendir: // struct fuse_open_in, and struct fuse_open_out
		body = make([]byte, 16)
		if len(in) >= 4 && binary.NativeEndian.Uint32(in)&unix.O_SYNC == unix.O_SYNC {
			binary.NativeEndian.PutUint32(body[8:], directIO)
		}
		return body, 0, false
	case statfs:
		return make([]byte, 80), 0, false
	case readdir, release, releasedir, flush:
		return nil, 0, false
	case read, forget, batchForget, inter:
		return nil, 0, true
	default:
		return nil, unix.ENOSYS, false
	}
}

// attributes is a struct fuse_attr.
func attributes(node uint64) []byte {
	b := make([]byte, 88)
	binary.NativeEndian.PutUint64(b, node)
	mode := uint32(unix.S_IFDIR | 0o755)
	if node == theFile {
		mode = unix.S_IFREG | 0o755
		binary.NativeEndian.PutUint64(b[8:], 1<<20)
	}
	binary.NativeEndian.PutUint32(b[60:], mode)
	binary.NativeEndian.PutUint32(b[64:], 1)    // links
	binary.NativeEndian.PutUint32(b[80:], 4096) // block size
	return b
}
