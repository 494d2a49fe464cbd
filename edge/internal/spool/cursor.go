package spool

import "slices"

// due returns the record to hand out next, or nil.
func (s *Spool) due() *Record {
	if s.closed {
		return nil
	}
	if len(s.fresh) > 0 {
		r := s.fresh[0]
		s.fresh[0] = nil
		s.fresh = s.fresh[1:]
		return r
	}
	for s.advance() {
		g, e := s.cursor, s.cursor.index[s.at]
		s.at++
		s.behind--
		if g == s.active && s.at == len(g.index) {
			g.index, s.at = g.index[:0], 0
		}
		data := make([]byte, headerSize+int(e.length))
		_, err := g.file.ReadAt(data, int64(e.off))
		if err == nil {
			_, _, _, err = parse(data, 0)
		}
		if err != nil {
			s.stats.Corrupt++
			s.stats.CorruptBytes += int64(e.length)
			g.waiting.remove(e)
			s.failed("reading "+segmentName(g.id), err)
			continue
		}
		g.out.add(e)
		return &Record{Payload: data[headerSize:], Events: int(e.events), seg: g, entry: e}
	}
	return nil
}

// advance moves the cursor to the next record that waits to be handed out.
func (s *Spool) advance() bool {
	for {
		if c := s.cursor; c != nil && !c.gone && s.at < len(c.index) {
			return true
		}
		var id uint64
		if s.cursor != nil {
			id = s.cursor.id + 1
		}
		i := slices.IndexFunc(s.segments, func(g *segment) bool { return g.id >= id })
		if i < 0 {
			return false
		}
		if old := s.cursor; old != nil && old != s.active {
			old.index = nil
			if !old.gone && old.waiting.records == 0 { // its last records were unreadable
				s.remove(old)
				i = slices.IndexFunc(s.segments, func(g *segment) bool { return g.id >= id })
			}
		}
		s.cursor, s.at = s.segments[i], 0
		if err := s.enter(s.cursor, new([]byte)); err != nil {
			s.failed("reading "+segmentName(s.cursor.id), err)
			s.behind -= s.cursor.waiting.records - s.cursor.out.records
			s.cursor.index = nil
		}
	}
}
