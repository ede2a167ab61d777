package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// DefaultMigrationTimeout is the default of Config.MigrationTimeout.
const DefaultMigrationTimeout = time.Minute

// ErrMigrationTimeout means that migrations did not finish within
// Config.MigrationTimeout while nobody could commit. Nothing was written. It
// asks for retry.
var ErrMigrationTimeout = errors.New("the migrations did not finish within MigrationTimeout")

func (c Config) lateMigrations(format string, args ...any) error {
	return exitcodes.With(fmt.Errorf("catalog: %w (%v): %s: nothing was written; raise MigrationTimeout, stop the writers, or make the migrations read less",
		ErrMigrationTimeout, c.MigrationTimeout, fmt.Sprintf(format, args...)), exitcodes.Retry)
}

// pausedRun is a dry run while nobody can commit, and therefore bounded by
// MigrationTimeout. It isn't even tried if the one before took longer. Alive is
// as for dryRun.
func (r *replica) pausedRun(ctx context.Context, head driver.Head, now *state, t *trace, alive func(context.Context) error) (*dryRun, error) {
	limit := r.cfg.MigrationTimeout
	if r.dry.sameVersions(head.Claim) && r.dry.took > limit {
		return nil, r.cfg.lateMigrations("their last run took %v, and commits have changed what they read", r.dry.took.Round(time.Millisecond))
	}
	bounded, cancel := context.WithTimeoutCause(ctx, limit, r.cfg.lateMigrations("nobody could commit meanwhile"))
	defer cancel()
	return r.dryRun(bounded, head, now, t, alive)
}

// migrated returns the entries and the changes with which a claim over head is
// installed. If what an earlier dry run read is as it was, its changes are; else
// the migrations run now, under the claim.
func (c *claimer) migrated(ctx context.Context, claiming driver.Claiming, head driver.Head) (*state, []byte, error) {
	if !pending(head.Claim, c.cfg.Migrations) {
		return c.state, newPayload(), nil
	}
	if !c.dry.fits(head.Claim) {
		if err := c.runUnder(ctx, claiming, head); err != nil {
			return nil, nil, err
		}
	}
	return c.dry.onto(head, c.state), c.dry.payload, nil
}

// runUnder runs the migrations under a claim, and keeps that alive. It ends
// early if the claim is lost, if somebody with a better right wants to claim, or
// if the caller's context ends. The time that it takes is not the claim's.
func (c *claimer) runUnder(ctx context.Context, claiming driver.Claiming, head driver.Head) error {
	begun := time.Now()
	defer func() { c.pace.extend(time.Since(begun)) }()
	c.cfg.Logger.InfoContext(ctx, "migrations run while nobody can commit, since commits have changed what they read",
		"store", c.store.String(), "revision", head.Revision, "bound", c.cfg.MigrationTimeout)
	p := preempter{store: c.store, cfg: c.cfg}
	if err := p.begin(ctx); err != nil {
		return err
	}
	c.trace = newTrace()
	dry, err := c.pausedRun(c.caller, head, c.state, c.trace, func(ctx context.Context) error { return c.stillMine(ctx, claiming, &p) })
	if err == nil {
		c.dry = dry
	}
	return err
}

// stillMine says whether a claim under way may go on.
func (c *claimer) stillMine(ctx context.Context, claiming driver.Claiming, p *preempter) error {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.StoreTimeout)
	defer cancel()
	if err := claiming.Renew(bounded); err != nil {
		return err
	}
	if err := p.check(ctx, c.cfg.Generation); errors.Is(err, errPreempted) {
		return err
	}
	return nil // a board that can't be read asks for nothing
}
