package drivertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

func versionCases() []protocolCase {
	return []protocolCase{
		{"migrations apply once, in order, in the claim", migrationsApply},
		{"a failing migration leaves the catalog as it was", migrationFails},
		{"data versions older, equal, next and two ahead of the build", versionTable},
		{"the same generation from another build is refused", otherBuild},
		{"a build that can't read what another one wrote since it looked does not claim over it", unreadableSince},
	}
}

func unreadableSince(s *scene) {
	require.NoError(s, s.claims(1).Close())
	late, err := catalog.Follow(Context(s), deaf(s.store()), slowly(config(3)))
	require.NoError(s, err)
	migrating := config(2)
	migrating.Migrations = steps(1, nil)
	holder := s.claimsOver(s.store(), migrating)
	_, err = late.Open(Context(s), catalog.ClaimOptions{})
	require.ErrorIs(s, err, catalog.ErrIncompatible)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
	require.NoError(s, holder.Confirm(Context(s)))
}

// steps are migrations 1 to n; each appends its number to one entry.
func steps(n uint64, readableBy map[uint64]uint64) []catalog.Migration {
	var ms []catalog.Migration
	for v := uint64(1); v <= n; v++ {
		ms = append(ms, catalog.Migration{Version: v, Name: fmt.Sprintf("step %d", v), ReadableBy: readableBy[v], Up: func(tx *catalog.Tx) error {
			old, _, err := entries().Get(tx, "steps")
			if err != nil {
				return err
			}
			return entries().Set(tx, "steps", fmt.Append(old, v))
		}})
	}
	return ms
}

func migrating(g generation.Generation, n uint64) catalog.Config {
	cfg := config(g)
	cfg.Migrations = steps(n, nil)
	return cfg
}

func migrationsApply(s *scene) {
	c := s.claimsOver(s.store(), migrating(1, 2))
	require.Equal(s, "12", s.contents(c)["steps"])
	require.NoError(s, c.Close())
	claim := ReadClaims(s, s.store(), 0)[0]
	require.EqualValues(s, 2, claim.DataVersion)
	require.Len(s, ReadLog(s, s.store(), 0), 1, "commits besides the claim")
	c = s.claimsOver(s.store(), migrating(1, 2))
	require.Equal(s, "12", s.contents(c)["steps"], "a migration ran again")
	require.NoError(s, c.Close())
	c = s.claimsOver(s.store(), migrating(2, 4))
	require.Equal(s, "1234", s.contents(c)["steps"])
	require.EqualValues(s, 4, c.Claim().DataVersion)
}

func migrationFails(s *scene) {
	c := s.claimsOver(s.store(), migrating(1, 1))
	before := ReadHead(s, s.store())
	cfg := migrating(2, 2)
	mine := errors.New("the data are not as expected")
	cfg.Migrations[1].Up = func(tx *catalog.Tx) error {
		if err := entries().Set(tx, "half", nil); err != nil {
			return err
		}
		return mine
	}
	_, err := catalog.Open(Context(s), s.store(), cfg)
	require.ErrorIs(s, err, mine)
	require.ErrorContains(s, err, `migration 2 ("step 2")`)
	SameHead(s, before, ReadHead(s, s.store()))
	s.put(c, "k", "v")
	require.NotContains(s, s.contents(c), "half")
}

func versionTable(s *scene) {
	readable := map[uint64]uint64{1: 1, 2: 1, 3: 2, 4: 4}
	for i, row := range []struct {
		data, build, oldest uint64 // the build knows the migrations from oldest on
		want                string // empty: opens
	}{
		{data: 1, build: 3, oldest: 1},
		{data: 2, build: 2, oldest: 1},
		{data: 2, build: 1, oldest: 1}, // the next version, readable by this build
		{data: 3, build: 1, oldest: 1, want: "the data are at version 3, readable by builds that know version 2 or later, and this build knows 1: start a newer build"},
		{data: 4, build: 2, oldest: 1, want: "the data are at version 4, readable by builds that know version 4 or later, and this build knows 2: start a newer build"},
		{data: 1, build: 4, oldest: 3, want: "the data are at version 1, and the oldest migration of this build makes version 3: start a build in between first"},
		{data: 2, build: 4, oldest: 3},
	} {
		g := generation.Generation(1000*i + 1)
		s.Logf("row %d: data at %d, build knows %d", i, row.data, row.build)
		s.versionRow(g, row.data, row.build, row.oldest, row.want, readable)
	}
}

