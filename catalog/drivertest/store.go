package drivertest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

// RunStore checks every rule of the contract, each on a catalog of its own.
// newCatalog makes a catalog that is empty and returns a function that opens
// an independent Store on it, as another process would; the suite closes each.
func RunStore(t *testing.T, newCatalog func(t *testing.T) (open func(t *testing.T) driver.Store), options ...Option) {
	for _, r := range chosen(t, storeRules(), func(r rule) string { return r.name }, options) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			open := newCatalog(t)
			r.check(t, Patience, func() driver.Store { return open(t) })
		})
	}
}

// A rule is one clause of the contract.
type rule struct {
	name string
	rule string // is printed when the rule is broken
	test func(b *bench)
}

func storeRules() []rule {
	return slices.Concat(headRules(), appendRules(), claimRules(), blockRules(), logRules(), snapshotRules(),
		noteRules(), boardRules(), batchRules(), lossRules(), errorRules(), concurrencyRules(), watchRules(), warmRules(), scratchRules(), closeRules())
}

// check checks r on the catalog that open opens, and waits for patience at most
// for what must happen.
func (r rule) check(t testing.TB, patience time.Duration, open func() driver.Store) {
	b := &bench{TB: t, open: open, patience: patience}
	defer func() {
		if t.Failed() {
			t.Logf("the rule: %s", r.rule)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	b.ctx = ctx
	b.s = b.another()
	r.test(b)
}

// A bench is what one rule works with: a catalog that was empty, and a store
// on it.
type bench struct {
	testing.TB
	open     func() driver.Store
	patience time.Duration
	ctx      context.Context
	s        driver.Store
}

// another opens one more store on the catalog.
func (b *bench) another() driver.Store {
	b.Helper()
	s := b.open()
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// claim begins a claim on s, which is abandoned at the end of the rule.
func (b *bench) claim(s driver.Store) driver.Claiming {
	b.Helper()
	c, err := s.Claim(b.ctx)
	require.NoError(b, err)
	b.Cleanup(c.Abandon)
	return c
}

// short returns a context that ends soon, for calls that must wait longer. It
// leaves a busy machine the time to come to the point where they wait.
func (b *bench) short() context.Context {
	ctx, cancel := context.WithTimeout(b.ctx, 5*quiet)
	b.Cleanup(cancel)
	return ctx
}

// quiet is how long the suite watches that something does not happen.
const quiet = 200 * time.Millisecond

// async starts call and returns a channel that gets its error.
func async(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

// await returns what done gets, and fails where that takes too long.
func (b *bench) await(done <-chan error, what string) error {
	b.Helper()
	timeout, cancel := context.WithTimeout(b.ctx, b.patience)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-timeout.Done():
		require.FailNow(b, what+" did not end", "within %v", b.patience)
		return nil
	}
}

// waits fails where done gets anything soon.
func (b *bench) waits(done <-chan error, what string) {
	b.Helper()
	timeout, cancel := context.WithTimeout(b.ctx, quiet)
	defer cancel()
	select {
	case err := <-done:
		require.FailNow(b, what+" did not wait", "it returned %v", err)
	case <-timeout.Done():
	}
}

// conflict fails where err does not say that nothing was written.
func (b *bench) conflict(err error, what string) {
	b.Helper()
	b.refused(err, driver.ErrConflict, what)
}

// refused fails where err does not wrap target or leaves the outcome open.
func (b *bench) refused(err, target error, what string) {
	b.Helper()
	require.ErrorIs(b, err, target, what)
	b.classified(err, what)
	require.Equal(b, driver.NotApplied, driver.OutcomeOf(err), "outcome of "+what)
}

// classified fails where err is not the error of a driver.
func (b *bench) classified(err error, what string) {
	b.Helper()
	var e *driver.Error
	require.ErrorAs(b, err, &e, what)
}

// A picture is all that a reader of a catalog can see.
type picture struct {
	Head   string
	Log    []driver.Record
	Claims []string
	Notes  []driver.Note
	Losses driver.Losses
}

// picture reads all of the catalog, through a store of its own.
func (b *bench) picture() picture {
	b.Helper()
	s := b.another()
	p := picture{
		Head:   headText(b, ReadHead(b, s)),
		Log:    ReadLog(b, s, 0),
		Claims: claimTexts(b, ReadClaims(b, s, 0)),
		Notes:  append([]driver.Note(nil), ReadNotes(b, s, "")...), // none is nil
		Losses: b.losses(s),
	}
	p.Losses.Place = "" // it is not stored
	require.NoError(b, s.Close())
	return p
}

// unchanged fails where the catalog is not as it was in p.
func (b *bench) unchanged(p picture, after string) {
	b.Helper()
	now := b.picture()
	require.Equal(b, p.Head, now.Head, "the head after "+after)
	SameLog(b, p.Log, now.Log)
	require.Equal(b, p.Claims, now.Claims, "the claims after "+after)
	require.Equal(b, p.Notes, now.Notes, "the board after "+after)
	require.Equal(b, p.Losses, now.Losses, "the losses after "+after)
}
