package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/step"
)

// Open claims the catalog in store for cfg.Generation and returns its holder.
// In one atomic commit it installs a token of that generation and the next
// epoch, and what cfg.Migrations still have to do. From then on, no holder of
// a lower token can commit.
//
// Open first reads the log and runs the migrations beside the commits of the
// holder, for as long as that takes. Before the first claim of a catalog it checks
// that the store refuses, as [Prove] does. Then it tries to claim, again and again with
// jitter while the store fails in passing or others commit, until ctx ends or
// cfg.ClaimTimeout is over. If commits have changed what the migrations read,
// they run once more under the claim, within cfg.MigrationTimeout. Its errors:
//
//   - *fence.Error: a higher generation holds the token (ErrSuperseded), or
//     another process of this generation claimed meanwhile;
//   - ErrIncompatible: this build can't read the data, or another build has
//     this generation;
//   - ErrMigrationTimeout: the migrations took too long under the claim;
//   - ErrLossStands: the store was found to have lost acknowledged commits, and
//     nobody has dealt with that;
//   - ErrLostCommit, driver.ErrCorrupt: the store has lost or spoilt data;
//   - driver.ErrTwoWon: the store does not refuse writes whose condition does not
//     hold, and nothing was claimed;
//   - one that matches ErrUnknownOutcome and wraps the error of the last try: the
//     answer to a claim was lost, and it may still land;
//   - *driver.Error: the store's own, classified.
//
// An error that matches [ErrUnknownOutcome] says that the claim may have landed,
// or may land later; a *fence.Error can be such a one. Open ends soon after ctx, also where the store does not
// answer; only a migration's function is waited for.
//
// Each says its disposition to package exitcodes. Store stays the caller's to
// close, after the Catalog.
func Open(ctx context.Context, store driver.Store, cfg Config) (*Catalog, error) {
	if err := mayWrite(cfg); err != nil {
		return nil, err
	}
	f, err := Follow(ctx, store, cfg)
	if err != nil {
		return nil, err
	}
	return f.Open(ctx, ClaimOptions{})
}

// mayWrite checks what a writer needs besides what a follower does.
func mayWrite(cfg Config) error {
	if cfg.Generation == generation.None {
		return exitcodes.WithCode(fmt.Errorf("catalog: %w: a writer needs one", generation.ErrMissing), exitcodes.Config)
	}
	return nil
}

// open claims, and turns the replica into a holder. Read is when it was last
// compared with the store.
func (r *replica) open(ctx context.Context, opts ClaimOptions, read time.Time) (*Catalog, error) {
	c := claimer{replica: r, opts: opts, base: r.head.Claim, read: read, tried: make(map[driver.ID]*attempt)}
	settled, err := c.persist(ctx, c.try)
	if err != nil {
		return nil, c.outcome(c.store.reportLoss(ctx, c.cfg, err))
	}
	catalog := newCatalog(ctx, r)
	if settled {
		bounded, cancel := c.bounded()
		defer cancel()
		// The claim was found in the head after its answer was lost. Landed is
		// not durable: a further commit whose answer arrives is, with all that
		// lies beneath it.
		if err := errors.Join(catalog.settle(catalog.effortWithin(bounded)), catalog.Err()); err != nil {
			catalog.stop()
			return nil, c.outcome(err)
		}
	}
	c.keepProof()
	catalog.start()
	return catalog, nil
}

// claimer is one claim with all its tries.
type claimer struct {
	*replica
	opts  ClaimOptions
	base  driver.Claim           // the claim that this one is to follow
	read  time.Time              // when the replica was last compared with the store
	tried map[driver.ID]*attempt // all that were sent, whatever was answered

	proof *Proof // of this claim, if it may be the first; nil before

	caller context.Context // of Open or Raise
	pace   *pace           // of the tries; it ends with ClaimTimeout
}

// attempt is what a claim makes of the catalog if it lands.
type attempt struct {
	claim driver.Claim
	state *state
	size  int64 // of its payload

	heard hearsay
}

