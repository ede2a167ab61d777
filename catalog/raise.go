package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// MaxReason is the length of the longest reason that [Raise] takes, in bytes.
const MaxReason = 500

// RaiseOptions say why a token is raised on purpose, and above what.
type RaiseOptions struct {
	// Reason is kept in the history, for people: 1 to [MaxReason] bytes of
	// UTF-8. There is no default.
	Reason string

	// Above is the highest token that was ever issued, if the catalog came
	// back from a backup: the head's is lower, and the new one is above both.
	// If the head's is not lower, the raise is refused. So is one above a token
	// that leaves no room for later claims and releases: see
	// [fence.Token.CheckRoom]. Zero: the new token is above the head's alone.
	Above fence.Token
}

func (o RaiseOptions) validate() error {
	var errs []error
	if len(o.Reason) == 0 || len(o.Reason) > MaxReason || !utf8.ValidString(o.Reason) {
		errs = append(errs, fmt.Errorf("a reason of %d bytes, want 1 to %d of UTF-8: say why, for whoever reads the history", len(o.Reason), MaxReason))
	}
	if _, err := o.Above.Next(o.Above.Generation); err != nil {
		errs = append(errs, fmt.Errorf("no token is above %v: %w", o.Above, err))
	} else if err := o.Above.CheckRoom(); err != nil {
		errs = append(errs, fmt.Errorf("above %v: %w", o.Above, err))
	}
	if err := errors.Join(errs...); err != nil {
		return exitcodes.WithCode(fmt.Errorf("catalog: raise: %w", err), exitcodes.Config)
	}
	return nil
}

// Raise claims the catalog on purpose, for a tool and not for a holder: it
// installs a token above the head's and lets go of it. The holder is fenced and
// nothing else changes: no entry, no migration, no version. The generation stays
// the head's, so that the holder hears fenced by epoch, and restarts; a process
// of it claims over the new token as over any other.
//
// With opts.Above the token is above that one too: its generation and epoch are
// those of the higher one, and the epoch one more. So every process of before a
// restore is fenced or finds that its commits were lost, whatever token it had.
// If the head bears opts.Above or a higher token, nothing was lost, or what was
// lost came back: files of the lost catalog were left where the backup was put.
// So that is refused. A catalog that was moved whole to another system is the
// exception: there the head bears the highest token, and may do so.
// Only so does a store take over a token that was installed elsewhere: see
// [driver.Adopting].
//
// With opts.Above, the raise also ends every loss that is recorded, in its own
// commit; then the head may bear opts.Above, or there may be none: a catalog that
// was emptied begins anew above that token. Without it, a loss that stands forbids
// the raise: [ErrLossStands].
//
// Of cfg, Raise uses Holder, the time-outs and Logger. The build in the claim
// stays the head's as long as the generation does, because it is the
// generation's and not the tool's.
//
// Raise notes on the board that nobody holds its claim, so that a standby claims at
// once and not after a lease of silence: see [HasNoHolder].
//
// Raise reads no log. It tries again within cfg.ClaimTimeout. A lost answer is
// settled, and the token is raised once. Its errors: [ErrNeverClaimed];
// [ErrNotBelow];
// [ErrRefused], where somebody else claimed meanwhile and opts.Above is zero,
// since the holder that was to be fenced is fenced already; an error that
// matches [ErrUnknownOutcome]; *driver.Error; one that wraps
// epoch.ErrOverflow.
func Raise(ctx context.Context, store driver.Store, cfg Config, opts RaiseOptions) (driver.Claim, error) {
	cfg = cfg.withDefaults()
	if err := errors.Join(cfg.validate(), opts.validate()); err != nil {
		return driver.Claim{}, err
	}
	plain := ctx
	if !opts.Above.IsZero() {
		ctx = driver.Adopting(ctx)
	}
	r := raiser{claimer: claimer{replica: newReplica(witnessed(store), cfg), tried: make(map[driver.ID]*attempt)}, opts: opts}
	r.moved = func() bool { return refusesOthers(plain, store, cfg.StoreTimeout) }
	settled, err := r.persist(ctx, r.try)
	if err == nil && settled {
		holder := newCatalog(ctx, r.replica)
		defer holder.stop()
		bounded, cancel := r.bounded()
		defer cancel()
		err = holder.settle(holder.effortWithin(bounded))
	}
	if err != nil {
		return driver.Claim{}, r.outcome(err)
	}
	r.announceLate(ctx)
	return r.claim, nil
}

// movedPatience is for how long a store that was moved is asked again, since a
// failure in passing looks the same.
const movedPatience = time.Second

// refusesOthers reports whether the store answers a caller that adopts what it
// finds, and no other.
func refusesOthers(plain context.Context, store driver.Store, timeout time.Duration) bool {
	for pace := newPace(movedPatience); ; {
		_, err := callStore(plain, timeout, store.Head)
		if err == nil || plain.Err() != nil {
			return false
		}
		if !transient(err) {
			return true
		}
		if !pace.wait(plain) {
			break
		}
	}
	_, err := callStore(driver.Adopting(plain), timeout, store.Head)
	return err == nil
}

// raiser is a claimer that wants no data and belongs to no generation.
type raiser struct {
	claimer
	opts  RaiseOptions
	begun bool // base is set

	id        driver.ID // of the claim of the next try
	announced bool      // the board says that nobody will hold it

	moved func() bool // nobody but the raiser may go on from this head, since it came from another system; a failure in passing is no such word
}

