package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/redact"
	"github.com/apss-sensor/apss/shared/event"
)

// Bounds of what is kept of one process. The kernel allows 128 KiB in one argument (MAX_ARG_STRLEN, execve(2)).
const (
	maxCmdlineRead  = 32 << 10
	maxCmdlineRunes = 4096
	maxArgs         = 128
)

// reader reads processes below one mount of procfs. It is not safe for concurrent use.
type reader struct {
	root int // the mount
	buf  []byte
	link []byte
	cut  redact.Redactor
	env  []string // the names of variables to keep
	// audited says that the kernel keeps login uids and sessions: without CONFIG_AUDIT no process has the files.
	audited bool
	// early holds what was read of programs before, at the moment they started: it is taken instead.
	early map[int32]details
	// blocked are the processes of which nothing is read that the kernel may hold up.
	blocked *blocked
}

func newReader(root string) (*reader, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", root, err)
	}
	r := &reader{root: fd, buf: make([]byte, maxCmdlineRead+1), link: make([]byte, unix.PathMax), blocked: &blocked{}}
	r.audited = !r.has("self/stat") || r.has("self/loginuid")
	return r, nil
}

func (r *reader) has(path string) bool {
	var st unix.Stat_t
	return !errors.Is(unix.Fstatat(r.root, path, &st, 0), unix.ENOENT)
}

func (r *reader) close() { _ = unix.Close(r.root) }

// file reads the file at path below dir, as much of it as fits into the buffer, which the result shares.
func (r *reader) file(dir int, path string) ([]byte, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		// What procfs has to say it says in one read that is large enough (fs/seq_file.c, fs/proc/base.c). Another one,
		// to be told of the end, costs time that a short process does not have.
		n, err := unix.Read(fd, r.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return r.buf[:n], nil
	}
}

func (r *reader) readlink(dir int, path string) (string, error) {
	n, err := unix.Readlinkat(dir, path, r.link)
	if err != nil {
		return "", err
	}
	return string(r.link[:n]), nil
}

