package work_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

func TestEachRunsTheJobsOfAKeyOneByOneInTheirOrder(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("op")
		k.Order = work.Each
		k.Retry = func(int) time.Duration { return 10 * time.Minute }
		p := l.open(1, k)
		for _, payload := range []string{"a1", "a2", "b1", "a3"} {
			p.enqueue("op", payload[:1], payload)
		}
		require.Equal(l, []string{"a1", "b1"}, s.ran())
		require.Equal(l, map[work.State]int{work.Running: 2, work.Blocked: 2}, p.states())
		s.end(1, errAway)
		require.Equal(l, map[work.State]int{work.Running: 1, work.Backoff: 1, work.Blocked: 2}, p.states(), "a key waits for its oldest job's retry")
		blocked := p.status().Blocked
		require.Len(l, blocked, 1)
		require.Equal(l, work.ID(1), blocked[0].Behind)
		require.Equal(l, 2, blocked[0].Jobs)
		require.Equal(l, "the index is away", blocked[0].Error)
		l.after(10 * time.Minute)
		s.end(1, nil)
		s.end(2, nil)
		s.end(4, nil)
		require.Equal(l, []string{"a1", "b1", "a1", "a2", "a3"}, s.ran())
	})
}

func TestAnAbandonedJobReleasesTheKeyAndARetriedOneGoesFirst(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("op")
		k.Order, k.MaxAttempts = work.Each, 1
		p := l.open(1, k)
		p.enqueueAll(work.Request{Kind: "op", Payload: []byte("1")}, work.Request{Kind: "op", Payload: []byte("2")}, work.Request{Kind: "op", Payload: []byte("3")})
		p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, 1, "wrong") })
		require.Equal(l, []string{"1", "2"}, s.ran())
		p.update(func(tx *catalog.Tx) error { return work.Retry(tx, 1) })
		require.Equal(l, []string{"1", "2"}, s.ran(), "but not beside the one that runs")
		s.end(2, nil)
		require.Equal(l, []string{"1", "2", "1"}, s.ran())
		s.end(1, nil)
		s.end(3, nil)
		require.Zero(l, p.status().Live)
	})
}

func TestLatestRunsTheNewestJobOfAKeyOnceForAllThatWait(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Order = work.Latest
		p := l.open(1, k)
		for _, payload := range []string{"1", "2", "3", "4"} {
			p.enqueue("sync", "serde", payload)
		}
		require.Equal(l, []string{"1"}, s.ran(), "what is enqueued during a run is no part of it")
		s.end(1, nil)
		require.Equal(l, []string{"1", "4"}, s.ran())
		require.Equal(l, 2, s.last(4).Merged)
		p.enqueue("sync", "serde", "5")
		p.enqueue("sync", "rand", "other")
		s.end(4, nil)
		require.Equal(l, []string{"1", "4", "other", "5"}, s.ran(), "and none is lost")
		s.end(5, nil)
		s.end(6, nil)
		st := p.status()
		require.Zero(l, st.Live)
		require.EqualValues(l, 4, st.Totals.Completed)
		require.EqualValues(l, 2, st.Totals.Merged)
	})
}

func TestLatestLeavesAJobOfALaterTimeAndWaitsForTheRetryOfItsKey(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Order, k.Retry = work.Latest, func(int) time.Duration { return 10 * time.Minute }
		p := l.open(1, k)
		p.enqueueAll(work.Request{Kind: "sync", Payload: []byte("later"), RunAt: time.Now().Add(3 * time.Hour)}, work.Request{Kind: "sync", Payload: []byte("now")})
		require.Equal(l, []string{"now"}, s.ran())
		s.end(2, errAway)
		p.enqueue("sync", "", "newer")
		require.Equal(l, map[work.State]int{work.Scheduled: 1, work.Backoff: 1, work.Blocked: 1}, p.states())
		require.Equal(l, []string{"now"}, s.ran(), "a newer job does not shorten the wait for what is away")
		blocked := p.status().Blocked
		require.Len(l, blocked, 1)
		require.Equal(l, work.ID(2), blocked[0].Behind, "the one whose retry it waits for")
		require.Equal(l, "the index is away", blocked[0].Error)
		l.after(10 * time.Minute)
		require.Equal(l, []string{"now", "newer"}, s.ran())
		require.Equal(l, 2, s.last(3).Attempt, "nor does it begin the attempts anew")
		s.end(3, nil)
		require.Equal(l, map[work.State]int{work.Scheduled: 1}, p.states())
		l.after(3 * time.Hour)
		require.Equal(l, []string{"now", "newer", "later"}, s.ran())
	})
}

