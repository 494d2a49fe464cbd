package file

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

const (
	// diffRate is how many bytes of text are redacted and compared in a second, and twice that at once: some 3 % of a core
	// (BenchmarkUnified). A line counts as lineCost bytes more. What costs more than all at once is never compared.
	diffRate = 2 << 20
	lineCost = 64
	// textOverhead is what a kept text takes besides itself.
	textOverhead = 128
	// maxBatchDiffs bounds the diffs that wait for the end of one look around.
	maxBatchDiffs = 4 << 20
)

// keeping is what texts has of a file.
type keeping uint8

const (
	textUnknown keeping = iota // never read, or to be read again
	textKept
	textNone  // no text, too large, or no room: asked again when it changes
	textNever // of secrets
)

// texts keeps the contents of small text files, without what Redact takes from them, so that a change can be shown.
// They are in memory alone: a file of them would be one more place to guard, and all that a restart costs is that they
// are read again. What is not to be seen is never kept.
type texts struct {
	redact  func(string) string // nil: nothing is kept
	noDiff  []string
	size    int64
	room    int
	limiter *rate.Limiter
	kept    map[*node]text
	ranks   map[int]int // how many texts of each
}

type text struct {
	string
	rank int // of the watched path: 0 is the most important
}

func newTexts(c Config) *texts {
	return &texts{
		redact: c.Redact, noDiff: c.NoDiff, size: c.Limits.DiffSize, room: c.Limits.DiffMemory,
		limiter: rate.NewLimiter(diffRate, int(max(2*diffRate, c.Limits.DiffSize))),
		kept:    make(map[*node]text), ranks: make(map[int]int),
	}
}

// wants reports whether the content of n, which is at place under top, is to be learnt.
func (t *texts) wants(n *node, top, place string) bool {
	if t.redact == nil || n.keeping == textNever {
		return false
	}
	if n.keeping == textUnknown || n.root() != nil { // a watched symlink may lead elsewhere by now
		if secretPath(n.path(), t.noDiff) || secretPath(strip(top, place), t.noDiff) || secretVolume(place) {
			t.forget(n)
			n.keeping = textNever
			if n.root() != nil {
				n.keeping = textNone
			}
			return false
		}
	}
	return true
}

// learn makes content the text of n, which is of a watched path with that rank, and returns the text before and after.
// ok is false if there is nothing to compare.
func (t *texts) learn(n *node, content []byte, existed bool, rank int) (before, after string, ok bool) {
	old, had := t.kept[n]
	t.forget(n)
	cost := len(content) + lineCost*(1+bytes.Count(content, []byte{'\n'}))
	if int64(len(content)) > t.size || cost > t.limiter.Burst() || !isText(content) {
		n.keeping = textNone
		return "", "", false
	}
	if !t.limiter.AllowN(time.Now(), cost) {
		n.keeping = textUnknown
		return "", "", false
	}
	after = t.redact(string(content))
	n.keeping = textNone
	if t.makeRoom(len(after)+textOverhead, rank) {
		t.room -= len(after) + textOverhead
		t.kept[n] = text{after, rank}
		t.ranks[rank]++
		n.keeping = textKept
	}
	return old.string, after, had || !existed
}

// makeRoom lets less important texts go until there is room for size bytes.
func (t *texts) makeRoom(size, rank int) bool {
	for t.room < size {
		worst := rank
		for r := range t.ranks {
			worst = max(worst, r)
		}
		if worst == rank {
			return false
		}
		for n, old := range t.kept {
			if old.rank == worst && t.room < size {
				t.forget(n)
				n.keeping = textNone
			}
		}
	}
	return true
}

func (t *texts) forget(n *node) {
	old, ok := t.kept[n]
	if !ok {
		return
	}
	n.keeping = textUnknown
	delete(t.kept, n)
	t.room += len(old.string) + textOverhead
	if t.ranks[old.rank]--; t.ranks[old.rank] == 0 {
		delete(t.ranks, old.rank)
	}
}

// isText reports whether content is UTF-8 and can be shown: a private key is never.
func isText(content []byte) bool {
	s := string(content)
	return utf8.ValidString(s) && !strings.ContainsRune(s, 0) && !strings.Contains(s, "PRIVATE KEY-----")
}

// observe takes the state of n, which is at place, and what it has to say in a diff for a change to it.
func (s *Sensor) observe(n *node, place string, c cause) (cur state, diff string, err error) {
	e := c.effort()
	o := s.observer
	known := n.known()
	v := n.view()
	log := s.isLog(n)
	o.copies = !log && s.texts.wants(n, v.root, place)
	if log {
		e = hashNever
	}
	if o.copies && n.keeping == textUnknown && e != hashLater && known != nil && known.size <= s.texts.size {
		e = hashAlways // for its text
	}
	cur, err = o.observe(place, known, e)
	if v.gone() {
		return state{}, "", errGone
	}
	if err != nil || !o.copied {
		if err == nil && n.keeping == textKept && (known == nil || cur.sum != known.sum || cur.kind != regular) {
			s.texts.forget(n) // it is not what is there any more
		}
		return cur, "", err
	}
	if cur.nlink > 1 { // the other names may be those of secrets
		s.texts.forget(n)
		return cur, "", nil
	}
	before, after, ok := s.texts.learn(n, o.text, known != nil, n.rank())
	if !ok || c.origin == silent || known != nil && (known.hashing != hashed || known.sum == cur.sum) {
		return cur, "", nil
	}
	return cur, unified(before, after, known != nil), nil
}

// isLog reports whether n is one of Config.Logs, which are the last of Config.Paths.
func (s *Sensor) isLog(n *node) bool {
	return len(s.config.Logs) > 0 && n.rank() >= len(s.config.Paths)-len(s.config.Logs)
}

// rank returns the place of n's watched path among all.
func (n *node) rank() int {
	for m := n; m != nil; m = m.parent {
		if r := m.root(); r != nil {
			return r.rank
		}
	}
	return 0
}
