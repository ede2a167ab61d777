package catalog

import "github.com/tidwall/btree"

// state is every entry of a catalog at one revision. A published state is
// never changed: a commit works on a copy that shares what it doesn't touch.
type state struct {
	collections btree.Map[string, *collection]
	size        int64  // of all entries, in bytes of a payload
	reader      Reader // over this state, so that a View allocates nothing
}

// collection maps a key to its value.
type collection = btree.Map[string, []byte]

func newState() *state {
	s := new(state)
	s.reader.state = s
	return s
}

// get returns the value at key. The bytes are the state's own.
func (s *state) get(name, key string) ([]byte, bool) {
	c, ok := s.collections.Get(name)
	if !ok {
		return nil, false
	}
	return c.Get(key)
}

// ascend calls fn for the entries of a collection whose key is at least from,
// in order, until fn returns false.
func (s *state) ascend(name, from string, fn func(key string, value []byte) bool) {
	if c, ok := s.collections.Get(name); ok {
		c.Ascend(from, fn)
	}
}

// A draft is a state under change: a copy of another that can be thrown away.
type draft struct {
	*state
	own map[string]*collection // the collections that were copied already
}

func (s *state) draft() *draft {
	d := &draft{state: newState(), own: make(map[string]*collection)}
	d.collections, d.size = *s.collections.Copy(), s.size
	return d
}

// apply changes one entry. The value is kept as it is.
func (d *draft) apply(c Change) {
	col := d.own[c.Collection]
	if col == nil {
		if shared, ok := d.collections.Get(c.Collection); ok {
			col = shared.Copy()
		} else {
			col = new(collection)
		}
		d.own[c.Collection] = col
		d.collections.Set(c.Collection, col)
	}
	var old []byte
	var had bool
	if c.Delete {
		old, had = col.Delete(c.Key)
	} else {
		old, had = col.Load(c.Key, c.Value) // as Set does, but quicker where the key is the last one
		d.size += entrySize(c.Collection, c.Key, c.Value)
	}
	if had {
		d.size -= entrySize(c.Collection, c.Key, old)
	}
}

// ascendAll calls fn for every entry, ordered by collection and key, until fn
// fails, and returns its error.
func (s *state) ascendAll(fn func(Change) error) (err error) {
	s.collections.Scan(func(name string, c *collection) bool {
		c.Scan(func(key string, value []byte) bool {
			err = fn(Change{Collection: name, Key: key, Value: value})
			return err == nil
		})
		return err == nil
	})
	return err
}
