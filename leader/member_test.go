package leader_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// members returns what the board says of a service, in words.
func members(t *testing.T, store driver.Store) (all []string) {
	t.Helper()
	list, err := leader.ReadMembers(t.Context(), store, catalog.Config{})
	require.NoError(t, err)
	require.Zero(t, list.Broken)
	for _, m := range list.Members {
		text := fmt.Sprintf("%s %v %s", m.Name, m.Generation, m.Phase)
		for _, fact := range []struct {
			holds bool
			name  string
		}{{m.Ready, "ready"}, {m.Serving, "serving"}, {m.Token != nil, "holds"}} {
			if fact.holds {
				text += " " + fact.name
			}
		}
		require.NotEmpty(t, m.Reason)
		if !m.Ready || !m.Serving && m.Token != nil {
			text += ": " + m.Reason
		}
		all = append(all, text)
	}
	return all
}

func named(g generation.Generation, name string) leader.Config {
	cfg := config(g)
	cfg.Catalog.Holder.Name = name
	return cfg
}

func TestEveryProcessOfTheServiceIsOnTheBoardUntilItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, named(1, "blue-1"))
		blue.await(t, leader.Leading)
		twin := start(t, store, named(1, "blue-2"))
		notYet := errors.New("the cache is cold")
		cfg := named(2, "green")
		cfg.CaughtUp = func(context.Context, *catalog.Follower) error { return notYet }
		green := start(t, store, cfg)
		elapse(3 * time.Second)
		require.Equal(t, []string{
			"green 2 CatchingUp: the cache is cold",
			"blue-1 1 Leading ready serving holds",
			"blue-2 1 ReadyToPromote ready",
		}, members(t, store))
		require.NoError(t, twin.end(t))
		require.NoError(t, green.end(t))
		require.Len(t, members(t, store), 1)

		next := start(t, store, named(3, "red"))
		next.await(t, leader.ReadyToPromote)
		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 3, leader.PromoteOptions{By: "test", Force: true})
		require.NoError(t, err)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		elapse(2 * time.Second)
		require.Equal(t, []string{"red 3 Leading ready serving holds"}, members(t, store), "a superseded process leaves no note")
		require.NoError(t, next.end(t))
		require.Empty(t, members(t, store))
	})
}

// counted counts the writes of one handle.
func counted(store *memory.Store) (handle *memory.Store, posts *atomic.Int64) {
	handle, posts = store.Open(), new(atomic.Int64)
	handle.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Post" {
			posts.Add(1)
		}
		return memory.Pass
	})
	return handle, posts
}

func TestAReasonThatFlapsIsWrittenOnceASecondAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, config(1))
		blue.await(t, leader.Leading)
		handle, posts := counted(store)
		cfg, n := config(2), new(atomic.Int64)
		cfg.CaughtUp = func(context.Context, *catalog.Follower) error { return fmt.Errorf("%d to go", n.Add(1)) }
		green := start(t, handle, cfg)
		elapse(100 * time.Second)
		require.Greater(t, n.Load(), int64(900))
		require.InDelta(t, 100, posts.Load(), 2)
		require.NoError(t, green.end(t))
		require.NoError(t, blue.end(t))
	})
}

// note posts what a process that is elsewhere would.
func note(t *testing.T, store driver.Store, id string, m leader.Member) {
	t.Helper()
	_, err := catalog.UpdateNote(t.Context(), catalog.NewBoard(store, catalog.Config{}), "member/"+id, func(n *leader.Member) error { *n = m; return nil })
	require.NoError(t, err)
}

func noted(t *testing.T, store driver.Store, id string) bool {
	t.Helper()
	n, err := catalog.ReadNote[leader.Member](t.Context(), catalog.NewBoard(store, catalog.Config{}), "member/"+id)
	require.NoError(t, err)
	return n.Version != 0
}

