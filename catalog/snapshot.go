package catalog

import (
	"context"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Snapshot reads the catalog in store once and calls fn with its entries and
// the head that they are of, for tools that check or export a catalog. The head
// is zero where nobody has claimed yet. It writes nothing, needs no token, and
// reads data of any version. A failure in passing is tried again within
// cfg.RetryBudget; fn is called once at most, and its error is returned.
func Snapshot(ctx context.Context, store driver.Store, cfg Config, fn func(head driver.Head, r *Reader) error) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	r := newReplica(witnessed(store), cfg)
	if err := again(ctx, cfg.RetryBudget, r.catchUp); err != nil {
		return err
	}
	return r.state.view(func(entries *Reader) error { return fn(r.head, entries) })
}

// catchUp applies the log up to the newest head, whatever that says of this
// process.
func (r *replica) catchUp(ctx context.Context) error {
	head, err := r.readHead(ctx)
	if err != nil {
		return err
	}
	return r.advance(ctx, r.store, head)
}
