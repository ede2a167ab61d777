package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

var rows = catalog.JSON[int]("rows")

// copying is a configuration of generation g with one migration, which copies
// "in" to "out" and calls during, with the number of the run, in between.
func copying(during func(run int64)) catalog.Config {
	var runs atomic.Int64
	return catalog.Config{Generation: 2, Migrations: []catalog.Migration{{Version: 1, Name: "copy", Up: func(tx *catalog.Tx) error {
		n, _, err := rows.Get(tx, "in")
		during(runs.Add(1))
		return errors.Join(err, rows.Set(tx, "out", n))
	}}}}
}

func setRow(t *testing.T, c *catalog.Catalog, key string, n int) {
	t.Helper()
	require.NoError(t, c.Update(context.Background(), func(tx *catalog.Tx) error { return rows.Set(tx, key, n) }))
}

func out(t *testing.T, c *catalog.Catalog) (n int) {
	t.Helper()
	require.NoError(t, c.View(func(r *catalog.Reader) (err error) { n, _, err = rows.Get(r, "out"); return err }))
	return n
}

func TestAMigrationTakesAsLongAsItTakesBesideTheHolderAndUnderTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewWith(memory.Config{ClaimBound: 5 * time.Second})
		one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1, RetryBudget: time.Hour})
		require.NoError(t, err)
		cfg := copying(func(run int64) {
			if run == 1 { // nobody waits for it
				setRow(t, one, "in", 7)
				<-time.After(50 * time.Second)
				return
			}
			<-time.After(50 * time.Second) // ten times what a silent claimer has
		})
		cfg.ClaimTimeout = time.Second
		unlucky := store.Open()
		lost := false // the first request, so that the claim has to be tried again
		unlucky.Inject(func(c memory.Call) memory.Fault {
			if c.Method != "Install" || lost {
				return memory.Pass
			}
			lost = true
			return memory.LoseRequest
		})
		begun := time.Now()
		two, err := catalog.Open(t.Context(), unlucky, cfg)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(begun), 100*time.Second)
		require.Less(t, time.Since(begun), 120*time.Second, "they ran a third time")
		require.Equal(t, 7, out(t, two))
		<-one.Done()
		require.NoError(t, two.Close())
		require.ErrorIs(t, one.Close(), fence.ErrSuperseded)
	})
}

func TestAClaimThatIsLostUnderItsMigrationsEndsThemAtOnce(t *testing.T) {
	store := memory.New()
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	two := store.Open()
	lost := make(chan struct{})
	cfg := copying(func(int64) {})
	up := cfg.Migrations[0].Up
	runs := 0
	cfg.Migrations[0].Up = func(tx *catalog.Tx) error {
		switch runs++; runs {
		case 1:
			setRow(t, one, "in", 7)
		case 2:
			go func() { _ = two.Close() }() // as a session does that was terminated
			<-tx.Context().Done()
			close(lost)
		}
		return up(tx)
	}
	cfg.ClaimTimeout = 200 * time.Millisecond
	_, err = catalog.Open(t.Context(), two, cfg)
	require.Error(t, err)
	<-lost
	require.NotErrorIs(t, err, catalog.ErrMigrationTimeout)
	setRow(t, one, "in", 8)
	require.NoError(t, one.Close())
}

// hasty is a store whose sign of life ends a moment before the deadline that it
// was given, as a request to a server does that knows that deadline.
type hasty struct{ driver.Store }

type hastyClaiming struct{ driver.Claiming }

func (s hasty) Claim(ctx context.Context) (driver.Claiming, error) {
	c, err := s.Store.Claim(ctx)
	return hastyClaiming{c}, err
}

func (c hastyClaiming) Renew(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(deadline) - time.Millisecond):
	}
	return &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Err: context.DeadlineExceeded}
}

func TestAMigrationThatOutlivesItsTimeIsNotTriedAgainThoughTheStoreEndedAMomentBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		cfg := copying(func(int64) {})
		runs := 0
		cfg.Migrations[0].Up = func(tx *catalog.Tx) error {
			n, _, err := rows.Get(tx, "in")
			if runs++; runs == 1 {
				setRow(t, one, "in", n+1)
				return err
			}
			<-tx.Context().Done()
			return tx.Context().Err()
		}
		cfg.MigrationTimeout = 200 * time.Millisecond
		_, err = catalog.Open(t.Context(), hasty{store.Open()}, cfg)
		require.ErrorIs(t, err, catalog.ErrMigrationTimeout)
		require.Equal(t, 2, runs)
		require.NoError(t, one.Close())
	})
}

func TestMigrationsRunAgainBehindCommitsThatASnapshotStandsFor(t *testing.T) {
	store := memory.New()
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1, CompactAfter: 1})
	require.NoError(t, err)
	setRow(t, one, "in", 1)
	handle := store.Open()
	var behind atomic.Bool
	handle.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Head" && behind.Load() {
			return memory.Refuse
		}
		return memory.Pass
	})
	var ran int64
	cfg := copying(func(run int64) { ran = run })
	f, err := catalog.Follow(t.Context(), handle, cfg)
	require.NoError(t, err)
	_, err = f.Rehearse(t.Context())
	require.NoError(t, err)
	behind.Store(true)
	setRow(t, one, "in", 2)
	for n := 0; !errors.Is(err, driver.ErrCompacted); n++ { // until the commit above is in a snapshot alone
		setRow(t, one, fmt.Sprint("filler", n), n)
		err = store.Log(t.Context(), one.Claim().Revision, func(driver.Record) error { return nil })
	}
	behind.Store(false)
	two, err := f.Open(t.Context(), catalog.ClaimOptions{})
	require.NoError(t, err)
	require.Equal(t, 2, out(t, two))
	require.EqualValues(t, 2, ran)
	require.NoError(t, two.Close())
	_ = one.Close() // fenced
}