// claimEvery is the most that passes between two tries of a claim.
const claimEvery = 250 * time.Millisecond

// persist calls try until the claim has landed, and reports whether it was
// settled by reading the head rather than by an answer.
func (c *claimer) persist(ctx context.Context, try func(context.Context) (bool, error)) (settled bool, err error) {
	c.caller, c.pace = ctx, newPace(c.cfg.ClaimTimeout)
	c.pace.next.MaxInterval = claimEvery // nobody may lead meanwhile
	var before error                     // of the newest try that was not cut off
	for {
		bounded, cancel := c.bounded()
		settled, err = try(bounded)
		cutOff := bounded.Err() != nil
		cancel()
		if err == nil {
			return settled, nil
		}
		if errors.Is(err, errPreempted) {
			elapse(ctx, preemptEvery) // or this claim would be the first again
		}
		if !c.passes(err) || !c.pace.wait(ctx) {
			if c.landedAfterAll() {
				return true, nil
			}
			if cutOff && ctx.Err() == nil && before != nil { // which says more
				err = fmt.Errorf("%w; and the last try was cut off: %w", before, err)
			}
			return false, c.explain(ctx, err)
		}
		before = err
		if c.opts.Retrying != nil {
			c.opts.Retrying(err)
		}
		c.cfg.Logger.DebugContext(ctx, "claim is tried again", "store", c.store.String(), "err", err)
	}
}

// passes reports whether a claim that failed with err may succeed when it is
// tried again.
func (c *claimer) passes(err error) bool {
	if errors.Is(err, ErrMigrationTimeout) {
		return false
	}
	return errors.Is(err, driver.ErrConflict) || transient(err)
}

// bounded returns a context that ends with the caller's and when the time for
// the claim is over.
func (c *claimer) bounded() (context.Context, context.CancelFunc) {
	return context.WithDeadline(c.caller, c.pace.until)
}

// landedAfterAll looks whether a claim that was sent is the newest, whatever was
// answered.
func (c *claimer) landedAfterAll() bool {
	ctx, cancel := c.bounded()
	defer cancel()
	if len(c.tried) == 0 || ctx.Err() != nil {
		return false
	}
	head, err := c.readHead(ctx)
	if err != nil {
		return false
	}
	landed, ok := c.tried[head.Claim.ID]
	if ok {
		c.become(landed, head)
	} else {
		c.exclude(head, false)
	}
	return ok
}

// explain adds to an error of the last try that the time was over.
func (c *claimer) explain(ctx context.Context, err error) error {
	if ctx.Err() == nil && time.Now().Before(c.pace.until) {
		return err
	}
	return fmt.Errorf("catalog: no claim within %v: %w", c.cfg.ClaimTimeout, err)
}

// underWay is how many compactions can come in between while a claim reads: one
// that has begun and one that waits, and the reading after them.
const underWay = 3

// try reads the head and judges it without disturbing anyone, catches up, and
// only then begins a claim, under which it does both again.
func (c *claimer) try(ctx context.Context) (settled bool, err error) {
	head := c.head
	if time.Since(c.read) > c.cfg.PollInterval { // else the follower has just read it
		if head, err = c.readHead(ctx); err != nil {
			return false, err
		}
	}
	c.read = time.Time{}
	if done, err := c.admit(head, false); done || err != nil {
		return done, err
	}
	if head.IsZero() {
		if err := c.proveFirst(ctx); err != nil {
			return false, err
		}
	}
	// Where the log is compacted faster than it can be read, the rest is read
	// under the claim, which holds the commits up and with them compactions.
	if err := c.advance(ctx, c.store, head); err != nil && !errors.Is(err, driver.ErrCompacted) {
		return false, err
	}
	step.Reach(ctx, step.OpenHeadRead)

	claiming, err := c.beginClaim(ctx, preemption{Generation: c.cfg.Generation, By: c.cfg.Holder.String()}, head.Claim.Token)
	if err != nil {
		return false, err
	}
	defer claiming.Abandon()
	head = claiming.Head()
	if done, err := c.admit(head, true); done || err != nil {
		return done, err
	}
	if err := c.admitLosses(claiming); err != nil {
		return false, err
	}
	for range underWay {
		if err = c.advance(ctx, claiming, head); !errors.Is(err, driver.ErrCompacted) {
			break
		}
	}
	if err != nil {
		return false, err
	}
	return false, c.install(ctx, claiming, head)
}

