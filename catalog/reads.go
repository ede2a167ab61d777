package catalog

import (
	"cmp"
	"slices"
	"sync"
)

// maxReads is how many keys and spans of one collection a readSet keeps, and
// maxTouched how many entries a trace does. Beyond that they count as all.
const (
	maxReads   = 1 << 16
	maxTouched = 1 << 20
)

// A readSet is what a migration has read: single keys and spans of keys. It is
// used by one goroutine until it is sealed, and is not changed afterwards.
type readSet map[string]*collectionReads

type collectionReads struct {
	all   bool
	keys  map[string]struct{}
	spans []*span
}

// A span is the keys from from on, up to and including to; toEnd: all of them.
type span struct {
	from, to string
	toEnd    bool
}

func (s readSet) of(collection string) *collectionReads {
	c := s[collection]
	if c == nil {
		c = &collectionReads{keys: make(map[string]struct{})}
		s[collection] = c
	}
	return c
}

// key notes that one key was read, whether or not it is there.
func (s readSet) key(collection, key string) {
	c := s.of(collection)
	if !c.all {
		c.keys[key] = struct{}{}
		c.limit()
	}
}

// scan notes that a scan begins. It counts as one of all keys from from on until
// the caller makes it shorter.
func (s readSet) scan(collection, from string) *span {
	read, c := &span{from: from, toEnd: true}, s.of(collection)
	if !c.all {
		c.spans = append(c.spans, read)
		c.limit()
	}
	return read
}

// limit gives up detail where there is too much of it.
func (c *collectionReads) limit() {
	if len(c.keys)+len(c.spans) > maxReads {
		c.all, c.keys, c.spans = true, nil, nil
	}
}

// seal orders the spans and merges those that overlap, for touched.
func (s readSet) seal() {
	for _, c := range s {
		slices.SortFunc(c.spans, func(a, b *span) int { return cmp.Compare(a.from, b.from) })
		merged := c.spans[:0]
		for _, next := range c.spans {
			last := len(merged) - 1
			switch {
			case last < 0 || !merged[last].toEnd && merged[last].to < next.from:
				merged = append(merged, next)
			case next.toEnd:
				merged[last].toEnd = true
			default:
				merged[last].to = max(merged[last].to, next.to)
			}
		}
		c.spans = merged
	}
}

// touched reports whether a change of one entry changes what was read.
func (s readSet) touched(collection, key string) bool {
	c := s[collection]
	if c == nil {
		return false
	}
	if c.all {
		return true
	}
	if _, ok := c.keys[key]; ok {
		return true
	}
	after, _ := slices.BinarySearchFunc(c.spans, key, func(s *span, key string) int {
		if s.from <= key {
			return -1
		}
		return 1
	})
	if after == 0 {
		return false
	}
	last := c.spans[after-1]
	return last.toEnd || key <= last.to
}

// A trace says whether commits have touched what a dry run read. It is told of
// every commit from the one behind the run's head on, by whatever goroutine
// applies them.
type trace struct {
	mu      sync.Mutex
	stale   bool // what was read has changed, or may have
	reads   readSet
	touched map[place]struct{} // while the run is under way; nil afterwards
}

type place struct{ collection, key string }

func newTrace() *trace { return &trace{touched: make(map[place]struct{})} }

// apply tells the trace of a change that was committed.
func (t *trace) apply(c Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stale:
	case t.touched == nil:
		t.stale = t.reads.touched(c.Collection, c.Key)
	case len(t.touched) == maxTouched:
		t.stale = true
	default:
		t.touched[place{c.Collection, c.Key}] = struct{}{}
	}
}

// spoil tells the trace that commits were not seen one by one.
func (t *trace) spoil() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stale = true
}

// finish tells the trace what the run has read.
func (t *trace) finish(reads readSet) {
	reads.seal()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads = reads
	for p := range t.touched {
		t.stale = t.stale || reads.touched(p.collection, p.key)
	}
	t.touched = nil
}

// holds reports whether everything that the run read is as it was.
func (t *trace) holds() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.stale && t.touched == nil
}
