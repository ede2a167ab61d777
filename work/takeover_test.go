package work_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

func TestJobsOfASupersededProcessRunAgainUnderTheNextAndTheDeployCostsNoAttempt(t *testing.T) {
	inLab(t, func(l *lab) {
		old, young := newStage(), newStage()
		cfg := work.Config{Concurrency: 64, Kinds: []work.Kind{old.kind("sync")}}
		blue := l.openWith(1, cfg)
		blue.enqueueAll(requests("sync", 64)...)
		require.Len(l, old.ran(), 64)
		cfg.Kinds = []work.Kind{young.kind("sync")}
		green := l.openWith(2, cfg)
		require.Len(l, young.ran(), 64)
		for id := work.ID(1); id <= 64; id++ {
			run := young.last(id)
			require.Equal(l, [3]int{1, 1, 0}, [3]int{run.Attempt, run.Interrupted, run.Crashed})
			require.Equal(l, blue.c.Token(), run.From)
			require.Equal(l, green.c.Token(), run.Token)
		}
		l.after(time.Second) // blue notices by its poll
		require.ErrorIs(l, old.cause(1), fence.ErrSuperseded)
		require.ErrorIs(l, <-blue.done, fence.ErrSuperseded)
		blue.done <- nil
		st := green.status()
		require.EqualValues(l, 64, st.Totals.AfterDeploy)
		taken := st.Takeovers[0]
		require.True(l, taken.Deploy())
		require.Equal(l, [2]int{64, 64}, [2]int{taken.Orphans, taken.Recovered})
		require.Equal(l, blue.c.Token(), taken.From)
		require.Positive(l, taken.First)
	})
}

func TestAZombiesCompletionIsRefused(t *testing.T) {
	inLab(t, func(l *lab) {
		old, young := newStage(), newStage()
		blue := l.open(1, old.kind("sync"))
		id := blue.enqueue("sync", "", "a")
		zombie := old.last(id)
		green := l.open(2, young.kind("sync"))
		require.ErrorIs(l, blue.c.Update(l.Context(), zombie.Complete), fence.ErrSuperseded)
		// Nor does it pass by the new holder's handle.
		require.ErrorIs(l, green.c.Update(l.Context(), zombie.Complete), work.ErrNotMine)
		require.Equal(l, map[work.State]int{work.Running: 1}, green.states())
		young.end(id, nil)
		require.EqualValues(l, 1, green.status().Totals.Completed)
	})
}

func TestARunOfAnOlderTokenChangesNothingByANewerHandleBeforeItsJobIsClaimedAnewEither(t *testing.T) {
	inLab(t, func(l *lab) {
		old := newStage()
		blue := l.open(1, old.kind("sync"))
		zombie := old.last(blue.enqueue("sync", "", "a"))
		green := l.open(2) // it does not know the kind, so that the job stays as it is
		require.ErrorIs(l, green.c.Update(l.Context(), zombie.Complete), work.ErrNotMine)
		progress := func(tx *catalog.Tx) error { return zombie.SetProgress(tx, []byte("half")) }
		require.ErrorIs(l, green.c.Update(l.Context(), progress), work.ErrNotMine)
		require.Equal(l, map[work.State]int{work.Unknown: 1}, green.states())
	})
}

func TestARunThatReturnsBehindTheFenceChangesNothing(t *testing.T) {
	inLab(t, func(l *lab) {
		release, young := make(chan struct{}), newStage()
		blue := l.open(1, work.Kind{Name: "sync", Run: func(context.Context, *work.Job) error { <-release; return nil }})
		id := blue.enqueue("sync", "", "a")
		green := l.open(2, young.kind("sync"))
		close(release)
		l.after(time.Second)
		require.ErrorIs(l, <-blue.done, fence.ErrSuperseded)
		blue.done <- nil
		require.Equal(l, map[work.State]int{work.Running: 1}, green.states())
		require.Zero(l, green.status().Totals.Completed)
		young.end(id, nil)
	})
}

