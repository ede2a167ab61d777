package catalog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func ready(g generation.Generation, build string, ms ...catalog.Migration) catalog.Config {
	return catalog.Config{Generation: g, Holder: fence.Holder{Name: "n", Build: build}, Migrations: ms}
}

// upTo are migrations 1 to n, the last of which leaves the data readable by
// builds that know readableBy.
func upTo(n, readableBy uint64) []catalog.Migration {
	var ms []catalog.Migration
	for v := uint64(1); v <= n; v++ {
		ms = append(ms, catalog.Migration{Version: v, Name: "m", ReadableBy: min(v, readableBy), Up: func(*catalog.Tx) error { return nil }})
	}
	return ms
}

// led returns a store whose catalog the configurations have claimed, one after
// the other.
func led(t *testing.T, cfgs ...catalog.Config) *memory.Store {
	t.Helper()
	store := memory.New()
	for _, cfg := range cfgs {
		c, err := catalog.Open(t.Context(), store, cfg)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	return store
}

func found(t *testing.T, r catalog.Report, name string) driver.Finding {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	require.FailNow(t, "no check "+name, "%v", r.Checks)
	return driver.Finding{}
}

func TestPreflightSaysWhetherTheGenerationIsGivenFreeAndHigher(t *testing.T) {
	for _, row := range []struct {
		cfg    catalog.Config
		grade  driver.Grade
		detail string
	}{
		{ready(generation.None, ""), driver.Failure, "none is given"},
		{ready(6, "b6"), driver.Failure, "generation 6 would be superseded: g7.e1 is the newest token"},
		{ready(7, "other"), driver.Failure, `generation 7 belongs to build "b7", and this is build "other"`},
		{ready(7, "b7"), driver.Warning, "generation 7 has claimed already"},
		{ready(8, "b8"), driver.Fine, "generation 8 is free, and higher than 7"},
	} {
		r := catalog.Preflight(t.Context(), led(t, ready(7, "b7")), row.cfg)
		check := found(t, r, catalog.CheckGeneration)
		require.Equal(t, row.grade, check.Grade, check.Detail)
		require.Contains(t, check.Detail, row.detail)
		require.Equal(t, row.grade != driver.Fine, check.Remedy != "")
		require.Equal(t, row.grade, r.Worst())
	}
}

func TestPreflightWarnsOfANumberThatWillBeHandedOutAgain(t *testing.T) {
	store := led(t, ready(7, ""))
	_, err := catalog.NewBoard(store, catalog.Config{}).NextGeneration(t.Context())
	require.NoError(t, err)
	require.Equal(t, driver.Fine, catalog.Preflight(t.Context(), store, ready(8, "")).Worst())
	check := found(t, catalog.Preflight(t.Context(), store, ready(9, "")), catalog.CheckGeneration)
	require.Equal(t, driver.Warning, check.Grade)
	require.Contains(t, check.Detail, "8 was the last")
}

func TestPreflightSaysWhoCanReadTheDataNowAndAfterwards(t *testing.T) {
	for _, row := range []struct {
		name            string
		leads           []catalog.Config
		next            []catalog.Migration
		reads, rollback driver.Grade
		says            string
	}{
		{"nothing changes", []catalog.Config{ready(1, "", upTo(2, 2)...)}, upTo(2, 2), driver.Fine, driver.Fine, "the build that leads can read the data afterwards"},
		{"expand", []catalog.Config{ready(1, "", upTo(2, 2)...)}, upTo(3, 2), driver.Fine, driver.Fine, "the build that leads can read the data afterwards"},
		{"contract", []catalog.Config{ready(1, "", upTo(3, 2)...)}, upTo(4, 3), driver.Fine, driver.Fine, "the build that leads knows data version 3"},
		{"one way", []catalog.Config{ready(1, "", upTo(2, 2)...)}, upTo(3, 3), driver.Fine, driver.Warning, "can't come back after this one"},
		{"an old build leads", []catalog.Config{ready(1, "", upTo(3, 2)...), ready(2, "", upTo(2, 2)...)}, upTo(4, 3), driver.Fine, driver.Warning, "not known whether it could come back"},
		{"no migrations", []catalog.Config{ready(1, "")}, upTo(1, 1), driver.Fine, driver.Warning, "can't come back after this one"},
		{"too old", []catalog.Config{ready(1, "", upTo(3, 3)...)}, upTo(2, 2), driver.Failure, driver.Fine, ""},
		{"a gap", []catalog.Config{ready(1, "", upTo(1, 1)...)}, upTo(3, 3)[2:], driver.Failure, driver.Fine, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			store := led(t, row.leads...)
			r := catalog.Preflight(t.Context(), store, ready(9, "", row.next...))
			require.Equal(t, row.reads, found(t, r, catalog.CheckReadable).Grade)
			_, err := catalog.Open(t.Context(), store, ready(9, "", row.next...))
			if row.reads == driver.Failure {
				require.ErrorIs(t, err, catalog.ErrIncompatible, "the preflight has failed, and the claim has not")
				return
			}
			require.NoError(t, err)
			check := found(t, r, catalog.CheckRollback)
			require.Equal(t, row.rollback, check.Grade, check.Detail)
			require.Contains(t, check.Detail, row.says)
			if row.name == "an old build leads" {
				return
			}
			_, err = catalog.Open(t.Context(), store, ready(10, "", row.leads[0].Migrations...))
			require.Equal(t, row.rollback != driver.Fine, errors.Is(err, catalog.ErrIncompatible), "%v", err)
		})
	}
}