func (r *reader) stat(dir int, path string) (stat, error) {
	b, err := r.file(dir, path)
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

func (r *reader) statOf(pid int32) (stat, error) {
	return r.stat(r.root, strconv.Itoa(int(pid))+"/stat")
}

// cmdline is what a process says it was started with, made safe to keep.
type cmdline struct {
	args      []string
	joined    string
	redacted  int
	truncated bool
}

// details is one process, read through one handle.
type details struct {
	stat     stat
	cred     credentials
	credRead bool
	cmdline
	line        []byte // of the command line, until it is made safe
	cmdlineRead bool
	exe         string
	exeDeleted  bool
	cwd         string
	login       uint32
	session     uint32
	stdioSocket bool
	script      string
	env         []string
	// held says that nothing was read that the kernel may hold up: command line, environment, script.
	held bool
	// denied says that the kernel refused something, not that the process ended.
	denied bool
}

// starting reports whether execve may be at work: the program is there and its arguments are not, yet. The kernel sets
// them after the executable (setup_arg_pages and create_elf_tables, fs/exec.c and fs/binfmt_elf.c).
func (d *details) starting() bool {
	return d.exe != "" && len(d.args) == 0 && !d.held && !d.stat.dead()
}

// read reads all of pid, of a kernel thread or a thread its stat alone. The error is that it is gone, or was never
// there. All is read again when the process called execve in between, so that the parts fit.
func (r *reader) read(pid int32) (details, error) {
	if d, found := r.early[pid]; found {
		return d, nil
	}
	dir, err := unix.Openat(r.root, strconv.Itoa(int(pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return details{}, err
	}
	defer func() { _ = unix.Close(dir) }()
	first, err := r.stat(dir, "stat")
	if err != nil || first.kernel() || first.thread {
		return details{stat: first}, err
	}
	var d details
	for range 3 {
		d = r.memory(dir, pid)
		d.stat = first
		r.rest(dir, &d)
		last, err := r.stat(dir, "stat")
		if err != nil || last.image == first.image {
			break
		}
		first = last
	}
	return d, nil
}

// readProgram reads all of pid, which has just called execve and may be gone at any moment: what goes first is read
// first. The error is that nothing could be read. Should it call execve once more meanwhile, its stack is the next
// program's.
func (r *reader) readProgram(pid int32) (details, error) {
	dir, err := unix.Openat(r.root, strconv.Itoa(int(pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return details{}, err
	}
	defer func() { _ = unix.Close(dir) }()
	d := r.memory(dir, pid)
	if d.stat, err = r.stat(dir, "stat"); err != nil && !d.cmdlineRead {
		return details{}, err
	}
	r.rest(dir, &d)
	return d, nil
}

// memory reads what ends with a process's memory, at the beginning of its end: command line and executable.
func (r *reader) memory(dir int, pid int32) details {
	d := details{login: event.UnknownID, session: event.UnknownID, held: r.blocked.has(pid)}
	var line, b []byte
	var err error
	if !d.held {
		b, err = r.file(dir, "cmdline")
		d.note(err)
	}
	if len(b) > 0 {
		line = slices.Clone(b)
	}
	if d.exe, err = r.readlink(dir, "exe"); d.note(err) {
		d.exe, d.exeDeleted = cleanExe(d.exe)
	}
	if d.cwd, err = r.readlink(dir, "cwd"); d.note(err) {
		d.cwd = strings.TrimSuffix(d.cwd, deletedSuffix)
	}
	// The file of a process without memory is empty too. Where the executable is there, so was the memory; where it may
	// not be read, an empty command line proves nothing.
	var taken int
	if len(r.env) > 0 && !d.held {
		if b, err = r.file(dir, "environ"); err == nil {
			d.env, taken = pick(r.cut, b, r.env)
		}
	}
	d.redacted = taken
	d.line, d.cmdlineRead = line, len(line) > 0 || d.exe != "" && !d.held
	return d
}

// note takes the result of one reading and reports whether it went well.
func (d *details) note(err error) bool {
	d.denied = d.denied || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
	return err == nil
}

// rest reads what lasts until the process's parent has taken note of its end, its open files aside.
func (r *reader) rest(dir int, d *details) {
	for _, fd := range [...]string{"fd/0", "fd/1"} {
		if target, err := r.readlink(dir, fd); err == nil && strings.HasPrefix(target, "socket:") {
			d.stdioSocket = true
		}
	}
	b, err := r.file(dir, "status")
	if d.note(err) {
		d.cred, d.credRead = parseStatus(b)
	}
	if r.audited {
		d.login, d.session = r.id(dir, "loginuid"), r.id(dir, "sessionid")
	}
	taken := d.redacted
	d.cmdline = makeCmdline(r.cut, d.line)
	d.redacted += taken
	d.line = nil
	d.script = r.script(dir, d)
}

// id reads a number that a kernel without audit does not have.
func (r *reader) id(dir int, name string) uint32 {
	b, err := r.file(dir, name)
	if err != nil {
		return event.UnknownID
	}
	n, ok := number(b, 32)
	if !ok {
		return event.UnknownID
	}
	return uint32(n)
}

// deletedSuffix is what the kernel appends to the name of a file that has none any more, proc_pid_exe(5). A file whose
// own name ends so cannot be told apart.
const deletedSuffix = " (deleted)"

// cleanExe returns the executable's path and whether no file has it: it was deleted, or is a memfd, memfd_create(2).
func cleanExe(link string) (string, bool) {
	path, deleted := strings.CutSuffix(link, deletedSuffix)
	return path, deleted || strings.HasPrefix(path, "/memfd:")
}

// makeCmdline redacts and bounds what /proc/PID/cmdline holds.
func makeCmdline(cut redact.Redactor, b []byte) cmdline {
	c := cmdline{truncated: len(b) > maxCmdlineRead}
	args := splitCmdline(b[:min(len(b), maxCmdlineRead)])
	if len(args) > maxArgs {
		args, c.truncated = args[:maxArgs], true
	}
	args, c.redacted = cut.Args(args)
	left := maxCmdlineRunes
	for i, arg := range args {
		head := firstRunes(arg, left)
		if len(head) < len(arg) {
			args = append(slices.Clip(args[:i]), head)
			c.truncated = true
			break
		}
		left -= utf8.RuneCountInString(arg)
	}
	c.args, c.joined = args, strings.Join(args, " ")
	return c
}

// firstRunes returns the first n runes of s; an invalid byte counts as one.
func firstRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// list calls f for every process below the mount. It returns how many there were.
func (r *reader) list(f func(pid int32)) (int, error) {
	if _, err := unix.Seek(r.root, 0, 0); err != nil {
		return 0, fmt.Errorf("listing processes: %w", err)
	}
	total := 0
	var pids []int32
	for {
		n, err := unix.ReadDirent(r.root, r.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return total, fmt.Errorf("listing processes: %w", err)
		}
		if n == 0 {
			return total, nil
		}
		pids = appendPIDs(pids[:0], r.buf[:n])
		total += len(pids)
		for _, pid := range pids { // f may use the buffer
			f(pid)
		}
	}
}

// appendPIDs appends the names that are pids of a buffer of struct linux_dirent64, getdents(2): inode and offset of 8
// bytes each, the entry's length of 2, its type of 1, its name up to a NUL.
func appendPIDs(dst []int32, b []byte) []int32 {
	const nameAt = 19
	for len(b) >= nameAt {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size < nameAt || size > len(b) {
			break
		}
		var pid int32
		for i, c := range b[nameAt:size] {
			if c == 0 && i > 0 {
				dst = append(dst, pid)
				break
			}
			if c < '0' || c > '9' || i > 8 {
				break
			}
			pid = pid*10 + int32(c-'0')
		}
		b = b[size:]
	}
	return dst
}
