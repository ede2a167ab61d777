package leftovers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/reap"
	"github.com/fencepost/fencepost/reap/leftovers"
	"github.com/fencepost/fencepost/work"
)

// stores opens an empty catalog in each store.
func stores(t *testing.T) map[string]driver.Store {
	t.Helper()
	all := map[string]driver.Store{"memory": memory.New()}
	add := func(name string, s driver.Store, err error) {
		t.Helper()
		require.NoError(t, err)
		all[name] = s
	}
	lite, err := sqlite.Open(filepath.Join(t.TempDir(), "c.db"), sqlite.Config{})
	add("sqlite", lite, err)
	pg, err := postgres.Open(t.Context(), testpg.URL(t), postgres.Config{})
	add("postgres", pg, err)
	cluster, err := etcd.Open(t.Context(), testetcd.URL(t), etcd.Config{})
	add("etcd", cluster, err)
	for _, s := range all {
		t.Cleanup(func() { _ = s.Close() })
	}
	return all
}

// claim claims a catalog and leaves it.
func claim(t *testing.T, s driver.Store, g generation.Generation) fence.Token {
	t.Helper()
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: g})
	require.NoError(t, err)
	defer c.Close()
	return c.Claim().Token
}

func old() time.Time { return time.Now().Add(-time.Hour).UTC() }

// post writes a note as its owner would.
func post(t testing.TB, s driver.Store, key string, value any) {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	n := driver.Note{Key: key, Value: text}
	for _, is := range drivertest.ReadNotes(t, s, key) {
		if is.Key == key {
			n.Version = is.Version
		}
	}
	_, err = s.Post(context.Background(), n)
	require.NoError(t, err)
}

type object = map[string]any

// superseded are notes of generation g, the last two of a person's question and a process's.
func superseded(t testing.TB, s driver.Store, g generation.Generation, at time.Time) {
	t.Helper()
	post(t, s, "promote", leader.Intent{Generation: g, At: at, By: "alice", Aborted: []generation.Generation{g - 1}})
	post(t, s, "holder", leader.Beat{Token: fence.Token{Generation: g, Epoch: 1}, Seq: 7, At: at})
	post(t, s, "preempt", object{"generation": g, "at": at, "operator": true, "by": "bob"})
}

// lasting are notes that no reaper may touch.
func lasting(t testing.TB, s driver.Store) {
	t.Helper()
	for _, key := range []string{"generations", "refusals", "promoted", "holder/1", "an application's", work.InboxPrefix + "a"} {
		post(t, s, key, object{"generation": 1, "at": old(), "last": 3})
	}
}

// board returns all notes by key.
func board(t testing.TB, s driver.Store) map[string]driver.Note {
	all := map[string]driver.Note{}
	for _, n := range drivertest.ReadNotes(t, s, "") {
		all[n.Key] = n
	}
	return all
}

// pass runs a pass, whose sums must add up.
func pass(t testing.TB, s driver.Store, cfg leftovers.Config) leftovers.Report {
	t.Helper()
	r, err := leftovers.Pass(context.Background(), s, cfg)
	require.NoError(t, err)
	requireSums(t, r)
	return r
}

func requireSums(t testing.TB, r leftovers.Report) {
	t.Helper()
	var sum reap.Report
	kept := 0
	for kind, done := range r.Passes {
		require.NoError(t, done.Check(), kind)
		sum.Listed += done.Listed
		sum.Deleted += done.Deleted
		sum.Gone += done.Gone + done.Vanished
		sum.Failed += done.Failed
		sum.Left += done.Left
		kept += done.Kept.Sum()
	}
	require.Equal(t, []int{sum.Listed, sum.Deleted, sum.Gone, sum.Failed, sum.Left, kept}, []int{
		len(r.Items), r.Count(leftovers.Deleted), r.Count(leftovers.Gone), r.Count(leftovers.Failed), r.Count(leftovers.NotTried), r.Count(leftovers.Kept),
	}, "%+v", r)
	for _, i := range r.Items {
		require.Equal(t, i.Fate == leftovers.Kept || i.Fate == leftovers.Failed, i.Why != "", "%+v", i)
	}
}