func TestACrashCostsAnAttemptAndAPoisonJobThatKillsItsProcessEndsOnTheDeadList(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("poison")
		k.MaxAttempts = 3
		p := l.open(1, k)
		id := p.enqueue("poison", "", "a")
		for range 3 { // each process dies while the job runs
			p = l.open(1, k)
		}
		require.Len(l, s.ran(), 3)
		info := p.job(id)
		require.Equal(l, work.Exhausted, info.Reason)
		require.Contains(l, info.Text, "its process ended 3 times while it ran, the last time under g1.e3; 3 attempts are allowed")
		st := p.status()
		require.Equal(l, 1, st.Takeovers[0].Recovered)
		require.False(l, st.Takeovers[0].Deploy())
	})
}

func TestFiftyDeploysDuringOneLongJobCostNoAttempt(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("dump"))
		id := p.enqueue("dump", "", "a")
		for range 50 {
			p = l.open(p.c.Token().Generation+1, s.kind("dump"))
		}
		require.Equal(l, [3]int{1, 50, 0}, [3]int{s.last(id).Attempt, s.last(id).Interrupted, s.last(id).Crashed})
	})
}

func TestARequestedStopGivesJobsBackAndCostsNoAttempt(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		id := p.enqueue("sync", "", "a")
		require.ErrorIs(l, p.quit(), errStopped)
		require.ErrorIs(l, s.cause(id), errStopped)
		require.ErrorIs(l, p.c.Update(l.Context(), s.last(id).Complete), work.ErrNotMine, "it was given back")
		// Another process of the generation takes over, and then a pause ends.
		p = l.open(1, s.kind("sync"))
		require.Equal(l, [3]int{1, 1, 0}, [3]int{s.last(id).Attempt, s.last(id).Interrupted, s.last(id).Crashed})
		require.ErrorIs(l, p.quit(), errStopped)
		p.work(work.Config{Kinds: []work.Kind{s.kind("sync")}})
		require.Equal(l, [3]int{1, 2, 0}, [3]int{s.last(id).Attempt, s.last(id).Interrupted, s.last(id).Crashed})
		st := p.status()
		require.EqualValues(l, 2, st.Totals.Released)
		require.Len(l, st.Takeovers, 2, "a pause is none")
		s.end(id, nil)
	})
}

func TestWhatReturnsDuringAStopIsStillCompleted(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1, work.Kind{Name: "sync", Run: func(ctx context.Context, _ *work.Job) error {
			<-ctx.Done()
			<-time.After(time.Second)
			return nil
		}})
		p.enqueue("sync", "", "a")
		require.ErrorIs(l, p.quit(), errStopped)
		p.work(work.Config{})
		require.EqualValues(l, 1, p.status().Totals.Completed)
	})
}

func TestRunSaysWhichRunsDoNotReturnWithinGrace(t *testing.T) {
	inLab(t, func(l *lab) {
		release := make(chan struct{})
		defer close(release)
		p := l.open(1, work.Kind{Name: "sync", Run: func(context.Context, *work.Job) error { <-release; return nil }})
		p.enqueue("sync", "serde", "a")
		begun := time.Now()
		err := p.quit()
		require.ErrorIs(l, err, work.ErrStillRunning)
		require.ErrorContains(l, err, "1 of them")
		require.WithinDuration(l, begun.Add(10*time.Second), time.Now(), time.Second)
	})
}

func TestAClaimWhoseAnswerIsLostIsStartedAndNotMadeAgain(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		p.enqueueAll(work.Request{Kind: "sync", RunAt: time.Now().Add(time.Hour)})
		var lost atomic.Bool
		p.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Append" && !lost.Swap(true) {
				return memory.LoseAnswer
			}
			return memory.Pass
		})
		l.after(time.Hour + time.Minute)
		require.True(l, lost.Load())
		require.Len(l, s.ran(), 1)
		require.Equal(l, 1, s.last(1).Attempt)
		s.end(1, nil)
		st := p.status()
		require.Zero(l, st.Live)
		require.EqualValues(l, 1, st.Totals.Claims())
	})
}

