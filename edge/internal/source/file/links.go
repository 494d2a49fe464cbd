package file

import (
	"slices"
	"time"
)

// maxNames is how many other names of an inode an event carries.
const maxNames = 8

// nameLinks gives each change of a file with several hard links the other names that the baseline has of it. link(2)
// tells nothing of the old name, so there is no index that would stay true: the baseline is searched, once for all
// changes and for a tenth of the time at most. Beyond, the events tell the number of links alone.
func (s *Sensor) nameLinks(changes []change) {
	type key struct {
		container string
		id        id
	}
	var names map[key][]string
	for i := range changes {
		if st := changes[i].cur; st != nil && st.kind == regular && st.nlink > 1 && changes[i].origin != silent {
			if names == nil {
				names = make(map[key][]string)
			}
			names[key{changes[i].container, st.id}] = nil
		}
	}
	now := time.Now()
	if names == nil || now.Before(s.linksAt) {
		return
	}
	for _, v := range s.views {
		v.top.all(func(n *node) bool {
			if n.state.kind != regular {
				return true
			}
			of := key{v.container, n.state.id}
			if found, ok := names[of]; ok && len(found) <= maxNames {
				names[of] = append(found, n.path())
			}
			return true
		})
	}
	s.linksAt = time.Now().Add(9 * time.Since(now))
	for i := range changes {
		c := &changes[i]
		if c.cur == nil {
			continue
		}
		for _, name := range names[key{c.container, c.cur.id}] {
			if name != c.path && len(c.names) < maxNames {
				c.names = append(c.names, name)
			}
		}
		slices.Sort(c.names)
	}
}