func TestNotesOfAGenerationThatIsOverAreRemovedAndNothingElseIs(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim(t, s, 3)
			newest := claim(t, s, 9)
			lasting(t, s)
			before := board(t, s)
			head, log, claims := drivertest.ReadHead(t, s), drivertest.ReadLog(t, s, 0), drivertest.ReadClaims(t, s, 0)
			superseded(t, s, 3, old())
			r := pass(t, s, leftovers.Config{})
			require.Equal(t, newest, r.Token)
			require.Equal(t, 3, r.Count(leftovers.Deleted))
			require.Len(t, r.Items, 3)
			after := board(t, s)
			require.Contains(t, after, "promotions", "the history keeps what the intent said")
			delete(after, "promotions")
			require.Equal(t, before, after)
			drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
			drivertest.SameLog(t, log, drivertest.ReadLog(t, s, 0))
			require.Equal(t, claims, drivertest.ReadClaims(t, s, 0))
			require.Empty(t, pass(t, s, leftovers.Config{}).Items, "the second time")
			claim(t, s, 10)
		})
	}
}

func TestTheNotesOfMembersOfAGenerationThatIsOverAreRemoved(t *testing.T) {
	t.Parallel()
	s := memory.New()
	claim(t, s, 9)
	for i, g := range []generation.Generation{3, 4, 9, 10} {
		post(t, s, "member/"+fmt.Sprint(i), leader.Member{Generation: g, At: old()})
	}
	require.Equal(t, 2, pass(t, s, leftovers.Config{}).Count(leftovers.Deleted))
	require.NotContains(t, board(t, s), "member/1")
	require.Contains(t, board(t, s), "member/2")
	require.Contains(t, board(t, s), "member/3")
}

func TestNothingOfTheGenerationThatLeadsOrOfAHigherOneIsRemoved(t *testing.T) {
	t.Parallel()
	everything := leftovers.Config{Policy: reap.Policy{Keep: reap.KeepNone, MinAge: reap.NoMinAge}}
	for _, g := range []generation.Generation{9, 10, generation.Max} {
		s := memory.New()
		claim(t, s, 9)
		lasting(t, s)
		superseded(t, s, g, old())
		before := board(t, s)
		r := pass(t, s, everything)
		require.Equal(t, 3, r.Count(leftovers.Kept))
		require.Equal(t, before, board(t, s))
	}
	s := memory.New()
	claim(t, s, 9)
	post(t, s, "promote", leader.Intent{Generation: 3, At: old(), Aborted: []generation.Generation{12}})
	require.Equal(t, 1, pass(t, s, everything).Count(leftovers.Kept), "an abort that still stands")
	post(t, s, "promote", leader.Intent{At: old(), Aborted: []generation.Generation{4, 8}})
	require.Equal(t, 1, pass(t, s, everything).Count(leftovers.Deleted), "aborts of generations that can't lead any more")
}

func TestASupersededGenerationThatIsKeptAndWhatIsYoungOrUndatedStays(t *testing.T) {
	t.Parallel()
	s := memory.New()
	for _, g := range []generation.Generation{3, 5, 9} {
		claim(t, s, g)
	}
	for _, test := range []struct {
		of     generation.Generation
		at     time.Time
		policy reap.Policy
		why    string // kept; empty: deleted
	}{
		{8, old(), reap.Policy{}, "for a rollback"},
		{7, old(), reap.Policy{}, ""},
		{5, old(), reap.Policy{Led: []generation.Generation{3, 5, 9}}, "for a rollback"},
		{3, old(), reap.Policy{Led: []generation.Generation{3, 5, 9}}, ""},
		{3, time.Now(), reap.Policy{}, "too young"},
		{3, old(), reap.Policy{MinAge: 2 * time.Hour}, "too young"},
		{3, time.Time{}, reap.Policy{}, "it has no time"},
		{3, time.Time{}, reap.Policy{MinAge: reap.NoMinAge}, ""},
		{3, time.Now().Add(time.Hour), reap.Policy{}, "too young"},
	} {
		superseded(t, s, test.of, test.at)
		r := pass(t, s, leftovers.Config{Policy: test.policy})
		require.Len(t, r.Items, 3)
		for _, i := range r.Items {
			if test.why == "" {
				require.Equal(t, leftovers.Deleted, i.Fate, "%+v", test)
			} else {
				require.Equal(t, leftovers.Kept, i.Fate, "%+v", test)
				require.Contains(t, i.Why, test.why)
			}
		}
	}
}

// hooked is a store that something happens to.
type hooked struct {
	driver.Store
	afterHead, afterNotes func()
}

