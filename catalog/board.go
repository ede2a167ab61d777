package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

// A Board reads and writes the small notes beside a catalog, which no fence
// guards: who is here, which generation may be promoted, heartbeats. Safety
// never rests on them.
//
// Every note is a JSON object. A build that changes one keeps the fields that
// it does not know, so that old and new builds can share a board.
type Board struct {
	store *witness
	cfg   Config

	allocating chan struct{} // holds one while a generation is given out
}

// NewBoard returns the board of the catalog in store. It contacts nobody. Of
// cfg it uses StoreTimeout and RetryBudget.
func NewBoard(store driver.Store, cfg Config) *Board {
	return &Board{store: witnessed(store), cfg: cfg.withDefaults(), allocating: make(chan struct{}, 1)}
}

// Head returns the newest head of the catalog, as [ReadHead] does.
func (b *Board) Head(ctx context.Context) (driver.Head, error) { return ReadHead(ctx, b.store, b.cfg) }

// Watch calls wake soon after writes to the catalog or its board, if the store can
// tell, and once when it has begun. It returns when ctx ends. A wake-up is a hint,
// and one may be lost: whoever watches polls as well.
func (b *Board) Watch(ctx context.Context, wake func()) {
	listen := writesOf(b.store)
	if listen == nil {
		wake()
		<-ctx.Done()
		return
	}
	woken := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() { keepWatching(ctx, listen, b.cfg, woken) })
	defer wg.Wait()
	for {
		select {
		case <-woken:
			wake()
		case <-ctx.Done():
			return
		}
	}
}

// A Posted is a note as it stands on the board.
type Posted[T any] struct {
	Key     string
	Value   T
	Version int64 // zero where there is no such note

	raw []byte
}

// Note returns what makes a claim conditional on this note.
func (p Posted[T]) Note() driver.Note { return driver.Note{Key: p.Key, Version: p.Version} }

// ReadNote returns the note at key; the zero value at version zero where there
// is none. A failure in passing is tried again within RetryBudget.
func ReadNote[T any](ctx context.Context, b *Board, key string) (Posted[T], error) {
	notes, err := ReadNotes[T](ctx, b, key)
	if err != nil {
		return Posted[T]{}, err
	}
	for _, n := range notes {
		if n.Key == key {
			return n, nil
		}
	}
	return Posted[T]{Key: key}, nil
}