// versionRow brings the data of the catalog to a version and opens it with a
// build. Each row but the first begins on the data of the one before, so the
// first claim of a row may find newer data: it uses a build that knows all.
func (s *scene) versionRow(g generation.Generation, data, build, oldest uint64, want string, readable map[uint64]uint64) {
	s.Helper()
	st := &versioned{Store: s.store(), data: data, readable: readable[data]}
	base := config(g)
	base.Migrations = steps(4, readable)
	c := s.claimsOver(s.store(), base)
	require.NoError(s, c.Close())

	cfg := config(g + 1)
	cfg.Migrations = steps(build, readable)[oldest-1:]
	before := ReadHead(s, st)
	c, err := catalog.Open(Context(s), st, cfg)
	if want != "" {
		require.ErrorIs(s, err, catalog.ErrIncompatible)
		require.ErrorContains(s, err, want)
		require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
		SameHead(s, before, ReadHead(s, st))
		return
	}
	require.NoError(s, err)
	require.EqualValues(s, max(data, build), c.Claim().DataVersion)
	require.NoError(s, c.Close())
}

// versioned is a store whose newest claim says another data version.
type versioned struct {
	driver.Store
	data, readable uint64
}

func (v *versioned) dress(h driver.Head) driver.Head {
	h.Claim.DataVersion, h.Claim.ReadableBy = v.data, v.readable
	return h
}

func (v *versioned) Head(ctx context.Context) (driver.Head, error) {
	h, err := v.Store.Head(ctx)
	return v.dress(h), err
}

func (v *versioned) Claim(ctx context.Context) (driver.Claiming, error) {
	cl, err := v.Store.Claim(ctx)
	if err != nil {
		return nil, err
	}
	return &versionedClaiming{Claiming: cl, of: v}, nil
}

type versionedClaiming struct {
	driver.Claiming
	of *versioned
}

func (v *versionedClaiming) Head() driver.Head { return v.of.dress(v.Claiming.Head()) }

func otherBuild(s *scene) {
	first := config(3)
	first.Holder.Build = "build-a"
	c := s.claimsOver(s.store(), first)
	before := ReadHead(s, s.store())
	other := config(3)
	other.Holder.Build = "build-b"
	_, err := catalog.Open(Context(s), s.store(), other)
	require.ErrorIs(s, err, catalog.ErrIncompatible)
	require.ErrorContains(s, err, `"build-a"`)
	require.ErrorContains(s, err, `"build-b"`)
	require.ErrorContains(s, err, "fencepost generation next")
	SameHead(s, before, ReadHead(s, s.store()))
	require.NoError(s, c.Confirm(Context(s)))
	other.Generation = 4
	c = s.claimsOver(s.store(), other)
	require.Equal(s, "g4.e2", c.Token().String())
}

func batchCases() []protocolCase {
	return []protocolCase{
		{"10,000 entries of 1 KiB commit atomically", manyEntries},
		{"10,000 entries of 1 KiB that a migration writes commit atomically, with the claim", manyMigrated},
	}
}

const (
	manyKeys = 10_000
	keySize  = 1 << 10
)

// fillMany writes the entries, each of which tells its key.
func fillMany(tx *catalog.Tx) error {
	for n := range manyKeys {
		key := fmt.Sprintf("%05d", n)
		if err := entries().Set(tx, key, bytes.Repeat([]byte(key), keySize/len(key)+1)[:keySize]); err != nil {
			return err
		}
	}
	return nil
}

