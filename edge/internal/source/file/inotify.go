package file

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// inotifyEvent is one event as read(2) gives it: inotify(7).
type inotifyEvent struct {
	wd   int32
	mask uint32
	name string
}

// inotifyEvents yields the events in buf; what is cut off is left out.
func inotifyEvents(buf []byte) func(func(inotifyEvent) bool) {
	return func(yield func(inotifyEvent) bool) {
		for len(buf) >= unix.SizeofInotifyEvent {
			size := int64(binary.NativeEndian.Uint32(buf[12:]))
			if size > int64(len(buf)-unix.SizeofInotifyEvent) {
				return
			}
			name, _, _ := strings.Cut(string(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
			e := inotifyEvent{wd: int32(binary.NativeEndian.Uint32(buf)), mask: binary.NativeEndian.Uint32(buf[4:]), name: name}
			if !yield(e) {
				return
			}
			buf = buf[unix.SizeofInotifyEvent+size:]
		}
	}
}
