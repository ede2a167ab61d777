package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// bench measures one store.
type bench struct {
	plan
	ctx      context.Context
	backend  backend
	serials  atomic.Uint64 // of values, so that no two are the same
	figures  []figure
	tracer   *tracer
	workshop *workshop
}

// entries is the collection that everything is written to.
var entries = catalog.Bytes("entries")

func (b *bench) report(f figure) {
	f.Store = b.backend.name()
	b.figures = append(b.figures, f)
}

// next returns a value that was never written before.
func (b *bench) next() []byte { return value(1<<40 + b.serials.Add(1)) }

// fresh returns a name that nothing bears yet.
func fresh(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:8]) }

// A holder is a catalog with a store of its own.
type holder struct {
	*catalog.Catalog
	store driver.Store
	name  string
}

// hold opens the catalog of a name.
func (b *bench) hold(name string) (*holder, error) {
	store, err := b.backend.open(b.ctx, name)
	if err != nil {
		return nil, err
	}
	return b.holdIn(store, name)
}

// holdIn claims the catalog in a store, which the holder closes.
func (b *bench) holdIn(store driver.Store, name string) (*holder, error) {
	c, err := catalog.Open(b.ctx, store, catalog.Config{Generation: 1})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &holder{c, store, name}, nil
}

func (h *holder) close() {
	_ = h.Close() // a fenced one says so, and its test is over
	_ = h.store.Close()
}

// pair opens a raw table and a catalog side by side.
func (b *bench) pair() (raw, *holder, error) {
	r, err := b.backend.raw(b.ctx, fresh("raw"))
	if err != nil {
		return nil, nil, err
	}
	h, err := b.hold(fresh("bench"))
	if err != nil {
		r.close()
		return nil, nil, err
	}
	return r, h, nil
}

func (b *bench) rawWrite(r raw) operation {
	return func(ctx context.Context, worker int) error { return r.write(ctx, worker, b.next()) }
}

func (b *bench) update(h *holder) operation {
	return func(ctx context.Context, worker int) error {
		v := b.next()
		return h.Update(ctx, func(tx *catalog.Tx) error { return entries.Set(tx, key(worker), v) })
	}
}

// checkSyncs refuses to measure a store on which a commit, raw or ours, is not
// synced: its figures would be worth nothing.
func (b *bench) checkSyncs() error {
	table := fresh("synced")
	r, err := b.backend.raw(b.ctx, table)
	if err != nil {
		return err
	}
	defer r.close()
	h, err := b.hold(fresh("synced"))
	if err != nil {
		return err
	}
	defer h.close()
	return errors.Join(
		b.synced("raw", table, b.rawWrite(r)),
		b.synced("ours", h.name, b.update(h)))
}

func (b *bench) synced(whose, name string, op operation) error {
	const commits = 150
	grown, err := b.countSyncs(name, op, func() error {
		_, err := load(b.ctx, 1, commits, op)
		return err
	})
	if err == nil && grown < commits {
		err = fmt.Errorf("%d commits, %s, made %d syncs: nothing here is worth measuring", commits, whose, grown)
	}
	return err
}

// countSyncs returns by how much the store's counter of syncs grows while fn
// runs. Op is a commit on the connection that fn uses.
func (b *bench) countSyncs(name string, op operation, fn func() error) (int64, error) {
	nudge := func() error { return op(b.ctx, 0) }
	before, err := b.backend.syncs(b.ctx, name, nudge)
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	after, err := b.backend.syncs(b.ctx, name, nudge)
	return after - before, err
}
