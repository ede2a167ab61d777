package leftovers

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader"
)

// behindClaim is how long a holder leaves the store to its work before it makes a pass:
// in the first moments requests are waiting.
const behindClaim = 10 * time.Second

// Beside returns a leader.Work that does what work does, and makes one pass over the
// leftovers in store, ten seconds after this process has begun to lead. A pass that finds
// nothing writes nothing, and there is no second one: also after a pause the work goes on
// without. What it removed and what failed is logged to cfg.Catalog.Logger; nothing of it
// ends the work, which is joined together with the pass.
func Beside(work leader.Work, store driver.Store, cfg Config) leader.Work {
	log := cfg.Catalog.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	made := false // work is never called twice at a time
	return func(ctx context.Context, term *leader.Term) error {
		if made {
			return work(ctx, term)
		}
		passing, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { made = onePass(passing, store, cfg, log) })
		defer wg.Wait() // also behind a panic of work
		defer cancel()
		return work(ctx, term)
	}
}

// onePass makes a pass, and reports whether it came to its end.
func onePass(ctx context.Context, store driver.Store, cfg Config, log *slog.Logger) bool {
	t := time.NewTimer(behindClaim)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return false
	}
	r, err := Pass(ctx, store, cfg)
	if ctx.Err() != nil {
		return false
	}
	for _, i := range r.Items {
		if i.Fate == Deleted {
			log.InfoContext(ctx, "a leftover was removed", "store", r.Store, "kind", string(i.Kind), "name", i.Name, "generation", i.Generation.String())
		}
	}
	for _, err := range []error{err, r.Err()} {
		if err != nil {
			log.WarnContext(ctx, "not all leftovers were removed", "store", r.Store, "err", err)
		}
	}
	return true
}
