package kv

import "github.com/fencepost/fencepost/catalog"

// An access is what ops see of the data while a batch runs.
type access struct {
	data    catalog.Collection[[]byte]
	source  catalog.Source
	tx      *catalog.Tx // nil where nothing is to be written
	cursors *cursors
	changed bool
	err     error // what no op can answer; it fails the batch
}

// get returns the value at key. It is shared, and must not be changed.
func (a *access) get(key []byte) ([]byte, bool) {
	value, ok, err := a.data.Get(a.source, string(key))
	a.fail(err)
	return value, ok
}

func (a *access) set(key, value []byte) {
	a.changed = true
	a.fail(a.data.Set(a.tx, string(key), value))
}

func (a *access) del(key []byte) bool {
	existed, err := a.data.Delete(a.tx, string(key))
	a.changed = a.changed || existed
	a.fail(err)
	return existed
}

// scan calls fn for the entries from key on, in the order of their keys.
func (a *access) scan(from string, fn func(key string) bool) {
	a.fail(a.data.Scan(a.source, from, func(key string, _ []byte) bool { return fn(key) }))
}

func (a *access) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}