func TestWhatWasRehearsedCanBeAskedForWhileTheFollowerClaims(t *testing.T) {
	store := memory.New()
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	inRun, asked := make(chan struct{}), make(chan struct{})
	cfg := copying(func(run int64) {
		if run == 1 {
			setRow(t, one, "in", 2)
			return
		}
		close(inRun)
		<-asked
	})
	f, err := catalog.Follow(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	last, err := f.Rehearse(t.Context())
	require.NoError(t, err)
	require.Len(t, last.Migrations, 1)
	go func() {
		defer close(asked)
		<-inRun
		again, current := f.Rehearsed()
		require.False(t, current)
		require.Empty(t, again.Migrations, "it is the claim's by now, which replaces it")
	}()
	two, err := f.Open(t.Context(), catalog.ClaimOptions{})
	require.NoError(t, err)
	last, current := f.Rehearsed()
	require.False(t, current)
	require.Empty(t, last.Migrations)
	require.NoError(t, two.Close())
	_ = one.Close() // fenced
}

func TestAPanicOfAMigrationIsItsCallersAndReleasesTheClaim(t *testing.T) {
	store := memory.New()
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	for last := range int64(2) {
		cfg := copying(func(run int64) {
			if run > last {
				panic("a bug")
			}
			setRow(t, one, "in", int(run))
		})
		require.PanicsWithValue(t, "a bug", func() {
			defer func() {
				v := recover()
				require.Contains(t, v, "a bug")
				require.Contains(t, v, `in migration 1 ("copy")`)
				panic("a bug")
			}()
			_, _ = catalog.Open(t.Context(), store.Open(), cfg)
		})
		setRow(t, one, "other", 1)
	}
	cfg := copying(func(int64) { runtime.Goexit() })
	_, err = catalog.Open(t.Context(), store.Open(), cfg)
	require.ErrorContains(t, err, "Goexit")
	require.NoError(t, one.Close())
}

func TestAMigrationEndsWithTheFollowerThatRunsIt(t *testing.T) {
	store := memory.New()
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	begun := make(chan struct{})
	cfg := copying(func(int64) { close(begun) })
	up := cfg.Migrations[0].Up
	cfg.Migrations[0].Up = func(tx *catalog.Tx) error {
		err := up(tx)
		<-tx.Context().Done()
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := catalog.Open(t.Context(), store.Open(), cfg)
		ended <- err
	}()
	<-begun
	three, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 3})
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, fence.ErrSuperseded)
	require.NoError(t, three.Close())
	_ = one.Close() // fenced
}

// Blind migrations read nothing that a commit could have touched: the version of
// the data alone says that they were done meanwhile.
func TestAMigrationThatAnotherGenerationHasMadeSinceItWasRehearsedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	store := memory.New()
	sets := func(version uint64, key string) catalog.Migration {
		return catalog.Migration{Version: version, ReadableBy: 1, Name: key, Up: func(tx *catalog.Tx) error { return rows.Set(tx, key, 1) }}
	}
	all := []catalog.Migration{sets(1, "old"), sets(2, "out"), sets(3, "new")}
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1, Migrations: all[:1]})
	require.NoError(t, err)
	f, err := catalog.Follow(t.Context(), store.Open(), catalog.Config{Generation: 3, Migrations: all})
	require.NoError(t, err)
	_, err = f.Rehearse(t.Context())
	require.NoError(t, err)
	two, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2, Migrations: all[:2]})
	require.NoError(t, err)
	setRow(t, two, "out", 7)
	three, err := f.Open(t.Context(), catalog.ClaimOptions{})
	require.NoError(t, err)
	require.Equal(t, 7, out(t, three), "a commit was undone")
	require.NoError(t, three.Close())
	_, _ = one.Close(), two.Close() // fenced
}

func TestAFollowerEndsOnceItsBuildCanNoLongerReadTheData(t *testing.T) {
	t.Parallel()
	store := memory.New()
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	f, err := catalog.Follow(t.Context(), store.Open(), catalog.Config{Generation: 2})
	require.NoError(t, err)
	two, err := catalog.Open(t.Context(), store.Open(), copyingOnce(2))
	require.NoError(t, err)
	awaitEnd(t, f.Done())
	require.ErrorIs(t, f.Err(), catalog.ErrIncompatible)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(f.Err()))
	require.NoError(t, two.Close())
	_, _ = one.Close(), f.Close() // fenced, and incompatible
}

func copyingOnce(g generation.Generation) catalog.Config {
	cfg := copying(func(int64) {})
	cfg.Generation = g
	return cfg
}

func TestABoardThatCantBeReadEndsNoMigrationUnderTheClaim(t *testing.T) {
	t.Parallel()
	store := memory.New()
	one, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	var refusing atomic.Bool
	refused := make(chan struct{}, 1)
	handle := store.Open()
	handle.Inject(func(c memory.Call) memory.Fault {
		if c.Method != "Notes" || !refusing.Load() {
			return memory.Pass
		}
		select {
		case refused <- struct{}{}:
		default:
		}
		return memory.Refuse
	})
	var ran int64
	two, err := catalog.Open(t.Context(), handle, copying(func(run int64) {
		if ran = run; run == 1 {
			setRow(t, one, "in", 7)
			return
		}
		refusing.Store(true)
		<-refused
		<-refused // the answer to the first one did not end it
		refusing.Store(false)
	}))
	require.NoError(t, err)
	require.EqualValues(t, 2, ran)
	require.Equal(t, 7, out(t, two))
	require.NoError(t, two.Close())
	_ = one.Close() // fenced
}