func TestAQueueGivesBackWhatTheOneBeforeItOnTheHandleHasClaimed(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		id := p.enqueue("sync", "", "its run is interrupted")
		old := s.last(id)
		p.enqueueAll(work.Request{Kind: "sync", RunAt: time.Now().Add(time.Hour), Payload: []byte("its claim lands unseen")})
		p.hold()
		l.after(time.Hour)
		p.stop(errStopped)
		l.after(20 * time.Second)
		require.ErrorIs(l, <-p.done, errStopped)
		require.Len(l, s.ran(), 1)
		p.let()
		p.work(work.Config{Kinds: []work.Kind{s.kind("sync")}})
		l.after(time.Minute)
		require.Len(l, s.ran(), 3)
		require.ErrorIs(l, p.c.Update(l.Context(), old.Complete), work.ErrNotMine)
		st := p.status()
		require.EqualValues(l, 2, st.Totals.Claimed())
		require.EqualValues(l, 2, st.Totals.Released)
		for _, id := range []work.ID{id, id + 1} {
			require.Equal(l, [3]int{1, 1, 0}, [3]int{s.last(id).Attempt, s.last(id).Interrupted, s.last(id).Crashed})
			s.end(id, nil)
		}
		require.Zero(l, p.status().Live)
	})
}

func TestACompletionWhoseAnswerIsLostIsMadeOnce(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		id := p.enqueue("sync", "", "a")
		var lost atomic.Bool
		p.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Append" && !lost.Swap(true) {
				return memory.LoseAnswer
			}
			return memory.Pass
		})
		s.end(id, nil)
		l.after(time.Minute)
		require.True(l, lost.Load())
		st := p.status()
		require.Zero(l, st.Live)
		require.EqualValues(l, 1, st.Totals.Completed)
		require.Len(l, s.ran(), 1)
	})
}

func TestAStoreThatIsAwayDelaysWorkAndLosesNone(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		a := p.enqueue("sync", "", "a")
		p.enqueue("sync", "", "b")
		p.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Append" || c.Method == "Head" {
				return memory.Refuse
			}
			return memory.Pass
		})
		s.end(a, nil)
		l.after(5 * time.Minute) // longer than RetryBudget
		p.store.Inject(nil)
		l.after(15 * time.Second)
		st := p.status()
		require.EqualValues(l, 1, st.Totals.Completed)
		require.Equal(l, 1, st.States[work.Running])
		require.Len(l, s.ran(), 2)
	})
}

func TestAKindThatOnlyTheNextBuildKnowsIsKeptAndRunByThat(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		blue := l.open(1, s.kind("sync"))
		blue.enqueueAll(work.Request{Kind: "readme", Payload: []byte("r")}, work.Request{Kind: "sync", Payload: []byte("s")})
		require.Equal(l, []string{"s"}, s.ran())
		require.Equal(l, map[work.State]int{work.Unknown: 1, work.Running: 1}, blue.states())
		l.after(time.Hour)
		require.Equal(l, map[work.State]int{work.Unknown: 1, work.Running: 1}, blue.states())
		report, err := blue.q.Pass(l.Context())
		require.NoError(l, err)
		require.Zero(l, report.Waiting)
		green := l.open(2, s.kind("sync"), s.kind("readme"))
		require.Equal(l, map[work.State]int{work.Running: 2}, green.states())
		// A rollback is a higher generation with the old code.
		back := l.open(3, s.kind("sync"))
		require.Equal(l, map[work.State]int{work.Unknown: 1, work.Running: 1}, back.states())
	})
}