func TestLatestLeavesANewerJobWhoseTimeIsToCome(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Order = work.Latest
		p := l.open(1, k)
		p.enqueueAll(work.Request{Kind: "sync", Payload: []byte("now")}, work.Request{Kind: "sync", Payload: []byte("later"), RunAt: time.Now().Add(time.Hour)})
		require.Equal(l, []string{"now"}, s.ran())
		s.end(1, nil)
		require.Equal(l, map[work.State]int{work.Scheduled: 1}, p.states())
	})
}

func TestAJobThatIsEnqueuedWhileTheClaimOfItsKeyIsOnItsWayRunsAfterwards(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Order = work.Latest
		p := l.openWith(1, work.Config{Concurrency: 1, Kinds: []work.Kind{k}})
		p.enqueueAll(work.Request{Kind: "sync", Key: "a", Payload: []byte("a1")}, work.Request{Kind: "sync", Key: "b", Payload: []byte("b1")})
		p.behind(func(tx *catalog.Tx) error { _, err := work.Enqueue(tx, "sync", "b", []byte("b2")); return err }, func() { s.end(1, nil) })
		require.Equal(l, []string{"a1", "b1"}, s.ran())
		require.Zero(l, s.last(2).Merged)
		s.end(2, nil)
		require.Equal(l, []string{"a1", "b1", "b2"}, s.ran())
	})
}

func TestAmongTheOldestJobsOfTheirKeysTheHigherPriorityRunsFirst(t *testing.T) {
	inLab(t, func(l *lab) {
		for _, order := range []work.Order{work.Each, work.Latest} {
			var ran []string
			k := instantly(order.String(), func(j *work.Job) error { ran = append(ran, j.Key); return nil })
			k.Order, k.Concurrency = order, 1
			p := l.open(1, k)
			p.enqueueAll(work.Request{Kind: k.Name, Key: "a"}, work.Request{Kind: k.Name, Key: "b", Priority: 1}, work.Request{Kind: k.Name, Key: "c", Priority: 2})
			require.Equal(l, []string{"c", "b", "a"}, ran, "%v", order)
		}
	})
}

func TestAKeyWaitsForNoRetryOfAJobThatWasAbandoned(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Order = work.Latest
		p := l.open(1, k)
		p.enqueue("sync", "serde", "1")
		s.end(1, errAway)
		p.enqueue("sync", "serde", "2")
		require.Equal(l, []string{"1"}, s.ran())
		p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, 1, "wrong") })
		require.Equal(l, []string{"1", "2"}, s.ran())
	})
}

func TestALatestJobThatIsExhaustedTakesWhatItCoversAlong(t *testing.T) {
	inLab(t, func(l *lab) {
		k := instantly("sync", func(*work.Job) error { return errAway })
		k.Order, k.MaxAttempts = work.Latest, 1
		p := l.open(1, k)
		p.enqueueAll(work.Request{Kind: "sync", Payload: []byte("1")}, work.Request{Kind: "sync", Payload: []byte("2")})
		st := p.status()
		require.Zero(l, st.Live)
		require.Equal(l, 1, st.Dead)
		require.Equal(l, "2", string(p.job(2).Payload), "the newest state is kept")
	})
}