func (h *hooked) Head(ctx context.Context) (driver.Head, error) {
	head, err := h.Store.Head(ctx)
	h.happen(&h.afterHead)
	return head, err
}

func (h *hooked) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	notes, err := h.Store.Notes(ctx, prefix)
	h.happen(&h.afterNotes)
	return notes, err
}

// happen calls a hook once.
func (h *hooked) happen(hook *func()) {
	if fn := *hook; fn != nil {
		*hook = nil
		fn()
	}
}

func TestANoteThatWasReplacedSinceItWasListedStays(t *testing.T) {
	t.Parallel()
	s := memory.New()
	claim(t, s, 9)
	superseded(t, s, 3, old())
	replace := func() { post(t, s, "promote", leader.Intent{Generation: 10, At: time.Now(), By: "carol"}) }

	r := pass(t, &hooked{Store: s, afterNotes: replace}, leftovers.Config{})
	require.Equal(t, leftovers.Kept, r.Items[0].Fate)
	require.Contains(t, r.Items[0].Why, "it has changed")
	require.EqualValues(t, 10, intent(t, s).Generation)

	superseded(t, s, 3, old())
	later := leftovers.Config{Policy: reap.Policy{InUse: func(_ context.Context, i reap.Item) (bool, error) { // behind the look at the version
		if i.ID == "promote" {
			replace()
		}
		return false, nil
	}}}
	r = pass(t, s, later)
	require.Equal(t, leftovers.Failed, r.Items[0].Fate)
	require.ErrorIs(t, r.Err(), driver.ErrConflict)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"fate":"failed"`)
	require.EqualValues(t, 10, intent(t, s).Generation)
}

func intent(t testing.TB, s driver.Store) leader.Intent {
	i, err := leader.ReadIntent(context.Background(), s, catalog.Config{})
	require.NoError(t, err)
	return i
}

func TestAPassOfASupersededProcessTouchesNothingOfItsSuccessors(t *testing.T) {
	t.Parallel()
	s := memory.New()
	claim(t, s, 3)
	stopped := &hooked{Store: s, afterHead: func() { // it has read the head, and is stopped for a while
		claim(t, s, 9)
		superseded(t, s, 8, old())
	}}
	r := pass(t, stopped, leftovers.Config{Policy: reap.Policy{Keep: reap.KeepNone, MinAge: reap.NoMinAge}})
	require.EqualValues(t, 3, r.Token.Generation)
	require.Equal(t, 3, r.Count(leftovers.Kept))
	require.Len(t, board(t, s), 4, "with the result of the check of the store")
}

func TestADryRunWritesNothing(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim(t, s, 9)
			superseded(t, s, 3, old())
			before := board(t, s)
			dry := pass(t, s, leftovers.Config{DryRun: true})
			require.Equal(t, before, board(t, s))
			wet := pass(t, s, leftovers.Config{})
			require.Equal(t, wet.Items, dry.Items)
			require.Equal(t, 3, wet.Count(leftovers.Deleted))
		})
	}
}

func TestOfReapersThatRunAtOnceOneRemovesEachThing(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim(t, s, 9)
			superseded(t, s, 3, old())
			removed := make([]int, 6)
			var reaping sync.WaitGroup
			for n := range removed {
				reaping.Go(func() {
					r, err := leftovers.Pass(t.Context(), s, leftovers.Config{})
					if err == nil {
						err = r.Err()
					}
					if err != nil {
						t.Error(err)
					}
					requireSums(t, r)
					removed[n] = r.Count(leftovers.Deleted)
				})
			}
			reaping.Wait()
			sum := 0
			for _, n := range removed {
				sum += n
			}
			require.Equal(t, 3, sum)
			require.Empty(t, pass(t, s, leftovers.Config{}).Items)
		})
	}
}

const (
	deadPlace = "5f000000-0123456789abcdef"
	deadFile  = ".c.db-claim-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// leave leaves a scratch place of a dead process beside a catalog, and one of a process that lives.
func leave(t *testing.T, s driver.Store) (living string) {
	t.Helper()
	living = driver.NewScratchName()
	name := s.String()
	switch {
	case strings.HasPrefix(name, "sqlite:"):
		path := strings.TrimPrefix(name, "sqlite:")
		for _, place := range []string{deadPlace, living} {
			require.NoError(t, os.WriteFile(path+"-check-"+place, nil, 0o600))
		}
		file := filepath.Join(filepath.Dir(path), deadFile)
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(-2*driver.LeftLife)))
	case strings.HasPrefix(name, "etcd:"):
		for _, place := range []string{deadPlace, living} {
			_, err := testetcd.Client(t, name).Put(t.Context(), testetcd.Prefix(t, name)+"/scratch/"+place+"/head", "x")
			require.NoError(t, err)
		}
	}
	return living
}

func TestWhatDeadProcessesLeftIsRemovedAfterADayWhateverThePolicySays(t *testing.T) {
	t.Parallel()
	all := stores(t)
	for name, want := range map[string]int{"sqlite": 2, "etcd": 1} {
		for _, policy := range []reap.Policy{{}, {Keep: reap.KeepNone, MinAge: reap.NoMinAge}, {Keep: 1000, Led: []generation.Generation{1}}} {
			s := all[name]
			living := leave(t, s) // also where nobody has claimed yet
			r := pass(t, s, leftovers.Config{Policy: policy})
			require.Equal(t, want, r.Count(leftovers.Deleted), name)
			for _, i := range r.Items {
				require.Zero(t, i.Generation)
				if i.Name == living {
					require.Equal(t, leftovers.Kept, i.Fate)
					require.Equal(t, "too young", i.Why)
				}
			}
			left, err := s.(driver.Cleaner).Left(t.Context())
			require.NoError(t, err)
			for _, l := range left {
				require.False(t, l.Expired(), name)
			}
			require.Contains(t, fmt.Sprint(left), living)
			claim(t, s, drivertest.ReadHead(t, s).Claim.Token.Generation+1)
		}
	}
}

func TestAKindThatCanNotBeListedStopsNoOtherOne(t *testing.T) {
	t.Parallel()
	s := memory.New()
	claim(t, s, 9)
	superseded(t, s, 3, old())
	for _, n := range drivertest.ReadNotes(t, s, "promote") {
		_, err := s.Post(t.Context(), driver.Note{Key: n.Key, Version: n.Version, Value: []byte("no object")})
		require.NoError(t, err)
	}
	r, err := leftovers.Pass(t.Context(), s, leftovers.Config{})
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.ErrorContains(t, err, string(leftovers.Intent))
	requireSums(t, r)
	require.Equal(t, 2, r.Count(leftovers.Deleted))

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	_, err = leftovers.Pass(ctx, s, leftovers.Config{})
	require.Error(t, err)
}

func TestOfManyProcessesOfAHostOneLooksThroughEveryKind(t *testing.T) {
	t.Parallel()
	s := memory.New()
	claim(t, s, 9)
	cfg := leftovers.Config{Policy: reap.Policy{Lock: filepath.Join(t.TempDir(), "reap"), Every: time.Hour}}
	superseded(t, s, 3, old())
	first := pass(t, s, cfg)
	require.Equal(t, 3, first.Count(leftovers.Deleted))
	superseded(t, s, 3, old())
	second := pass(t, s, cfg)
	require.Empty(t, second.Items)
	for kind, done := range second.Passes {
		require.Equal(t, 1, first.Passes[kind].Lists, kind)
		require.Zero(t, done.Lists, kind)
		require.Equal(t, reap.StoppedShared, done.Stopped, kind)
	}
}

func TestADryRunSparesNobodyAPass(t *testing.T) {
	t.Parallel()
	s := memory.New()
	claim(t, s, 9)
	superseded(t, s, 3, old())
	cfg := leftovers.Config{Policy: reap.Policy{Lock: filepath.Join(t.TempDir(), "reap"), Every: time.Hour, SkipIfLocked: true}}
	dry := cfg
	dry.DryRun = true
	for range 2 {
		require.Equal(t, 3, pass(t, s, dry).Count(leftovers.Deleted), "and another one spares it none")
	}
	require.Equal(t, 3, pass(t, s, cfg).Count(leftovers.Deleted))
}

func TestThePolicysMistakesAreNamed(t *testing.T) {
	t.Parallel()
	s := memory.New()
	claim(t, s, 9)
	_, err := leftovers.Pass(t.Context(), s, leftovers.Config{Policy: reap.Policy{OnConflict: reap.StopUnderLimit}})
	require.ErrorIs(t, err, reap.ErrPolicy)
}
