package catalog

import (
	"encoding/json"
	"fmt"
)

// A Collection is a typed view of the entries under one name. It holds no
// data: it is a name and a way to encode values, and can be a package-level
// variable. Keys are ordered as bytes.
type Collection[V any] struct {
	name   string
	encode func(V) ([]byte, error)
	decode func([]byte) (V, error)
}

// Bytes is a collection of plain bytes. The bytes that Get and Scan hand out
// are shared and must not be changed; those given to Set are copied.
func Bytes(name string) Collection[[]byte] {
	same := func(b []byte) ([]byte, error) { return b, nil }
	return Collection[[]byte]{name: name, encode: same, decode: same}
}

// JSON is a collection whose values are kept as JSON.
func JSON[V any](name string) Collection[V] {
	return Collection[V]{
		name:   name,
		encode: func(v V) ([]byte, error) { return json.Marshal(v) },
		decode: func(b []byte) (v V, err error) { return v, json.Unmarshal(b, &v) },
	}
}

// Name returns the collection's name.
func (c Collection[V]) Name() string { return c.name }

// Get returns the value at key, and whether there is one.
func (c Collection[V]) Get(s Source, key string) (v V, ok bool, err error) {
	raw, ok, err := s.get(c.name, key)
	if err != nil {
		return v, false, err
	}
	if !ok {
		return v, false, nil
	}
	if v, err = c.decode(raw); err != nil {
		return v, true, fmt.Errorf("catalog: %s %q: %w", c.name, key, err)
	}
	return v, true, nil
}

// Scan calls fn for every entry whose key is at least from, in order, until fn
// returns false. The entries are those at the time of the call: fn may scan
// further, and in a Tx change entries of the same collection.
func (c Collection[V]) Scan(s Source, from string, fn func(key string, v V) bool) error {
	var failed error
	err := s.ascend(c.name, from, func(key string, raw []byte) bool {
		v, err := c.decode(raw)
		if err != nil {
			failed = fmt.Errorf("catalog: %s %q: %w", c.name, key, err)
			return false
		}
		return fn(key, v)
	})
	if err != nil {
		return err
	}
	return failed
}

// Set makes v the value at key. An error that wraps [ErrInvalidEntry] fails the
// whole Tx, even if it is not returned.
func (c Collection[V]) Set(tx *Tx, key string, v V) error {
	raw, err := c.encode(v)
	if err != nil {
		return fmt.Errorf("catalog: %s %q: %w", c.name, key, err)
	}
	return tx.change(Change{Collection: c.name, Key: key, Value: raw})
}

// Delete removes the entry at key and reports whether there was one. Removing
// what isn't there writes nothing.
func (c Collection[V]) Delete(tx *Tx, key string) (bool, error) {
	_, ok, err := tx.get(c.name, key)
	if err == nil && ok {
		err = tx.change(Change{Collection: c.name, Key: key, Delete: true})
	}
	return ok && err == nil, err
}
