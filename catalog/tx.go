package catalog

import (
	"bytes"
	"errors"
	"fmt"
)

// The sizes of an entry's parts, in bytes. The value's is the store's: an entry
// must fit into one record with everything else of its commit.
const (
	MaxCollection = 255
	MaxKey        = 4096
)

// ErrInvalidEntry means that an entry's collection or key is empty or too
// long. It concerns one call; nothing was written.
var ErrInvalidEntry = errors.New("catalog: not a valid entry")

// A Source is what entries are read from: a *[Reader] or a *[Tx].
type Source interface {
	get(collection, key string) ([]byte, bool)
	ascend(collection, from string, fn func(key string, value []byte) bool)
}

// A Reader reads the entries of one revision. It is valid until the function
// that it was given to returns.
type Reader struct {
	state *state
}

// Collections returns the names of all collections that have entries, in
// order.
func (r *Reader) Collections() []string {
	var names []string
	r.state.collections.Scan(func(name string, c *collection) bool {
		if c.Len() > 0 {
			names = append(names, name)
		}
		return true
	})
	return names
}

func (r *Reader) get(collection, key string) ([]byte, bool) { return r.state.get(collection, key) }

func (r *Reader) ascend(collection, from string, fn func(string, []byte) bool) {
	r.state.ascend(collection, from, fn)
}

// A Tx reads and changes entries. It sees its own changes and those of every
// commit before it. It is valid until the function that it was given to
// returns, and is used by one goroutine.
type Tx struct {
	draft   *draft
	changes []Change
	err     error // the first refused change; it fails the whole Tx
}

func newTx(s *state) *Tx { return &Tx{draft: s.draft()} }

func (tx *Tx) get(collection, key string) ([]byte, bool) { return tx.draft.get(collection, key) }

func (tx *Tx) ascend(collection, from string, fn func(string, []byte) bool) {
	tx.draft.ascend(collection, from, fn)
}

// change applies c to the draft and keeps it for the log.
func (tx *Tx) change(c Change) error {
	if err := c.check(); err != nil {
		if tx.err == nil {
			tx.err = err
		}
		return err
	}
	c.Value = bytes.Clone(c.Value)
	tx.draft.apply(c)
	tx.changes = append(tx.changes, c)
	return nil
}

func (c Change) check() error {
	switch {
	case c.Collection == "" || len(c.Collection) > MaxCollection:
		return fmt.Errorf("%w: a collection's name of %d bytes, want 1 to %d", ErrInvalidEntry, len(c.Collection), MaxCollection)
	case c.Key == "" || len(c.Key) > MaxKey:
		return fmt.Errorf("%w: a key of %d bytes in %q, want 1 to %d", ErrInvalidEntry, len(c.Key), c.Collection, MaxKey)
	default:
		return nil
	}
}