// admit says whether this process may claim over head, which was read under a
// claim or not: first the fence, and only then what the build can read. Done means that an earlier try of this
// claim, whose answer was lost, is the head's.
func (c *claimer) admit(head driver.Head, claiming bool) (done bool, err error) {
	if landed, ok := c.tried[head.Claim.ID]; ok {
		c.become(landed, head)
		return true, nil
	}
	c.exclude(head, claiming)
	mine := fence.Token{Generation: c.cfg.Generation} // it holds none
	current := head.Claim
	if current.Token.Generation > c.cfg.Generation {
		return false, fence.Check(mine, current.Token, current.Holder)
	}
	if err := c.follows(current); err != nil {
		return false, err
	}
	if current.Token.Generation == c.cfg.Generation {
		if err := sameBuild(current, c.cfg); err != nil {
			return false, err
		}
	}
	return false, checkVersion(current, c.cfg.Migrations)
}

// exclude takes the tries out of doubt that head, which none of them made,
// excludes: those that can't land any more, because they were refused or because
// their condition will never hold again, and that have not landed beneath it. If
// head was read under a further claim none of them can land any more, since a
// store lets one claim through at a time.
func (c *claimer) exclude(head driver.Head, claiming bool) {
	for _, a := range c.tried {
		over := claiming || a.heard == conflicted || head.Commit != a.claim.PriorCommit
		if over && !mayLieBeneath(a.claim, head.Claim) {
			a.heard = refused
		}
	}
}

// mayLieBeneath reports whether a claim that was tried may have landed before
// newest, which is another one. It has not if newest is what it was to follow, or
// follows that in its place.
func mayLieBeneath(tried, newest driver.Claim) bool {
	return newest.ID != tried.PriorClaim && newest.PriorClaim != tried.PriorClaim
}

// mayHaveLanded reports whether a try may have landed, or may land later.
func (c *claimer) mayHaveLanded() bool {
	for _, a := range c.tried {
		if a.heard != refused {
			return true
		}
	}
	return false
}

// outcome says so where a claim that failed with err may have landed, or may
// land later.
func (c *claimer) outcome(err error) error {
	if c.mayHaveLanded() && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnknownOutcome) {
		return &outcomeError{err}
	}
	return err
}

// follows refuses a claim over another one than its options name, or over one
// that came since this one began, unless it is of a lower generation.
func (c *claimer) follows(current driver.Claim) error {
	switch want := c.opts.IfClaim; {
	case c.opts.IfNeverClaimed && !current.ID.IsZero():
		return c.overtaken(current, "nobody was to have claimed before")
	case c.opts.IfLower && current.Token.Generation == c.cfg.Generation:
		return c.overtaken(current, "the newest claim was to be of a lower generation")
	case !want.IsZero() && current.ID != want:
		return c.overtaken(current, fmt.Sprintf("the claim %v was to be the newest", want))
	}
	if current.ID == c.base.ID {
		return nil
	}
	if current.Token.Generation == c.cfg.Generation {
		return c.overtaken(current, fmt.Sprintf("the claim %v was the newest", c.base.ID))
	}
	c.base = current
	return nil
}

// overtaken returns a *fence.Error if current is of this process's generation,
// and else one that wraps ErrRefused.
func (c *claimer) overtaken(current driver.Claim, condition string) error {
	mine := fence.Token{Generation: c.cfg.Generation} // it holds none
	if err := fence.Check(mine, current.Token, current.Holder); err != nil {
		return err
	}
	return conditionFailed("%s, and it is %v, %v by %v: look again, and judge anew", condition, current.ID, current.Token, current.Holder)
}

