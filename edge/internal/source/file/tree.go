package file

import "strings"

// node is one name of the baseline. Its path is that of its parents and its own; a node without a state is only on the
// way to a watched path.
type node struct {
	parent *node
	name   string
	state  state
	folder *folder // of a folder and of a watched path
	// modified is when a change of content was last told, in nanoseconds of the sensor's age; 0: never. A whole time would
	// cost each file 16 bytes more.
	modified int64
	// round is the scan that last saw the name.
	round uint32
	// keeping is what texts has of it.
	keeping keeping
}

// folder is what only folders and watched paths need.
type folder struct {
	children map[string]*node
	// real is where the node is on the disk when that is not its name inside its parent's real place.
	real  string
	root  *root // of a watched path
	view  *view // of the topmost
	watch *watch
	// polled is true when no watch could be had.
	polled bool
	// own is true of what the sensor must not look at.
	own bool
}

func (n *node) child(name string) *node {
	if n.folder == nil {
		return nil
	}
	return n.folder.children[name]
}

// add returns the child of that name, a new one without a state if there was none.
func (n *node) add(name string) *node {
	if c := n.child(name); c != nil {
		return c
	}
	f := n.asFolder()
	if f.children == nil {
		f.children = make(map[string]*node)
	}
	name = strings.Clone(name) // it may be a part of a longer path
	c := &node{parent: n, name: name}
	f.children[name] = c
	return c
}

// prune takes n out of the tree when nothing hangs on it, and then its parents likewise.
func (n *node) prune() {
	for n.parent != nil && n.state.kind == absent && n.isBare() {
		p := n.parent
		delete(p.folder.children, n.name)
		n.parent = nil
		n = p
	}
}

func (n *node) isBare() bool {
	f := n.folder
	return f == nil || len(f.children) == 0 && f.root == nil && f.watch == nil && !f.own
}

func (n *node) asFolder() *folder {
	if n.folder == nil {
		n.folder = &folder{}
	}
	return n.folder
}

func (n *node) root() *root {
	if n.folder == nil {
		return nil
	}
	return n.folder.root
}

// addPath returns the node at path, a new one without a state if there was none.
func (n *node) addPath(path string) *node {
	for name := range components(path) {
		n = n.add(name)
	}
	return n
}

// known returns the node's state, nil if it has none.
func (n *node) known() *state {
	if n.state.kind == absent {
		return nil
	}
	return &n.state
}

// lookup returns the node at path, nil if there is none.
func (n *node) lookup(path string) *node {
	for name := range components(path) {
		if n = n.child(name); n == nil {
			return nil
		}
	}
	return n
}

// path returns the node's path as events have it.
func (n *node) path() string {
	if n.parent == nil {
		return "/"
	}
	size, depth := 0, 0
	for m := n; m.parent != nil; m = m.parent {
		size += 1 + len(m.name)
		depth++
	}
	b := make([]byte, size)
	for m := n; m.parent != nil; m = m.parent {
		size -= len(m.name)
		copy(b[size:], m.name)
		size--
		b[size] = '/'
	}
	return string(b)
}

// place returns where the node is on the disk.
func (n *node) place() string {
	if n.folder != nil && n.folder.real != "" {
		return n.folder.real
	}
	if n.parent == nil {
		return "/"
	}
	return join(n.parent.place(), n.name)
}

// all calls yield for n and everything below it, parents first.
func (n *node) all(yield func(*node) bool) bool {
	if !yield(n) {
		return false
	}
	if n.folder != nil {
		for _, c := range n.folder.children {
			if !c.all(yield) {
				return false
			}
		}
	}
	return true
}

// components yields the names of a clean absolute path.
func components(path string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for rest := strings.TrimPrefix(path, "/"); rest != ""; {
			var name string
			name, rest, _ = strings.Cut(rest, "/")
			if !yield(name) {
				return
			}
		}
	}
}

// join and split are path.Join and path.Split for clean absolute folders, without looking at the names.
func join(dir, name string) string {
	if dir == "/" {
		return dir + name
	}
	return dir + "/" + name
}

func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 1)], path[i+1:]
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}
