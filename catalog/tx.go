package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/fencepost/fencepost/fence"
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

// ErrFinished means that a *[Reader] or *[Tx] was used after the function that
// it was given to had returned. Nothing was read or changed.
var ErrFinished = errors.New("catalog: used after the function that it was given to had returned")

func finished(collection string) error {
	return fmt.Errorf("%w: for the collection %q", ErrFinished, collection)
}

// A Source is what entries are read from: a *[Reader] or a *[Tx].
type Source interface {
	get(collection, key string) ([]byte, bool, error)
	ascend(collection, from string, fn func(key string, value []byte) bool) error
}

// A Reader reads the entries of one revision. It is valid until the function
// that it was given to returns; later, every method returns [ErrFinished].
type Reader struct {
	state atomic.Pointer[state] // nil once the function has returned
}

// Collections returns the names of all collections that have entries, in
// order.
func (r *Reader) Collections() ([]string, error) {
	s := r.state.Load()
	if s == nil {
		return nil, ErrFinished
	}
	var names []string
	s.collections.Scan(func(name string, c *collection) bool {
		if c.entries.Len() > 0 {
			names = append(names, name)
		}
		return true
	})
	return names, nil
}

func (r *Reader) get(collection, key string) ([]byte, bool, error) {
	s := r.state.Load()
	if s == nil {
		return nil, false, finished(collection)
	}
	value, ok := s.get(collection, key)
	return value, ok, nil
}

func (r *Reader) ascend(collection, from string, fn func(string, []byte) bool) (err error) {
	s := r.state.Load()
	if s == nil {
		return finished(collection)
	}
	s.ascend(collection, from, func(key string, value []byte) bool {
		if r.state.Load() == nil {
			err = finished(collection)
			return false
		}
		return fn(key, value)
	})
	return err
}

// A Tx reads and changes entries. It sees its own changes and those of every
// commit before it. It is used by one goroutine, and is valid until the function
// that it was given to returns; later, everything that is done with it fails
// with [ErrFinished] and changes nothing.
type Tx struct {
	mu      sync.Mutex // so that a Tx that was kept can't change what was published
	draft   *draft     // nil once the function has returned
	changes []Change
	err     error // the first refused change; it fails the whole Tx

	token fence.Token     // zero in a migration and in a rehearsal
	ctx   context.Context // of a migration; nil otherwise
	reads readSet         // what a migration has read; nil otherwise
}

// Context returns a context that ends when a migration is given up: because the
// caller's context ends, a higher generation was seen, or MigrationTimeout is
// over. In an Update it never ends.
func (tx *Tx) Context() context.Context {
	if tx.ctx == nil {
		return context.Background()
	}
	return tx.ctx
}

// Token returns the token under which the changes will be committed; zero in a
// migration, which is run before its token is known, and in a rehearsal.
func (tx *Tx) Token() fence.Token { return tx.token }

// transact calls fn with a Tx on s, which is dead once fn has returned, however
// it did. It returns the state that the changes of fn lead to.
func transact(s *state, token fence.Token, fn func(*Tx) error) (next *state, changes []Change, err error) {
	tx := &Tx{draft: s.draft(), token: token}
	defer tx.finish()
	return tx.result(fn(tx))
}

// result ends the Tx, whose function has returned err.
func (tx *Tx) result(err error) (next *state, changes []Change, _ error) {
	d := tx.finish()
	switch {
	case err != nil:
		return nil, nil, err
	case tx.err != nil:
		return nil, nil, tx.err
	}
	return d.state, tx.changes, nil
}

// finish ends the Tx. Its fields are nobody else's from then on.
func (tx *Tx) finish() *draft {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	d := tx.draft
	tx.draft = nil
	return d
}

func (tx *Tx) get(collection, key string) ([]byte, bool, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.draft == nil {
		return nil, false, finished(collection)
	}
	if tx.reads != nil {
		tx.reads.key(collection, key)
	}
	value, ok := tx.draft.get(collection, key)
	return value, ok, nil
}

// ascend calls fn with the entries as they were when it was called: fn may
// change them.
func (tx *Tx) ascend(collection, from string, fn func(string, []byte) bool) (err error) {
	entries, read, err := tx.reading(collection, from)
	if err != nil || entries == nil {
		return err
	}
	entries.Ascend(from, func(key string, value []byte) bool {
		if !tx.alive() {
			err = finished(collection)
			return false
		}
		more := fn(key, value)
		if !more {
			tx.stopped(read, key)
		}
		return more
	})
	return err
}

// reading returns a collection as it is now, nil where there is none, and notes
// that a migration reads it: all of it from from on, as far as is known yet.
func (tx *Tx) reading(collection, from string) (*btree.Map[string, []byte], *span, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.draft == nil {
		return nil, nil, finished(collection)
	}
	var read *span
	if tx.reads != nil {
		read = tx.reads.scan(collection, from)
	}
	return tx.draft.reading(collection), read, nil
}

// stopped notes that a scan did not go beyond last.
func (tx *Tx) stopped(read *span, last string) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if read != nil && tx.draft != nil { // else what was read is nobody else's any more
		read.to, read.toEnd = last, false
	}
}

func (tx *Tx) alive() bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.draft != nil
}

// change applies c to the draft and keeps it for the log.
func (tx *Tx) change(c Change) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.draft == nil {
		return finished(c.Collection)
	}
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