func TestACoalescedRunCompletesAllItsJobsInOneCommitOfItsOwn(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Order = work.Latest
		p := l.open(1, k)
		p.enqueueAll(work.Request{Kind: "sync"}, work.Request{Kind: "sync"}, work.Request{Kind: "sync"})
		p.update(s.last(3).Complete)
		require.Zero(l, p.status().Live)
		require.NoError(l, s.cause(3), "its run goes on until it returns")
		s.end(3, nil)
		require.EqualValues(l, 1, p.status().Totals.Completed)
	})
}

// A guardedIndex is an index outside of the catalog, which refuses what an older
// token says.
type guardedIndex struct {
	mu     sync.Mutex
	newest fence.Token
	yanked map[string]bool
}

func (x *guardedIndex) set(j *work.Job, yanked bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if j.Token.Compare(x.newest) < 0 {
		return errors.New("an older token")
	}
	x.newest, x.yanked[j.Key] = j.Token, yanked
	return nil
}

func TestYankAndUnyankInQuickSuccessionEndWithIndexEqualToDatabase(t *testing.T) {
	inLab(t, func(l *lab) {
		r := rand.New(rand.NewPCG(1, 2))
		database, index := catalog.JSON[bool]("crates"), guardedIndex{yanked: map[string]bool{}}
		const crates = 20
		var current atomic.Pointer[process]
		k := work.Kind{Name: "sync", Order: work.Latest, Retry: func(int) time.Duration { return time.Second }, Run: func(ctx context.Context, j *work.Job) error {
			var yanked bool
			if err := current.Load().c.View(func(r *catalog.Reader) (err error) { yanked, _, err = database.Get(r, j.Key); return err }); err != nil {
				return err
			}
			select { // the state was read, and may have changed by the time that it is written
			case <-time.After(rand.N(20 * time.Millisecond)):
			case <-ctx.Done():
				return ctx.Err()
			}
			if rand.N(5) == 0 {
				return errAway
			}
			return index.set(j, yanked)
		}}
		k.Concurrency = 1
		p := l.open(1, k)
		current.Store(p)
		for i := range 1000 {
			crate := fmt.Sprint(r.IntN(crates))
			p.update(func(tx *catalog.Tx) error {
				was, _, err := database.Get(tx, crate)
				if err != nil {
					return err
				}
				if err := database.Set(tx, crate, !was); err != nil {
					return err
				}
				_, err = work.Enqueue(tx, "sync", crate, nil)
				return err
			})
			if i%97 == 0 {
				l.after(rand.N(30 * time.Millisecond))
			}
			if i%250 == 249 { // a deploy, while something runs
				p = l.open(p.c.Token().Generation+1, k)
				current.Store(p)
			}
		}
		l.after(10 * time.Minute)
		require.Zero(l, p.status().Live)
		require.NoError(l, p.c.View(func(r *catalog.Reader) error {
			return database.Scan(r, "", func(crate string, yanked bool) bool {
				require.Equal(l, yanked, index.yanked[crate], "crate %s", crate)
				return true
			})
		}))
	})
}

func TestAKeyWithManyJobsCostsNoMoreThanOthers(t *testing.T) {
	inLab(t, func(l *lab) {
		n := 0
		k := instantly("op", func(*work.Job) error { n++; return nil })
		k.Order = work.Each
		p := l.open(1, k)
		for range 4 {
			all := make([]work.Request, 500)
			for i := range all {
				all[i] = work.Request{Kind: "op", Key: "hot"}
			}
			p.enqueueAll(all...)
		}
		require.NoError(l, p.q.Idle(l.Context()))
		require.Equal(l, 2_000, n)
	})
}