// many returns how many of the entries are there, each of them whole.
func (s *scene) many(v viewer) int {
	s.Helper()
	all := s.contents(v)
	for key, value := range all {
		require.Len(s, value, keySize, key)
		require.Equal(s, key, value[:len(key)])
		require.True(s, strings.HasPrefix(key, value[keySize-keySize%len(key):]), key)
	}
	return len(all)
}

// allOrNothing returns a channel that gets nil once f sees every entry, and an
// error where it ever sees some of them. Each look is at one revision.
func (s *scene) allOrNothing(f *catalog.Follower) <-chan error {
	return async(func() error {
		var seen int
		err := f.Wait(Context(s), func(driver.Head) bool {
			seen = 0
			_ = f.View(func(r *catalog.Reader) error { // an ended follower sees nothing
				return entries().Scan(r, "", func(string, []byte) bool { seen++; return true })
			})
			return seen > 0
		})
		if err == nil && seen != manyKeys {
			err = fmt.Errorf("the follower saw %d entries of %d", seen, manyKeys)
		}
		return err
	})
}

func manyEntries(s *scene) {
	c := s.claims(1)
	f := s.follows(1)
	done := s.allOrNothing(f)
	before := c.Head().Revision
	require.NoError(s, c.Update(Context(s), fillMany))
	require.Equal(s, before+1, c.Head().Revision, "all in one commit")
	require.NoError(s, <-done)
	require.Equal(s, manyKeys, s.many(f))
	require.NoError(s, c.Close())
	require.Equal(s, manyKeys, s.many(s.claims(2)))
}

func manyMigrated(s *scene) {
	require.NoError(s, s.claims(1).Close())
	cfg := config(2)
	cfg.Migrations = []catalog.Migration{{Version: 1, Name: "fill", Up: fillMany}}
	f, err := catalog.Follow(Context(s), s.store(), cfg)
	require.NoError(s, err)
	defer func() { _ = f.Close() }() // its reason is of no interest here
	done := s.allOrNothing(f)
	c := s.claimsOver(s.store(), cfg)
	require.Equal(s, c.Claim().Head(), c.Head(), "all in the claim's own commit")
	require.NoError(s, <-done)
	require.Equal(s, manyKeys, s.many(f))
	require.NoError(s, c.Close())
	require.Equal(s, manyKeys, s.many(s.claimsOver(s.store(), cfg)))
}

func followCases() []protocolCase {
	return []protocolCase{
		{"a follower writes nothing", followerWritesNothing},
		{"a follower sees the holder's commits in order", followerSeesInOrder},
		{"a follower sees supersession at once", followerSuperseded},
		{"a follower of an empty catalog sees its first claim", followerOfNothing},
		{"a follower becomes the holder without reading again", followerOpens},
	}
}

func followerWritesNothing(s *scene) {
	c := s.claims(1)
	s.put(c, "k", "v")
	st := s.store()
	head, log, notes := ReadHead(s, st), ReadLog(s, st, 0), ReadNotes(s, st, "")
	f, err := catalog.Follow(Context(s), s.refusing(), config(2))
	require.NoError(s, err)
	require.Equal(s, map[string]string{"k": "v"}, s.contents(f))
	require.NoError(s, f.Close())
	SameHead(s, head, ReadHead(s, st))
	SameLog(s, log, ReadLog(s, st, 0))
	require.Equal(s, notes, ReadNotes(s, st, ""))
	require.NoError(s, c.Confirm(Context(s)), "the follower has fenced the holder")
}

func followerSeesInOrder(s *scene) {
	const commits = 100
	c := s.claims(1)
	f := s.follows(1)
	counter := catalog.JSON[int]("counter")
	done := async(func() error {
		last := -1
		return f.Wait(Context(s), func(driver.Head) bool {
			n := last
			err := f.View(func(r *catalog.Reader) (err error) {
				n, _, err = counter.Get(r, "n")
				return err
			})
			if err != nil || n < last {
				s.Errorf("the follower saw %d after %d, %v", n, last, err)
				return true
			}
			last = n
			return n == commits
		})
	})
	for n := 1; n <= commits; n++ {
		require.NoError(s, c.Update(Context(s), func(tx *catalog.Tx) error { return counter.Set(tx, "n", n) }))
	}
	require.NoError(s, <-done)
	head, _ := f.Head()
	SameHead(s, c.Head(), head)
}