// try raises the token once, as [claimer.try] claims it.
func (r *raiser) try(ctx context.Context) (settled bool, err error) {
	head, err := r.readHead(ctx)
	if err != nil {
		return false, err
	}
	if done, err := r.admit(ctx, head, false); done || err != nil {
		return done, err
	}
	r.announce(ctx)
	claiming, err := r.beginClaim(ctx, preemption{Operator: true, Generation: head.Claim.Token.Generation, By: r.cfg.Holder.String()}, head.Claim.Token)
	if err != nil {
		return false, err
	}
	defer claiming.Abandon()
	head = claiming.Head()
	if done, err := r.admit(ctx, head, true); done || err != nil {
		return done, err
	}
	if r.opts.Above.IsZero() {
		if err := r.admitLosses(claiming); err != nil {
			return false, err
		}
	}
	claim, err := r.over(head)
	if err == nil && !r.opts.Above.IsZero() {
		err = endLosses(claiming, LossRestored, claim)
	}
	if err != nil {
		return false, err
	}
	return false, r.send(claiming, &attempt{claim: claim, state: newState()}, newPayload())
}

// admit says whether the token may be raised over head, which was read under a
// claim or not. Done means that it was raised by an earlier try, whose answer was
// lost.
func (r *raiser) admit(ctx context.Context, head driver.Head, claiming bool) (done bool, err error) {
	if head.IsZero() {
		if err := r.checkEmptied(ctx); err != nil {
			return false, err
		}
	}
	if !r.begun {
		r.begun, r.base = true, head.Claim
	}
	if head.Claim.ID != r.base.ID {
		if done, err = r.landed(ctx); done || err != nil {
			return done, err
		}
	}
	r.exclude(head, claiming) // a claim that landed before another one is found by then
	if head.Claim.ID == r.base.ID {
		return false, r.checkBelow(ctx, head.Claim)
	}
	if r.opts.Above.IsZero() {
		return false, conditionFailed("%v by %v has claimed over %v meanwhile, whose holder is so fenced already: look at the status, and ask again if need be",
			head.Claim.Token, head.Claim.Holder, r.base.Token)
	}
	return false, r.checkBelow(ctx, head.Claim)
}

// checkEmptied refuses a catalog without a claim, unless a loss says that it had
// some.
func (r *raiser) checkEmptied(ctx context.Context) error {
	never := fmt.Errorf("%w: there is no token in %s, and nobody to fence", ErrNeverClaimed, r.store)
	if r.opts.Above.IsZero() {
		return never
	}
	record, err := callStore(ctx, r.cfg.StoreTimeout, r.store.Losses)
	if err != nil {
		return err
	}
	led, err := readLedger(record)
	if err == nil && !led.open() {
		err = never
	}
	return err
}

// checkBelow refuses a head that is not older than the highest token ever issued,
// as that of a backup is. A store that was found to have lost commits may bear it:
// then it is known that the catalog is not whole.
func (r *raiser) checkBelow(ctx context.Context, head driver.Claim) error {
	named := r.opts.Above
	order := head.Token.Compare(named)
	if named.IsZero() || order < 0 {
		return nil
	}
	record, err := callStore(ctx, r.cfg.StoreTimeout, r.store.Losses)
	if err != nil && transient(err) {
		return err
	}
	if led, lerr := readLedger(record); err == nil && lerr == nil && led.open() || order == 0 && r.moved() {
		return nil
	}
	err = fmt.Errorf("%w: %v is in %s, claimed by %v (%q), and %v was named: if that claim is this very raise, asked for before, all is done; "+
		"else stop every process, remove what the lost catalog has left beside the backup (of a SQLite file the -wal and -shm), and restore again; "+
		"if the catalog is as it should be, name a token above %v",
		ErrNotBelow, head.Token, r.store, head.Holder, head.Reason, named, head.Token)
	return exitcodes.WithCode(err, exitcodes.Config)
}

// landed looks for a claim of an earlier try among those since the first look:
// another one may have followed it already.
func (r *raiser) landed(ctx context.Context) (found bool, err error) {
	if len(r.tried) == 0 {
		return false, nil
	}
	reading, alive, stop := whileItMoves(ctx, r.cfg.StoreTimeout)
	defer stop()
	err = r.store.Claims(reading, r.base.Revision, func(c driver.Claim) error {
		alive()
		if this, ok := r.tried[c.ID]; ok {
			r.become(this, c.Head())
			found = true
			return errEnough
		}
		return nil
	})
	if found {
		return true, nil
	}
	return false, r.stalled(reading, err)
}

// over returns the claim that raises the token of head.
func (r *raiser) over(head driver.Head) (driver.Claim, error) {
	current, floor := head.Claim.Token, r.opts.Above
	highest := fence.Token{Generation: max(current.Generation, floor.Generation), Epoch: max(current.Epoch, floor.Epoch)}
	token, err := highest.Next(highest.Generation)
	if err != nil {
		return driver.Claim{}, exitcodes.With(fmt.Errorf("catalog: no token is above %v and %v: %w", current, floor, err), exitcodes.Panic)
	}
	holder := r.cfg.Holder
	if holder.Build = ""; token.Generation == current.Generation {
		holder.Build = head.Claim.Holder.Build
	}
	claim := claimOver(head, token, holder, r.opts.Reason)
	claim.ID = r.id
	return claim, nil
}