// sameBuild refuses a second build under one generation.
func sameBuild(current driver.Claim, cfg Config) error {
	theirs, ours := current.Holder.Build, cfg.Holder.Build
	if theirs == ours || theirs == "" || ours == "" {
		return nil
	}
	return incompatible("generation %v belongs to build %q, and this is build %q: give each build a generation of its own, `fencepost generation next` hands one out",
		current.Token.Generation, theirs, ours)
}

// install computes the claim over head and writes it.
func (c *claimer) install(ctx context.Context, claiming driver.Claiming, head driver.Head) error {
	token, err := head.Claim.Token.Next(c.cfg.Generation)
	if err != nil {
		return exitcodes.With(err, exitcodes.Panic)
	}
	next, payload, err := c.migrated(ctx, claiming, head)
	if err != nil {
		return err
	}
	claim := claimOver(head, token, c.cfg.Holder, c.opts.Reason)
	claim.DataVersion, claim.ReadableBy = versionsAfter(head.Claim, c.cfg.Migrations)
	step.Reach(ctx, step.ClaimMigrated)
	if err := endLosses(claiming, LossAccepted, claim); err != nil {
		return err
	}
	return c.send(claiming, &attempt{claim: claim, state: next}, payload)
}

// claimOver is the claim that follows head and changes nothing but the token.
func claimOver(head driver.Head, token fence.Token, holder fence.Holder, reason string) driver.Claim {
	holder.Since = time.Now().UTC().Truncate(time.Microsecond)
	return driver.Claim{
		Token: token, ID: driver.NewID(), Revision: head.Revision + 1,
		DataVersion: head.Claim.DataVersion, ReadableBy: head.Claim.ReadableBy, Holder: holder,
		PriorClaim: head.Claim.ID, PriorCommit: head.Commit, Reason: reason,
	}
}

// send writes a claim, and keeps it in mind whatever is answered.
func (c *claimer) send(claiming driver.Claiming, this *attempt, payload []byte) error {
	ctx, cancel := c.bounded()
	defer cancel()
	claim := this.claim
	rec := driver.Record{Revision: claim.Revision, ID: claim.ID, Token: claim.Token, Payload: payload}
	this.size = int64(len(rec.Payload))
	c.tried[claim.ID] = this
	_, err := callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, claiming.Install(ctx, claim, rec, c.opts.IfNotes...)
	})
	switch {
	case err == nil:
		c.become(this, claim.Head())
	case errors.Is(err, driver.ErrConflict):
		this.heard = conflicted
		return c.whichCondition(ctx, this, err)
	case driver.OutcomeOf(err) == driver.Unknown:
		this.heard = unsure
	}
	return err
}

// whichCondition says which condition of a claim did not hold: that of a note,
// or, by conflict, the head, which the next try judges. It may be the head that
// this very try has made.
func (c *claimer) whichCondition(ctx context.Context, this *attempt, conflict error) error {
	if len(c.opts.IfNotes) == 0 {
		return conflict
	}
	head, err := c.readHead(ctx)
	if err != nil {
		return err
	}
	if head.Commit != this.claim.PriorCommit {
		return conflict
	}
	this.heard = refused
	for _, want := range c.opts.IfNotes {
		notes, err := callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) ([]driver.Note, error) {
			return c.store.Notes(ctx, want.Key)
		})
		if err != nil {
			return err
		}
		var have int64
		for _, n := range notes {
			if n.Key == want.Key {
				have = n.Version
			}
		}
		if have != want.Version {
			return conditionFailed("the note %q was to be at version %d, and is at %d: read it again, and judge anew", want.Key, want.Version, have)
		}
	}
	return conflict
}

// become makes this process the holder, as of head.
func (c *claimer) become(a *attempt, head driver.Head) {
	c.claim = a.claim
	c.acked, c.head, c.state = head, head, a.state
	c.logSize += recordOverhead + a.size
}