func TestPreflightOfAStoreThatDoesNotAnswerSaysSoAndNoMore(t *testing.T) {
	store := led(t, ready(1, ""))
	for _, row := range []struct {
		disposition exitcodes.Disposition
		unreachable bool
	}{{exitcodes.Retry, true}, {exitcodes.Halt, false}} {
		cfg := ready(2, "")
		cfg.RetryBudget = 100 * time.Millisecond
		r := catalog.Preflight(t.Context(), headless{store, row.disposition}, cfg)
		require.Len(t, r.Checks, 1)
		check := found(t, r, catalog.CheckStore)
		require.Equal(t, driver.Failure, check.Grade)
		require.Equal(t, "look at it", check.Remedy)
		require.Equal(t, row.unreachable, r.Unreachable != nil)
	}
}

type headless struct {
	driver.Store
	disposition exitcodes.Disposition
}

func (h headless) Head(context.Context) (driver.Head, error) {
	return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: h.disposition, Remedy: "look at it"}, Store: h.String(), Op: "head", Err: errors.New("no")}
}

func TestPreflightNamesMistakesOfTheConfiguration(t *testing.T) {
	cfg := ready(1, "")
	cfg.MaxQueued = -1
	r := catalog.Preflight(t.Context(), memory.New(), cfg)
	require.Contains(t, found(t, r, catalog.CheckConfig).Detail, "MaxQueued is -1")
	require.Equal(t, driver.Failure, r.Worst())
}

func TestPreflightFindsALogThatCantBeReadAndAHistoryThatIsNoChain(t *testing.T) {
	store := led(t, ready(1, ""), ready(1, ""))
	r := catalog.Preflight(t.Context(), torn{store}, ready(2, ""))
	require.Equal(t, driver.Failure, found(t, r, catalog.CheckLog).Grade)
	claims := found(t, r, catalog.CheckClaims)
	require.Equal(t, driver.Failure, claims.Grade)
	require.Contains(t, claims.Detail, "does not follow")
	require.NotEmpty(t, claims.Remedy)
}

// A torn store has lost its first record and its first claim.
type torn struct{ driver.Store }

func (s torn) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return s.Store.Log(ctx, max(after, 1), func(rec driver.Record) error {
		rec.Payload = []byte("?")
		return fn(rec)
	})
}

func (s torn) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	return s.Store.Claims(ctx, max(after, 1), fn)
}

func TestPreflightWritesNothingToDatabaseOrLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.db")
	store, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	c, err := catalog.Open(t.Context(), store, ready(1, "", upTo(2, 2)...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	before, names := content(t, path), list(t, dir)
	require.NotEmpty(t, before[1], "a holder that is there has a log")

	other, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	r := catalog.Preflight(t.Context(), other, ready(2, "", upTo(3, 2)...))
	require.NotEqual(t, driver.Failure, r.Worst(), "%v", r.Checks)
	require.Positive(t, r.P50)
	require.GreaterOrEqual(t, r.P99, r.P50)
	require.Contains(t, found(t, r, "durability").Detail, "journal_mode is wal")
	require.Equal(t, before, content(t, path))
	require.NoError(t, other.Close())
	require.Equal(t, before, content(t, path))
	require.Equal(t, names, list(t, dir), "the probe has left a file")
}

func TestPreflightOfACatalogThatIsNotThereCreatesNone(t *testing.T) {
	dir := t.TempDir()
	store, err := sqlite.Open(filepath.Join(dir, "c.db"), sqlite.Config{})
	require.NoError(t, err)
	r := catalog.Preflight(t.Context(), store, ready(2, ""))
	require.NotEqual(t, driver.Failure, r.Worst(), "%v", r.Checks)
	require.NoError(t, store.Close())
	require.Empty(t, list(t, dir))
}

// content returns what is in a catalog's file and in its log.
func content(t *testing.T, path string) [2]string {
	t.Helper()
	db, err := os.ReadFile(path)
	require.NoError(t, err)
	wal, err := os.ReadFile(path + "-wal")
	require.NoError(t, err)
	return [2]string{string(db), string(wal)}
}

func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestASnapshotHasTheEntriesOfTheHeadThatItNames(t *testing.T) {
	store := memory.New()
	require.NoError(t, catalog.Snapshot(t.Context(), store, catalog.Config{}, func(head driver.Head, r *catalog.Reader) error {
		require.True(t, head.IsZero())
		names, err := r.Collections()
		require.NoError(t, err)
		require.Empty(t, names)
		return nil
	}))
	c, err := catalog.Open(t.Context(), store, ready(1, "", upTo(2, 2)...))
	require.NoError(t, err)
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
		return errors.Join(catalog.Bytes("b").Set(tx, "k", nil), catalog.Bytes("a").Set(tx, "k", nil), catalog.Bytes("gone").Set(tx, "k", nil))
	}))
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
		_, err := catalog.Bytes("gone").Delete(tx, "k")
		return err
	}))
	mine := errors.New("mine")
	require.ErrorIs(t, catalog.Snapshot(t.Context(), store, catalog.Config{}, func(head driver.Head, r *catalog.Reader) error {
		require.EqualValues(t, 3, head.Revision)
		names, err := r.Collections()
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, names)
		return mine
	}), mine)
	require.NoError(t, c.Close())
}

func TestPreflightSaysHowLongTheMigrationsTookAndWhatThatMeans(t *testing.T) {
	odd := errors.New("an odd row")
	for name, row := range map[string]struct {
		up    func(*catalog.Tx) error
		grade driver.Grade
		says  string
	}{
		"quick": {func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) }, driver.Fine, "writers pause for one handover and one commit"},
		"slow": {func(*catalog.Tx) error { <-time.After(time.Second); return nil }, driver.Warning,
			"1 of them took 1s on the data as of revision 1: 0 entries set, 0 deleted, 1 bytes; that is longer than MigrationTimeout (500ms)"},
		"fails": {func(*catalog.Tx) error { return odd }, driver.Failure, "an odd row"},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := led(t, ready(1, ""))
			cfg := ready(9, "", catalog.Migration{Version: 1, Name: name, ReadableBy: 1, Up: row.up})
			cfg.MigrationTimeout = 500 * time.Millisecond
			before, err := store.Head(t.Context())
			require.NoError(t, err)
			check := found(t, catalog.Preflight(t.Context(), store, cfg), catalog.CheckMigrations)
			require.Equal(t, row.grade, check.Grade, check.Detail)
			require.Contains(t, check.Detail, row.says)
			require.Equal(t, row.grade != driver.Fine, check.Remedy != "")
			after, err := store.Head(t.Context())
			require.NoError(t, err)
			require.Equal(t, before, after)
		})
	}
}

func TestPreflightSaysThatTheMigrationsHadNotFinishedWhenItsTimeWasOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := catalog.Migration{Version: 1, ReadableBy: 1, Up: func(tx *catalog.Tx) error { <-tx.Context().Done(); return context.Cause(tx.Context()) }}
		store := led(t, ready(1, ""))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		check := found(t, catalog.Preflight(ctx, store, ready(9, "", hangs)), catalog.CheckMigrations)
		require.Equal(t, driver.Failure, check.Grade)
		require.Contains(t, check.Detail, "had not finished after 10s")
		require.Contains(t, check.Remedy, "more time")
	})
}

func TestPreflightLeavesOutAMigrationThatItKnowsByItsVersionsAlone(t *testing.T) {
	cfg := ready(9, "", catalog.Migration{Version: 1, ReadableBy: 1, Up: func(*catalog.Tx) error { return catalog.ErrNameOnly }})
	r := catalog.Preflight(t.Context(), led(t, ready(1, "")), cfg)
	require.NotEqual(t, driver.Failure, r.Worst())
	for _, check := range r.Checks {
		require.NotEqual(t, catalog.CheckMigrations, check.Name)
	}
}
