// Brokenkv is kvserver over a store whose condition always holds: a commit that
// is refused is written behind whatever came in between, and a holder is told
// that it holds the token still. It is what a fence is there to prevent, so
// that tests can see whether they would notice.
package main

import (
	"context"
	"errors"
	"sync"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/examples/kvserver/app"
)

func main() {
	app.Main(app.Options{Wrap: func(s driver.Store) driver.Store { return &unfenced{Store: s} }})
}

// unfenced is a store without a fence. It embeds the interface, so that it
// cannot wake anybody up either.
type unfenced struct {
	driver.Store

	mu  sync.Mutex
	own driver.Head // as it would be if nobody else wrote; zero before the first claim of this process
}

// Head tells a holder that its claim, and its last commit, are the newest.
func (u *unfenced) Head(ctx context.Context) (driver.Head, error) {
	head, err := u.Store.Head(ctx)
	if err != nil {
		return head, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.own.IsZero() {
		return u.own, nil
	}
	return head, nil
}

// Append writes rec behind the newest commit, whosever that is.
func (u *unfenced) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	wanted := prior.After(rec)
	err := u.Store.Append(ctx, prior, rec)
	for errors.Is(err, driver.ErrConflict) && ctx.Err() == nil {
		prior, headErr := u.Store.Head(ctx)
		if headErr != nil {
			return headErr
		}
		rec.Revision = prior.Revision + 1
		err = u.Store.Append(ctx, prior, rec)
	}
	if err == nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.own = wanted
	}
	return err
}

// Claim remembers what is installed.
func (u *unfenced) Claim(ctx context.Context) (driver.Claiming, error) {
	c, err := u.Store.Claim(ctx)
	if err != nil {
		return nil, err
	}
	return &claiming{Claiming: c, store: u}, nil
}

type claiming struct {
	driver.Claiming
	store *unfenced
}

func (c *claiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	err := c.Claiming.Install(ctx, claim, rec, when...)
	if err == nil {
		c.store.mu.Lock()
		defer c.store.mu.Unlock()
		c.store.own = claim.Head()
	}
	return err
}
