package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
)

// ErrUncheckable means that a store can't be checked, because its driver opens
// no scratch place. See [driver.Scratcher].
var ErrUncheckable = errors.New("catalog: this store's driver opens no scratch place, so that the store can't be checked")

// A Proof is what [Prove], or the first claim of a catalog, tried and
// found.
type Proof struct {
	At      time.Time     `json:"at"`      // when it ended, by the clock of its process
	By      string        `json:"by"`      // the process that made it
	Build   string        `json:"build"`   // of that process
	Took    time.Duration `json:"took_ns"` // without the wait for a store that was away
	Ways    []string      `json:"ways"`    // the stores that raced; each way to a cluster is one
	Tried   []string      `json:"tried"`   // what was raced, in order
	Passed  bool          `json:"passed"`  // every loser was refused
	Failure string        `json:"failure"` // what let two win; empty if Passed
}

// String says in one line what was tried and what came of it.
func (f Proof) String() string {
	outcome := "passed"
	if !f.Passed {
		outcome = "failed"
	}
	return fmt.Sprintf("%s at %s in %v, made by %s: %s", outcome, f.At.UTC().Format(time.RFC3339), f.Took.Round(time.Millisecond),
		f.By, strings.Join(f.Tried, "; "))
}

// Prove checks that a store refuses: it races commits, claims and notes of
// its own in a scratch place beside the catalog, over all ways to the store at
// once, and requires that one of each race wins, that the others are refused,
// and that everybody reads the winner. It touches no entry, commit or claim of
// the catalog. It leaves one note on the board with what it found, and nothing
// else.
//
// The first claim of a catalog makes the same check by itself, before it claims.
//
// If the store lets two writers win, the error wraps [driver.ErrTwoWon]; its exit
// code is 78. A failure in passing never counts as that: the check begins again,
// in another scratch place, within cfg.RetryBudget. The other errors are
// [ErrUncheckable] and the store's own. Of cfg, Prove uses Holder,
// StoreTimeout, RetryBudget and Logger.
func Prove(ctx context.Context, store driver.Store, cfg Config) (Proof, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Proof{}, err
	}
	w := witnessed(store)
	scratcher, ok := driver.As[driver.Scratcher](w)
	if !ok {
		return Proof{}, exitcodes.WithCode(fmt.Errorf("%s: %w", w, ErrUncheckable), exitcodes.Config)
	}
	for pace := newPace(cfg.RetryBudget); ; {
		found, err := proveOnce(ctx, scratcher, cfg)
		switch {
		case err == nil:
			return found, found.keep(ctx, w, cfg)
		case errors.Is(err, driver.ErrTwoWon):
			found.keepIfPossible(ctx, w, cfg)
			return found, err
		case !transient(err) || !pace.wait(ctx):
			return Proof{}, err
		}
	}
}

// proveOnce makes the check once. Its error wraps driver.ErrTwoWon only if a
// store was seen to let two win; any other says that the check was not finished.
func proveOnce(ctx context.Context, scratcher driver.Scratcher, cfg Config) (Proof, error) {
	begun := time.Now()
	found := Proof{By: cfg.Holder.String(), Build: cfg.Holder.Build}
	quiet := step.With(ctx, func(step.Point) {}) // the steps are those of the catalog's own claim
	scratch, err := callStore(quiet, cfg.StoreTimeout, scratcher.Scratch)
	if err == nil {
		c := prover{stores: scratch.Stores, cfg: cfg}
		err = c.run(quiet)
		found.Ways, found.Tried = c.ways(), c.tried
		step.Reach(ctx, step.StoreRaced)
		discard(quiet, scratch, cfg)
	}
	found.At, found.Took, found.Passed = time.Now().UTC(), time.Since(begun), err == nil
	if errors.Is(err, driver.ErrTwoWon) {
		err = exitcodes.WithCode(fmt.Errorf("catalog: the store's check: %w", err), exitcodes.Config)
		found.Failure = err.Error()
	} else if err != nil {
		err = fmt.Errorf("catalog: the store's check was not finished: %w", err)
	}
	return found, err
}

// discardPatience bounds the removal of a scratch place: nobody waits long for
// that, and Open ends soon after its context.
const discardPatience = time.Second

// discard removes a scratch place, also if ctx has ended. What is left is no
// error of the check: the next one removes it.
func discard(ctx context.Context, scratch driver.Scratch, cfg Config) {
	if err := writeStore(ctx, min(cfg.StoreTimeout, discardPatience), scratch.Discard); err != nil {
		cfg.Logger.InfoContext(ctx, "a scratch place was not removed; a later check removes it", "err", err)
	}
}

// proofKey is the note with the newest check.
const proofKey = "store check"

// keep writes f on the board.
func (f Proof) keep(ctx context.Context, store *witness, cfg Config) error {
	_, err := UpdateNote(ctx, NewBoard(store, cfg), proofKey, func(n *Proof) error {
		*n = f
		return nil
	})
	if err != nil {
		return fmt.Errorf("catalog: the store's check has passed, and its result could not be kept: %w", err)
	}
	return nil
}

// keepPatience bounds the keeping of a result by somebody who has more to do.
const keepPatience = time.Second

// keepIfPossible does the same, not for long, and fails nobody: nothing rests on
// the note.
func (f Proof) keepIfPossible(ctx context.Context, store *witness, cfg Config) {
	ctx, cancel := context.WithTimeout(ctx, keepPatience)
	defer cancel()
	if err := f.keep(ctx, store, cfg); err != nil {
		cfg.Logger.WarnContext(ctx, "the result of the store's check was not kept for the preflight", "store", store.String(), "err", err)
	}
}

// proveFirst checks the store before the first claim of a catalog. A driver that
// opens no scratch place is believed.
func (c *claimer) proveFirst(ctx context.Context) error {
	scratcher, ok := driver.As[driver.Scratcher](c.store)
	if !ok || c.proof != nil {
		return nil
	}
	found, err := proveOnce(ctx, scratcher, c.cfg)
	if errors.Is(err, driver.ErrTwoWon) {
		found.keepIfPossible(ctx, c.store, c.cfg)
	}
	if err != nil {
		return err
	}
	c.proof = &found
	return nil
}

// keepProof writes the result of proveFirst on the board, behind the claim.
func (c *claimer) keepProof() {
	if c.proof == nil {
		return
	}
	ctx, cancel := c.bounded()
	defer cancel()
	c.proof.keepIfPossible(ctx, c.store, c.cfg)
}

// LastProof returns the newest check of the catalog's store, and whether
// there is one. A failure in passing is tried again within cfg.RetryBudget.
func LastProof(ctx context.Context, store driver.Store, cfg Config) (last Proof, made bool, err error) {
	posted, err := ReadNote[Proof](ctx, NewBoard(store, cfg), proofKey)
	return posted.Value, posted.Version != 0, err
}
