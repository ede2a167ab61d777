package catalog

import "github.com/tidwall/btree"

// state is every entry of a catalog at one revision. A published state is
// never written, not even by the draft that is made of it, so that many
// goroutines may read it and make drafts of it at once.
type state struct {
	collections btree.Map[string, *collection]
	size        int64 // of all entries, in bytes of a payload
}

// collection maps a key to its value. It is no btree.Map itself: a btree.Map
// copies values that have a method Copy along with the node that they are in.
type collection struct {
	entries btree.Map[string, []byte]
}

func newState() *state { return new(state) }

// fork returns a copy of m, which can be changed. M itself must not be changed
// any more, and is not written: Map.Copy writes to the map that it copies,
// which is here a copy of m of its own.
func fork[V any](m *btree.Map[string, V]) *btree.Map[string, V] {
	shared := *m
	return shared.Copy()
}

// view calls fn with a Reader of s, which is dead once fn has returned.
func (s *state) view(fn func(*Reader) error) error {
	r := new(Reader)
	r.state.Store(s)
	defer r.state.Store(nil)
	return fn(r)
}

// get returns the value at key. The bytes are the state's own.
func (s *state) get(name, key string) ([]byte, bool) {
	c, ok := s.collections.Get(name)
	if !ok {
		return nil, false
	}
	return c.entries.Get(key)
}

// ascend calls fn for the entries of a collection whose key is at least from,
// in order, until fn returns false.
func (s *state) ascend(name, from string, fn func(key string, value []byte) bool) {
	if c, ok := s.collections.Get(name); ok {
		c.entries.Ascend(from, fn)
	}
}

// A draft is a state under change: a copy of another that can be thrown away.
// It must not be changed any more once its state is published, or once a draft
// of that was made.
type draft struct {
	*state
	own map[string]*collection // the collections that were copied already
}

func (s *state) draft() *draft {
	d := &draft{state: newState(), own: make(map[string]*collection)}
	d.collections, d.size = *fork(&s.collections), s.size
	return d
}

// apply changes one entry. The value is kept as it is.
func (d *draft) apply(c Change) {
	col := d.own[c.Collection]
	if col == nil {
		col = new(collection)
		if shared, ok := d.collections.Get(c.Collection); ok {
			col.entries = *fork(&shared.entries)
		}
		d.own[c.Collection] = col
		d.collections.Set(c.Collection, col)
	}
	var old []byte
	var had bool
	if c.Delete {
		old, had = col.entries.Delete(c.Key)
	} else {
		old, had = col.entries.Load(c.Key, c.Value) // as Set does, but quicker where the key is the last one
		d.size += entrySize(c.Collection, c.Key, c.Value)
	}
	if had {
		d.size -= entrySize(c.Collection, c.Key, old)
	}
}

// reading returns a collection as it is now, for who reads it while the draft
// is changed further; nil where there is none.
func (d *draft) reading(name string) *btree.Map[string, []byte] {
	if own := d.own[name]; own != nil {
		return own.entries.Copy()
	}
	if shared, ok := d.collections.Get(name); ok {
		return &shared.entries
	}
	return nil
}

// ascendAll calls fn for every entry, ordered by collection and key, until fn
// fails, and returns its error.
func (s *state) ascendAll(fn func(Change) error) (err error) {
	s.collections.Scan(func(name string, c *collection) bool {
		c.entries.Scan(func(key string, value []byte) bool {
			err = fn(Change{Collection: name, Key: key, Value: value})
			return err == nil
		})
		return err == nil
	})
	return err
}