// ReadNotes returns the notes whose key begins with prefix, ordered by key.
func ReadNotes[T any](ctx context.Context, b *Board, prefix string) ([]Posted[T], error) {
	var notes []driver.Note
	err := b.persist(ctx, func(ctx context.Context) (err error) {
		notes, err = b.store.Notes(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	posted := make([]Posted[T], 0, len(notes))
	for _, n := range notes {
		p := Posted[T]{Key: n.Key, Version: n.Version, raw: n.Value}
		if err := json.Unmarshal(n.Value, &p.Value); err != nil {
			return nil, exitcodes.With(fmt.Errorf("%s: %w: the note %q: %w", b.store, driver.ErrCorrupt, n.Key, err), exitcodes.Panic)
		}
		posted = append(posted, p)
	}
	return posted, nil
}

// ErrUnchanged, returned by the function given to [UpdateNote], ends it without
// a write and without an error.
var ErrUnchanged = errors.New("catalog: the note stays as it is")

// UpdateNote reads the note at key, changes it with fn and writes it back, on
// condition that nobody else has; otherwise it begins again, until ctx ends or
// RetryBudget is spent. Fn may so be called more than once. It gets the zero
// value where there is no note. An error of fn ends UpdateNote, and nothing is
// written. Where a write's answer is lost, fn is called again with what the
// board holds then: it must accept finding its own change.
func UpdateNote[T any](ctx context.Context, b *Board, key string, fn func(*T) error) (Posted[T], error) {
	return updateNote(ctx, b, key, func(context.Context) error { return nil }, fn)
}

// updateNote is [UpdateNote], and calls before, whose failures in passing are
// tried again too, before each try.
func updateNote[T any](ctx context.Context, b *Board, key string, before func(context.Context) error, fn func(*T) error) (Posted[T], error) {
	var p Posted[T]
	var sent []byte // by the last try
	tries := 0
	err := b.persist(ctx, func(ctx context.Context) error {
		err := before(ctx)
		if err != nil {
			return err
		}
		if p, err = ReadNote[T](ctx, b, key); err != nil || tries > 1 && bytes.Equal(p.raw, sent) {
			return err
		}
		known, err := json.Marshal(p.Value)
		if err != nil {
			return err
		}
		if err := fn(&p.Value); err != nil {
			return &final{err}
		}
		if p.raw, err = merge(p.raw, known, p.Value); err != nil {
			return err
		}
		if tries > 0 {
			p.raw = mark(p.raw)
		}
		sent, tries = p.raw, tries+1
		p.Version, err = b.store.Post(ctx, driver.Note{Key: key, Value: p.raw, Version: p.Version})
		return err
	})
	if errors.Is(err, ErrUnchanged) {
		return p, nil
	}
	return p, err
}

// mark returns text with 64 random bits as white space behind it, by which a try
// is known where its answer was lost, or was a conflict with itself. Whoever
// reads JSON passes over it.
func mark(text []byte) []byte {
	id := driver.NewID()
	for bits, n := binary.BigEndian.Uint64(id[:]), 0; n < 64; n++ {
		text = append(text, " \t"[bits>>n&1])
	}
	return text
}

// RemoveNote removes the note at key if it is still at the version of p; a note
// that is gone already is no error. A failure in passing is tried again within
// RetryBudget.
func RemoveNote[T any](ctx context.Context, b *Board, p Posted[T]) error {
	_, err := b.remove(ctx, p.Note())
	return err
}

// merge returns raw with the fields of value in place of those of known.
func merge(raw, known []byte, value any) ([]byte, error) {
	now, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var all, before, after map[string]json.RawMessage
	for _, part := range []struct {
		text []byte
		into *map[string]json.RawMessage
	}{{cmpBytes(raw, []byte("{}")), &all}, {known, &before}, {now, &after}} {
		if err := json.Unmarshal(part.text, part.into); err != nil {
			return nil, fmt.Errorf("catalog: a note must be a JSON object: %w", err)
		}
	}
	maps.DeleteFunc(all, func(field string, _ json.RawMessage) bool { _, ok := before[field]; return ok })
	maps.Copy(all, after)
	return json.Marshal(all)
}

func cmpBytes(b, otherwise []byte) []byte {
	if len(bytes.TrimSpace(b)) == 0 {
		return otherwise
	}
	return b
}

// final is an error of the caller's function, which no further try mends.
type final struct{ err error }

func (f *final) Error() string { return f.err.Error() }

// persist calls fn, each time under StoreTimeout, until it succeeds or fails
// for good.
func (b *Board) persist(ctx context.Context, fn func(context.Context) error) error {
	pace := newPace(b.cfg.RetryBudget)
	for {
		_, err := callStore(ctx, b.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
		var f *final
		if errors.As(err, &f) {
			return f.err
		}
		again := errors.Is(err, driver.ErrConflict) || transient(err)
		if err == nil || !again {
			return err
		}
		if !pace.wait(ctx) {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
			return err
		}
	}
}

// allocated is the note of the numbers that [Board.NextGeneration] gave out.
type allocated struct {
	Last generation.Generation `json:"last"`
}

const generationsKey = "generations"

// LastGeneration returns the last generation that NextGeneration gave out, or
// generation.None.
func (b *Board) LastGeneration(ctx context.Context) (generation.Generation, error) {
	posted, err := ReadNote[allocated](ctx, b, generationsKey)
	return posted.Value.Last, err
}

// Reserve hands out g, and every number below it, to a release that was given its
// number elsewhere: NextGeneration goes on above it. If g was handed out already it
// changes nothing. It returns an error that wraps [generation.ErrNoRoom], and
// changes nothing, if g is so high that hardly a release could follow.
func (b *Board) Reserve(ctx context.Context, g generation.Generation) error {
	_, err := UpdateNote(ctx, b, generationsKey, func(a *allocated) error {
		if a.Last >= g {
			return ErrUnchanged
		}
		a.Last = g
		return g.CheckRoom()
	})
	return err
}

// NextGeneration gives out a generation that nobody was ever given here, above
// every one that ever claimed. A number that was given out is spent, whether it
// is used or not: an answer that is lost costs a number and nothing else. The
// error wraps [generation.ErrOverflow] if no further release could follow.
func (b *Board) NextGeneration(ctx context.Context) (generation.Generation, error) {
	select { // so that callers of one process don't contend for the note
	case b.allocating <- struct{}{}:
		defer func() { <-b.allocating }()
	case <-ctx.Done():
		return generation.None, context.Cause(ctx)
	}
	var head driver.Head
	var next generation.Generation
	readHead := func(ctx context.Context) (err error) {
		head, err = b.store.Head(ctx)
		return err
	}
	_, err := updateNote(ctx, b, generationsKey, readHead, func(a *allocated) (err error) {
		if next, err = max(a.Last, head.Claim.Token.Generation).Next(); err == nil {
			_, err = next.Next() // no release could follow the largest number
		}
		a.Last = next
		return err
	})
	if err != nil {
		return generation.None, err
	}
	return next, nil
}