func TestTheHolderRemovesTheNoteOfAProcessThatWasSilentForThreeLeasesWhateverItsClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const lease = 7500 * time.Millisecond
		store := memory.New()
		holder := start(t, store, config(1))
		holder.await(t, leader.Leading)
		note(t, store, "dead", leader.Member{Lease: lease.Seconds(), At: time.Now().AddDate(1, 0, 0)})
		note(t, store, "slow", leader.Member{Lease: 10 * lease.Seconds(), At: time.Now().AddDate(-1, 0, 0)})
		began := time.Now()
		for i := uint64(1); noted(t, store, "dead"); i++ {
			note(t, store, "alive", leader.Member{Seq: i, Lease: lease.Seconds(), At: time.Unix(0, 0)})
			elapse(lease)
			require.Less(t, time.Since(began), 6*lease)
		}
		require.GreaterOrEqual(t, time.Since(began), 3*lease)
		require.True(t, noted(t, store, "alive"), "its clock is far behind, and it goes on writing")
		require.True(t, noted(t, store, "slow"), "its own lease is longer")
		require.NoError(t, holder.end(t))
	})
}

func TestNobodyButTheHolderRemovesANote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, config(1))
		blue.await(t, leader.Leading)
		green := start(t, store, config(2))
		green.await(t, leader.ReadyToPromote)
		require.NoError(t, blue.end(t))
		note(t, store, "dead", leader.Member{})
		elapse(time.Minute)
		require.True(t, noted(t, store, "dead"))
		require.NoError(t, green.end(t))
	})
}

// A mute is a store that keeps the notes of members waiting until their time is over.
type mute struct {
	*memory.Store
	talks   atomic.Bool // it does not keep them waiting
	posts   atomic.Int64
	longest atomic.Int64 // for which a note was kept waiting, in nanoseconds
}

func (m *mute) Unwrap() driver.Store { return m.Store }

func (m *mute) Post(ctx context.Context, n driver.Note) (int64, error) {
	if strings.HasPrefix(n.Key, "member/") && !m.talks.Load() {
		m.posts.Add(1)
		began := time.Now()
		<-ctx.Done()
		m.longest.Store(max(m.longest.Load(), int64(time.Since(began))))
		return 0, ctx.Err()
	}
	return m.Store.Post(ctx, n)
}

func TestAMemberWhoseNoteCantBeWrittenDisturbsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &mute{Store: memory.New()}
		blue := start(t, store, config(1))
		blue.await(t, leader.Leading)
		green := start(t, store, config(2))
		green.await(t, leader.ReadyToPromote)
		elapse(10 * time.Minute)
		require.Greater(t, store.posts.Load(), int64(100))
		require.Less(t, store.posts.Load(), int64(600), "two processes, each once in two thirds of a lease")
		require.True(t, blue.Held())
		require.EqualValues(t, 1, blue.works.Load(), "the work was never paused")
		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true})
		require.NoError(t, err)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		green.await(t, leader.Leading)
		require.LessOrEqual(t, time.Duration(store.longest.Load()), 2500*time.Millisecond, "a third of a lease")
		store.talks.Store(true)
		elapse(10 * time.Second)
		require.Len(t, members(t, store), 1)
		store.talks.Store(false)
		began := time.Now()
		require.NoError(t, green.end(t))
		require.LessOrEqual(t, time.Since(began), 500*time.Millisecond, "the note stays, and the end does not wait for it")
		require.Len(t, members(t, store), 1)
	})
}

func TestACatalogThatNobodyEverClaimedGetsNoNoteOfAMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		_, err := leader.Abort(t.Context(), store, catalog.Config{}, 1, leader.AbortOptions{By: "test"})
		require.NoError(t, err)
		handle, posts := counted(store)
		p := start(t, handle, config(1))
		elapse(time.Minute)
		require.NoError(t, p.end(t))
		require.Zero(t, posts.Load())
	})
}

func TestAMemberSurvivesAnOutageOfTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, named(1, "blue"))
		blue.await(t, leader.Leading)
		handle := store.Open()
		twin := start(t, handle, named(1, "twin"))
		elapse(3 * time.Second)
		require.Len(t, members(t, store), 2)
		handle.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		elapse(5 * time.Minute)
		require.Len(t, members(t, store), 1, "the holder has not heard it")
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" && c.N%2 == 0 {
				return memory.LoseAnswer
			}
			return memory.Pass
		})
		elapse(20 * time.Second)
		require.Equal(t, "twin 1 ReadyToPromote ready", members(t, store)[1])
		require.NoError(t, twin.end(t))
		require.NoError(t, blue.end(t))
		require.Empty(t, members(t, store))
	})
}

func TestWhatAMemberSaysIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		cfg := named(1, strings.Repeat("ä", 500))
		cfg.Catalog.Holder.Build = "b" + strings.Repeat("ä", 500)
		p := start(t, store, cfg)
		p.await(t, leader.Leading)
		p.words.Load().NotServing(strings.Repeat("x", 5000))
		elapse(3 * time.Second)
		notes, err := store.Notes(t.Context(), "member/")
		require.NoError(t, err)
		require.Len(t, notes, 1)
		require.Less(t, len(notes[0].Value), 1500)
		m := members(t, store)[0]
		require.NotContains(t, m, "\uFFFD", "cut within a letter")
		require.Contains(t, m, "…")
		require.NoError(t, p.end(t))
	})
}

func TestTheListOfMembersIsBoundedAndPassesOverWhatIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		now := time.Now()
		note(t, store, "0", leader.Member{Name: "old", At: now.Add(-time.Minute), Lease: 7.5})
		note(t, store, "1", leader.Member{Name: "ahead", At: now.Add(time.Hour), Lease: 7.5})
		for i, text := range []string{`"x"`, `{"generation":"x"}`, `{"lease_seconds":1e300,"at":"2999-01-01T00:00:00Z","phase":"Unheard of","later":[1]}`} {
			_, err := store.Post(t.Context(), driver.Note{Key: fmt.Sprint("member/2", i), Value: []byte(text)})
			require.NoError(t, err)
		}
		before, err := store.Notes(t.Context(), "")
		require.NoError(t, err)
		list, err := leader.ReadMembers(t.Context(), store, catalog.Config{})
		require.NoError(t, err)
		require.Equal(t, 2, list.Broken)
		require.False(t, list.More)
		require.Len(t, list.Members, 2)
		require.Equal(t, []string{"Unheard of", "ahead"}, []string{list.Members[0].Phase, list.Members[1].Name})
		require.Len(t, list.Unheard, 1)
		require.Equal(t, "old", list.Unheard[0].Name)
		after, err := store.Notes(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, before, after, "a list writes nothing")
		for i := range leader.MaxMembers {
			note(t, store, fmt.Sprint("3", i), leader.Member{At: now, Lease: 7.5})
		}
		list, err = leader.ReadMembers(t.Context(), store, catalog.Config{})
		require.NoError(t, err)
		require.True(t, list.More)
		require.Equal(t, leader.MaxMembers, len(list.Members)+len(list.Unheard)+list.Broken)
	})
}

// Old and new builds share the board: a field may be added, and none changed.
func TestTheNoteOfAMemberIsFrozen(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	text, err := json.Marshal(leader.Member{
		ID: "ab", Name: "n", Build: "b", Generation: 7, Phase: leader.Leading.String(), Since: at, Reason: "r", Ready: true, Serving: true,
		Token: &fence.Token{Generation: 7, Epoch: 41}, Revision: 9, Lease: 7.5, Seq: 3, At: at, Admin: "127.0.0.1:1", Peer: "10.0.0.1:2", Host: "h", Process: "p",
	})
	require.NoError(t, err)
	require.Equal(t, `{"id":"ab","name":"n","build":"b","generation":7,"phase":"Leading","since":"2026-01-02T03:04:05.000006Z","reason":"r","ready":true,"serving":true,`+
		`"token":"g7.e41","revision":9,"lease_seconds":7.5,"seq":3,"at":"2026-01-02T03:04:05.000006Z","admin":"127.0.0.1:1","peer":"10.0.0.1:2","host":"h","process":"p"}`, string(text))
}
