package process

import (
	"io"
	"os"
	"time"
)

// maxPasswd bounds what is read of the passwd file.
const maxPasswd = 1 << 20

// users names user ids. It reads the passwd file again when the file changed.
type users struct {
	path    string
	modTime time.Time
	size    int64
	names   map[uint32]string
}

// name returns "" for an id that the file does not name, or when there is no file.
func (u *users) name(id uint32) string {
	info, err := os.Stat(u.path)
	if err != nil {
		return ""
	}
	if u.names == nil || !info.ModTime().Equal(u.modTime) || info.Size() != u.size {
		f, err := os.Open(u.path)
		if err != nil {
			return ""
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxPasswd))
		if err != nil {
			return ""
		}
		u.names, u.modTime, u.size = parsePasswd(b), info.ModTime(), info.Size()
	}
	return u.names[id]
}