func followerSuperseded(s *scene) {
	s.claims(1)
	mine, observer := s.follows(1), s.follows(generation.None)
	standby := s.follows(2)
	s.claims(2)
	s.awaitDone(mine.Done())
	s.supersededBy("g2.e2", mine.Err())
	s.supersededBy("g2.e2", mine.View(func(*catalog.Reader) error { return nil }))
	ofTwo := func(h driver.Head) bool { return h.Claim.Token.Generation == 2 }
	require.NoError(s, standby.Wait(Context(s), ofTwo))
	require.NoError(s, observer.Wait(Context(s), ofTwo))
}

func followerOfNothing(s *scene) {
	f := s.follows(2)
	head, _ := f.Head()
	require.True(s, head.IsZero())
	require.Empty(s, s.contents(f))
	s.put(s.claims(1), "k", "v")
	require.NoError(s, f.Wait(Context(s), func(h driver.Head) bool { return h.Revision == 2 }))
	require.Equal(s, map[string]string{"k": "v"}, s.contents(f))
}

func followerOpens(s *scene) {
	first := s.claims(1)
	for i := range 10 {
		s.put(first, fmt.Sprint(i), "v")
	}
	f := s.follows(2)
	head, _ := f.Head()
	s.put(first, "late", "v")
	want := s.contents(first)
	second, err := f.Open(Context(s), catalog.ClaimOptions{})
	require.NoError(s, err)
	require.Greater(s, second.Head().Revision, head.Revision)
	require.Equal(s, want, s.contents(second))
	s.supersededBy("g2.e2", first.Confirm(Context(s)))
	require.NoError(s, second.Close())
}

func boardCases() []protocolCase {
	return []protocolCase{
		{"1,000 concurrent calls for the next generation give 1,000 different numbers", thousandGenerations},
		{"a generation that claimed is never given out", claimedGeneration},
		{"board records keep fields that a build does not know", unknownFields},
	}
}

func thousandGenerations(s *scene) {
	const processes, calls = 10, 100
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[generation.Generation]bool{}
	)
	for range processes {
		board := catalog.NewBoard(s.store(), catalog.Config{RetryBudget: 6 * Patience})
		for range calls {
			wg.Go(func() {
				g, err := board.NextGeneration(s.Context())
				if err != nil {
					s.Errorf("NextGeneration = %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[g] = true
			})
		}
	}
	wg.Wait()
	require.Len(s, seen, processes*calls)
}

func claimedGeneration(s *scene) {
	board := catalog.NewBoard(s.store(), catalog.Config{})
	g, err := board.NextGeneration(Context(s))
	require.NoError(s, err)
	require.EqualValues(s, 1, g)
	s.claims(40)
	g, err = board.NextGeneration(Context(s))
	require.NoError(s, err)
	require.EqualValues(s, 41, g)
}

func unknownFields(s *scene) {
	type old struct {
		Name string `json:"name"`
		Gone string `json:"gone,omitempty"`
	}
	st := s.store()
	_, err := st.Post(Context(s), driver.Note{Key: "member", Value: []byte(`{"name":"a","gone":"x","later":{"deep":[1,2]}}`)})
	require.NoError(s, err)
	board := catalog.NewBoard(st, catalog.Config{})
	_, err = catalog.UpdateNote(Context(s), board, "member", func(o *old) error {
		o.Name, o.Gone = "b", ""
		return nil
	})
	require.NoError(s, err)
	var got map[string]any
	require.NoError(s, json.Unmarshal(ReadNotes(s, st, "member")[0].Value, &got))
	require.Equal(s, map[string]any{"name": "b", "later": map[string]any{"deep": []any{1.0, 2.0}}}, got)
}