func TestAPinnedJobIsStrandedUnderAnotherGenerationUntilItIsReassigned(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		pinned := s.kind("migrate")
		pinned.Pin = work.SameGeneration
		blue := l.open(1, s.kind("sync"), pinned)
		byKind := blue.enqueue("migrate", "", "kind")
		byJob := blue.enqueueAll(work.Request{Kind: "sync", Generation: 1, Payload: []byte("job")})
		future := blue.enqueueAll(work.Request{Kind: "sync", Generation: 2, Payload: []byte("future")})
		require.Equal(l, map[work.State]int{work.Running: 2, work.Stranded: 1}, blue.states())
		green := l.open(2, s.kind("sync"), pinned)
		require.Equal(l, map[work.State]int{work.Running: 1, work.Stranded: 2}, green.states())
		require.Equal(l, green.c.Token(), s.last(future).Token)
		green.update(func(tx *catalog.Tx) error {
			n, err := work.Reassign(tx, work.Owner{Generation: 1})
			require.Equal(l, 2, n)
			return err
		})
		require.Equal(l, map[work.State]int{work.Running: 3}, green.states())
		for _, id := range []work.ID{byKind, byJob} {
			require.Equal(l, green.c.Token(), s.last(id).Token)
			require.Equal(l, "generation 1", green.job(id).From)
		}
		for _, owner := range []work.Owner{{}, {Generation: 2}, {Generation: 3}, {Generation: 1, Member: "x"}} {
			err := green.c.Update(l.Context(), func(tx *catalog.Tx) error { _, err := work.Reassign(tx, owner); return err })
			require.ErrorIs(l, err, work.ErrInvalid, "%+v", owner)
		}
	})
}

func TestAJobOfAMemberThatIsGoneIsStrandedOrTakenOver(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		taken := s.kind("taken")
		taken.Stranded = work.TakeOver
		p := l.open(1, s.kind("kept"), taken)
		kept := p.enqueueAll(work.Request{Kind: "kept", Member: "db1"}, work.Request{Kind: "taken", Member: "db1"})
		require.Equal(l, map[work.State]int{work.Running: 1, work.Stranded: 1}, p.states())
		require.NotNil(l, s.last(kept+1))
		p.update(func(tx *catalog.Tx) error { _, err := work.Reassign(tx, work.Owner{Member: "db1"}); return err })
		require.Equal(l, "member db1", p.job(kept).From)
		require.Equal(l, map[work.State]int{work.Running: 2}, p.states())
	})
}

func TestAJobForAGenerationToComeIsNotTakenOverBefore(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Stranded = work.TakeOver
		p := l.open(1, k)
		p.enqueueAll(work.Request{Kind: "sync", Generation: 2})
		require.Equal(l, map[work.State]int{work.Stranded: 1}, p.states())
		p = l.open(3, k)
		require.Equal(l, map[work.State]int{work.Running: 1}, p.states())
	})
}

func TestAnOrphanOfALatestKeyIsCoveredByTheNewestJob(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.Order = work.Latest
		blue := l.open(1, k)
		blue.enqueue("sync", "serde", "1")
		blue.enqueue("sync", "serde", "2")
		green := l.open(2, k)
		require.Equal(l, []string{"1", "2"}, s.ran())
		run := s.last(2)
		require.Equal(l, [4]int{1, 1, 0, 1}, [4]int{run.Attempt, run.Interrupted, run.Crashed, run.Merged})
		require.NoError(l, green.status().Sums(), "the run that it takes over has ended")
		s.end(2, nil)
		st := green.status()
		require.Zero(l, st.Live)
		require.Zero(l, st.Totals.Claimed())
	})
}

func TestNoPassStartsAJobTwiceOrMissesOne(t *testing.T) {
	inLab(t, func(l *lab) {
		started := map[work.ID]int{}
		p := l.open(1, instantly("sync", func(j *work.Job) error { started[j.ID]++; return nil }))
		const jobs = 3142
		passes, stop := 0, make(chan struct{})
		forced := make(chan struct{})
		go func() {
			defer close(forced)
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := p.q.Pass(l.Context())
				if errors.Is(err, work.ErrNotRunning) {
					return
				}
				require.NoError(l, err)
				require.Zero(l, r.LostClaims)
				passes++
			}
		}()
		for range jobs / 2 {
			require.NoError(l, p.c.Update(l.Context(), func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, requests("sync", 2)...); return err }))
		}
		require.NoError(l, p.q.Idle(l.Context()))
		close(stop)
		<-forced
		require.GreaterOrEqual(l, passes, 94)
		require.Len(l, started, jobs)
		for id, n := range started {
			require.Equal(l, 1, n, "job %d", id)
		}
		totals := p.status().Totals
		require.EqualValues(l, jobs, totals.Completed)
		require.EqualValues(l, jobs, totals.Fresh, "recovered 0")
	})
}