func TestTheNextJobOfAKeyWaitsUntilARunHasReturnedWhoseJobIsCompletedOrAbandoned(t *testing.T) {
	for _, order := range []work.Order{work.Each, work.Latest} {
		t.Run(order.String(), func(t *testing.T) {
			inLab(t, func(l *lab) {
				returns, s := make(chan struct{}), newStage()
				k := work.Kind{Name: "sync", Order: order, Run: func(_ context.Context, j *work.Job) error { s.begin(j); <-returns; return nil }}
				p := l.open(1, k)
				p.enqueue("sync", "serde", "completed")
				p.update(s.last(1).Complete)
				id := p.enqueue("sync", "serde", "abandoned")
				l.after(time.Minute)
				require.Equal(l, []string{"completed"}, s.ran(), "its run goes on")
				returns <- struct{}{}
				l.settle()
				require.Equal(l, []string{"completed", "abandoned"}, s.ran())
				p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, id, "it hangs") })
				p.enqueue("sync", "serde", "next")
				p.enqueue("sync", "tokio", "of another key")
				l.after(time.Minute)
				require.Equal(l, []string{"completed", "abandoned", "of another key"}, s.ran())
				close(returns)
				l.settle()
				require.Equal(l, []string{"completed", "abandoned", "of another key", "next"}, s.ran())
			})
		})
	}
}

// twoOrphans leaves two runs of one key under older tokens, since the older job could
// not run under the token between.
func twoOrphans(l *lab, s *stage) (k work.Kind, older, newer work.ID) {
	k = s.kind("sync")
	k.Order = work.Latest
	p := l.open(1, k)
	older = p.enqueueAll(work.Request{Kind: "sync", Key: "serde", Generation: 1, Payload: []byte("older")})
	p = l.open(2, k)
	newer = p.enqueue("sync", "serde", "newer")
	p.update(func(tx *catalog.Tx) error { _, err := work.Reassign(tx, work.Owner{Generation: 1}); return err })
	return k, older, newer
}

func TestAJobOfALatestKeyTakesOverEveryRunOfTheKey(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k, _, newer := twoOrphans(l, s)
		p := l.open(2, k)
		require.Equal(l, []string{"older", "newer", "newer"}, s.ran())
		st := p.status()
		require.EqualValues(l, 1, st.Totals.Claimed())
		require.Equal(l, [2]int{2, 2}, [2]int{st.Takeovers[0].Orphans, st.Takeovers[0].Recovered})
		s.end(newer, nil)
		st = p.status()
		require.Zero(l, st.Live)
		require.Zero(l, st.Totals.Claimed())
	})
}

func TestAJobIsNotClaimedAsItWasPlannedIfOneThatItTakesOverHasChanged(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k, older, newer := twoOrphans(l, s)
		p := l.openWith(2, work.Config{Kinds: []work.Kind{s.kind("other")}})
		p.enqueueAll(work.Request{Kind: "other", Priority: 9})
		require.ErrorIs(l, p.quit(), errStopped)
		p.work(work.Config{Kinds: []work.Kind{s.kind("other"), k}, Concurrency: 1})
		require.NotNil(l, s.last(newer+1))
		land := make(chan struct{})
		p.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Append" {
				<-land
			}
			return memory.Pass
		})
		updates := []func(*catalog.Tx) error{
			func(tx *catalog.Tx) error { return catalog.Bytes("other").Set(tx, "a", nil) },
			func(tx *catalog.Tx) error { return work.Abandon(tx, older, "it is given up meanwhile") },
		}
		for _, update := range updates {
			go func() { _ = p.c.Update(l.Context(), update) }()
			l.settle()
		}
		s.end(newer+1, nil) // the pass plans before the job is given up, and writes behind that
		close(land)
		l.settle()
		require.Equal(l, p.c.Token(), s.last(newer).Token)
		st := p.status()
		require.Equal(l, map[work.State]int{work.Running: 1}, p.states())
		require.EqualValues(l, 1, st.Totals.Claimed())
		require.EqualValues(l, 1, st.Dead)
	})
}
