package work_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/work"
)

func TestAJobIsEnqueuedInTheCommitOfTheStateItBelongsTo(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		before := p.c.Head().Revision
		shelf := catalog.Bytes("crates")
		refused := errors.New("the crate is not valid")
		err := p.c.Update(l.Context(), func(tx *catalog.Tx) error {
			if _, err := work.Enqueue(tx, "sync", "serde", nil); err != nil {
				return err
			}
			return refused
		})
		require.ErrorIs(l, err, refused)
		l.settle()
		require.Empty(l, s.ran(), "what was rolled back does not run")
		require.Equal(l, before, p.c.Head().Revision)
		p.update(func(tx *catalog.Tx) error {
			if err := shelf.Set(tx, "serde", []byte("1.0")); err != nil {
				return err
			}
			_, err := work.Enqueue(tx, "sync", "serde", []byte("a"))
			return err
		})
		require.Equal(l, []string{"a"}, s.ran())
	})
}

func TestAJobThatSucceedsIsGone(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1, instantly("sync", succeed))
		p.enqueue("sync", "", "a")
		st := p.status()
		require.Zero(l, st.Live)
		require.EqualValues(l, 1, st.Totals.Completed)
	})
}

func TestAJobThatFailsRunsAgainBehindItsWaitAndTheWaitsDouble(t *testing.T) {
	inLab(t, func(l *lab) {
		var at []time.Time
		p := l.open(1, work.Kind{Name: "sync", Run: func(_ context.Context, j *work.Job) error {
			at = append(at, time.Now())
			require.Equal(l, len(at), j.Attempt)
			if len(at) < 4 {
				return errAway
			}
			return nil
		}, Retry: func(n int) time.Duration { return time.Minute << (n - 1) }})
		id := p.enqueue("sync", "", "a")
		require.Equal(l, map[work.State]int{work.Backoff: 1}, p.states())
		require.Equal(l, "the index is away", p.job(id).Error)
		l.after(time.Hour)
		require.Len(l, at, 4)
		for i, wait := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
			require.WithinDuration(l, at[i].Add(wait), at[i+1], 100*time.Millisecond)
		}
		require.Zero(l, p.status().Live)
	})
}

func TestDefaultRetryWaitsFromASecondToTenMinutes(t *testing.T) {
	t.Parallel()
	for n, longest := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 9: 256 * time.Second, 10: 10 * time.Minute, 1_000_000: 10 * time.Minute} {
		for range 100 {
			wait := work.DefaultRetry(n)
			require.LessOrEqual(t, wait, longest)
			require.Greater(t, wait, longest/2-1)
		}
	}
}

func TestARunThatPanicsOrEndsItsGoroutineHasFailedAndNothingElseHas(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1, instantly("panics", func(*work.Job) error { panic("no such crate") }),
			instantly("exits", func(*work.Job) error { runtime.Goexit(); return nil }), instantly("sync", succeed))
		panics, exits := p.enqueue("panics", "", ""), p.enqueue("exits", "", "")
		require.Contains(l, p.job(panics).Error, "panic: no such crate\n")
		require.Contains(l, p.job(panics).Error, "queue_test.go")
		require.Contains(l, p.job(exits).Error, "Goexit")
		p.enqueue("sync", "", "")
		require.EqualValues(l, 1, p.status().Totals.Completed)
	})
}

func TestAPoisonJobEndsOnTheDeadListAndAPersonMovesItBack(t *testing.T) {
	inLab(t, func(l *lab) {
		runs, fails := 0, true
		p := l.open(1, work.Kind{Name: "sync", MaxAttempts: 3, Run: func(context.Context, *work.Job) error {
			runs++
			if fails {
				return errAway
			}
			return nil
		}})
		id := p.enqueue("sync", "serde", "a")
		l.after(time.Hour)
		require.Equal(l, 3, runs)
		info := p.job(id)
		require.Equal(l, work.Exhausted, info.Reason)
		require.Equal(l, "the index is away", info.Text)
		require.Equal(l, 3, info.Attempt)
		st := p.status()
		require.Equal(l, 1, st.Dead)
		require.Zero(l, st.Live)
		require.True(l, st.Failures[0].Dead)
		fails = false
		p.update(func(tx *catalog.Tx) error { return work.Retry(tx, id) })
		require.Equal(l, 4, runs)
		st = p.status()
		require.Zero(l, st.Live+st.Dead)
		require.ErrorIs(l, p.c.Update(l.Context(), func(tx *catalog.Tx) error { return work.Retry(tx, id) }), work.ErrNotFound)
	})
}

func TestARetryByAPersonEndsTheWaitOfALiveJob(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		id := p.enqueue("sync", "", "a")
		p.update(func(tx *catalog.Tx) error { return work.Retry(tx, id) })
		require.Len(l, s.ran(), 1, "one that runs is left alone")
		s.end(id, errAway)
		require.Len(l, s.ran(), 1)
		p.update(func(tx *catalog.Tx) error { return work.Retry(tx, id) })
		require.Len(l, s.ran(), 2)
	})
}

func TestAPermanentErrorTakesOneAttempt(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1, instantly("sync", func(*work.Job) error { return fmt.Errorf("sync: %w", work.Permanent(errAway)) }))
		id := p.enqueue("sync", "", "")
		require.Equal(l, work.Refused, p.job(id).Reason)
		require.NoError(l, work.Permanent(nil))
		require.ErrorIs(l, work.Permanent(errAway), errAway)
		p.update(func(tx *catalog.Tx) error { return work.Clear(tx, id) })
		require.Zero(l, p.status().Dead)
		require.ErrorIs(l, p.c.Update(l.Context(), func(tx *catalog.Tx) error { return work.Clear(tx, id) }), work.ErrNotDead)
	})
}

func TestAJobThatIsNotDoneYetRunsAgainAndThatIsNoFailure(t *testing.T) {
	inLab(t, func(l *lab) {
		runs := 0
		p := l.open(1, work.Kind{Name: "wait", MaxAttempts: 1, Run: func(_ context.Context, j *work.Job) error {
			require.Equal(l, 1, j.Attempt)
			if runs++; runs < 30 {
				return work.Later(time.Minute)
			}
			return nil
		}})
		p.enqueue("wait", "", "")
		require.Equal(l, map[work.State]int{work.Backoff: 1}, p.states())
		l.after(time.Hour)
		require.Equal(l, 30, runs)
		st := p.status()
		require.Zero(l, st.Totals.Failed)
		require.EqualValues(l, 1, st.Totals.Completed)
	})
}

func TestAnAbandonedRunEndsAndCompletesNothing(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		id := p.enqueue("sync", "", "a")
		run := s.last(id)
		p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, id, "it deletes the wrong crate") })
		require.ErrorIs(l, s.cause(id), work.ErrAbandoned)
		require.ErrorIs(l, p.c.Update(l.Context(), run.Complete), work.ErrNotMine)
		require.Equal(l, work.Abandoned, p.job(id).Reason)
		require.Equal(l, "it deletes the wrong crate", p.job(id).Text)
		// The run that a person begins anew is another one.
		p.update(func(tx *catalog.Tx) error { return work.Retry(tx, id) })
		require.ErrorIs(l, p.c.Update(l.Context(), run.Complete), work.ErrNotMine)
		require.ErrorIs(l, p.c.Update(l.Context(), func(tx *catalog.Tx) error { return run.SetProgress(tx, []byte("x")) }), work.ErrNotMine)
		s.end(id, nil)
		require.Zero(l, p.status().Live)
		for _, reason := range []string{"", strings.Repeat("x", work.MaxReason+1)} {
			err := p.c.Update(l.Context(), func(tx *catalog.Tx) error { return work.Abandon(tx, id, reason) })
			require.ErrorIs(l, err, work.ErrInvalid)
		}
	})
}

func TestAJobThatIsRetriedWhileItsOldRunHasNotReturnedWaitsForThat(t *testing.T) {
	inLab(t, func(l *lab) {
		release := make(chan struct{})
		running, most := 0, 0
		p := l.open(1, work.Kind{Name: "sync", Run: func(ctx context.Context, j *work.Job) error {
			running++
			most = max(most, running)
			defer func() { running-- }()
			if j.Attempt == 1 {
				<-release // it ignores its context
			}
			return nil
		}})
		id := p.enqueue("sync", "", "")
		p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, id, "it hangs") })
		p.update(func(tx *catalog.Tx) error { return work.Retry(tx, id) })
		require.Equal(l, 1, running)
		close(release)
		l.settle()
		require.Equal(l, 1, most, "a job never runs twice at a time under one token")
		require.Equal(l, map[work.State]int{}, p.states())
	})
}

func TestAHigherPriorityRunsFirstAndThenTheOlderJob(t *testing.T) {
	inLab(t, func(l *lab) {
		var order []string
		k := instantly("sync", func(j *work.Job) error { order = append(order, string(j.Payload)); return nil })
		k.Concurrency = 1
		p := l.open(1, k)
		p.enqueueAll(
			work.Request{Kind: "sync", Payload: []byte("a")}, work.Request{Kind: "sync", Payload: []byte("low"), Priority: -5},
			work.Request{Kind: "sync", Payload: []byte("high"), Priority: 7}, work.Request{Kind: "sync", Payload: []byte("b")},
		)
		require.Equal(l, []string{"high", "a", "b", "low"}, order)
	})
}

func TestAJobRunsAtItsTimeAndNotBefore(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		p.enqueueAll(work.Request{Kind: "sync", Payload: []byte("later"), RunAt: time.Now().Add(time.Hour)})
		require.Equal(l, map[work.State]int{work.Scheduled: 1}, p.states())
		l.after(59 * time.Minute)
		require.Empty(l, s.ran())
		l.after(time.Minute)
		require.Equal(l, []string{"later"}, s.ran())
	})
}

func TestNoMoreJobsRunThanConcurrencyAllowsOfAllAndOfAKind(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		single := s.kind("repository")
		single.Concurrency = 1
		p := l.openWith(1, work.Config{Concurrency: 3, Kinds: []work.Kind{single, s.kind("sync")}})
		p.enqueueAll(requests("repository", 4)...)
		require.Len(l, s.ran(), 1, "a kind of one worker")
		p.enqueueAll(requests("sync", 10)...)
		require.Len(l, s.ran(), 3, "and work of other kinds meanwhile")
		st := p.status()
		require.Equal(l, 3, st.States[work.Running])
		require.Equal(l, 11, st.States[work.Waiting])
		s.end(1, nil)
		require.Len(l, s.ran(), 4)
	})
}

func TestEnqueueRefusesWhatIsBeyondALimitAndWritesNothing(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.MaxPayload, k.MaxQueued = 10, 3
		p := l.open(1, k)
		revision := p.c.Head().Revision
		long, zero := strings.Repeat("k", 600), "a\x00b"
		for want, all := range map[error][]work.Request{
			work.ErrTooLarge: {{Kind: "sync", Payload: make([]byte, 11)}, {Kind: "sync", Key: long}, {Kind: "other", Payload: make([]byte, work.MaxPayload+1)}},
			work.ErrInvalid: {
				{}, {Kind: zero}, {Kind: long}, {Kind: "\xff"}, {Kind: "sync", Key: "\xff"}, {Kind: "sync", Key: zero}, {Kind: "sync", Member: zero},
				{Kind: "sync", Priority: 1001}, {Kind: "sync", Priority: -1001}, {Kind: "sync", RunAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
				{Kind: "sync", RunAt: time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC)},
			},
		} {
			for _, r := range all {
				err := p.c.Update(l.Context(), func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, work.Request{Kind: "sync"}, r); return err })
				require.ErrorIs(l, err, want, "%+v", r)
			}
		}
		require.Equal(l, revision, p.c.Head().Revision)
		p.enqueueAll(requests("sync", 3)...)
		err := p.c.Update(l.Context(), func(tx *catalog.Tx) error { _, err := work.Enqueue(tx, "sync", "", nil); return err })
		require.ErrorIs(l, err, work.ErrFull)
		require.ErrorContains(l, err, "kind sync has 3 jobs, and MaxQueued is 3")
		s.end(1, nil)
		p.enqueue("sync", "", "")
	})
}

func TestNewNamesEveryMistakeOfAConfig(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1)
		_, err := work.New(p.c, work.Config{Concurrency: -1, Grace: -1, Kinds: []work.Kind{
			{Name: "a", Run: func(context.Context, *work.Job) error { return nil }}, {Name: "a", Order: 9, Pin: 9, Stranded: 9, Timeout: -1, Concurrency: -1, MaxPayload: -1, MaxQueued: -1, Slow: -1}, {},
		}})
		for _, part := range []string{
			"Concurrency is -1", "Grace is", `kind "a" is there twice`, "Run is missing", "Order is 9", "Pin is 9", "Stranded is 9", "Timeout is", "MaxPayload is -1",
			"MaxQueued is -1", "Slow is", `kind "": a name has`,
		} {
			require.ErrorContains(l, err, part)
		}
	})
}

func TestASecondQueueOnAHandleIsRefused(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1)
		other, err := work.New(p.c, work.Config{})
		require.NoError(l, err)
		require.ErrorIs(l, other.Run(l.Context()), work.ErrRunning)
		require.ErrorIs(l, p.q.Run(l.Context()), work.ErrRunning)
		require.ErrorIs(l, p.quit(), errStopped)
		_, err = p.q.Status(l.Context())
		require.ErrorIs(l, err, work.ErrNotRunning)
		require.ErrorIs(l, p.q.Drain(l.Context()), work.ErrNotRunning)
		p.work(work.Config{})
		require.Zero(l, p.status().Live)
	})
}

func TestNothingIsWrittenWhileIdleOrWhileAJobRuns(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		p.enqueue("sync", "", "a")
		p.enqueueAll(work.Request{Kind: "sync", RunAt: time.Now().Add(100 * time.Hour)})
		before := p.c.Head().Revision
		l.after(2 * time.Hour)
		require.Equal(l, before, p.c.Head().Revision)
		notes, err := l.store.Notes(l.Context(), "work/")
		require.NoError(l, err)
		require.Empty(l, notes)
	})
}

func TestDrainClaimsNothingMoreAndWaitsForWhatRuns(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		running := p.enqueue("sync", "", "a")
		drained := make(chan error, 1)
		go func() { drained <- p.q.Drain(l.Context()) }()
		l.settle()
		p.enqueue("sync", "", "b")
		require.Equal(l, []string{"a"}, s.ran())
		require.Empty(l, drained)
		s.end(running, nil)
		require.NoError(l, <-drained)
		require.Equal(l, map[work.State]int{work.Waiting: 1}, p.states(), "and it does so for good")
	})
}

func TestARunThatTakesLongerThanItsTimeoutHasFailed(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1, work.Kind{Name: "sync", Timeout: time.Minute, Run: func(ctx context.Context, _ *work.Job) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		id := p.enqueue("sync", "", "")
		l.after(time.Minute)
		require.Contains(l, p.job(id).Error, "longer than its Timeout")
		require.EqualValues(l, 1, p.status().Totals.Failed)
	})
}

func TestTheNextRunOfAJobGoesOnFromItsProgress(t *testing.T) {
	inLab(t, func(l *lab) {
		var found []string
		var p *process
		p = l.open(1, work.Kind{Name: "sync", Run: func(ctx context.Context, j *work.Job) error {
			found = append(found, string(j.Progress))
			if err := p.c.Update(ctx, func(tx *catalog.Tx) error { return j.SetProgress(tx, fmt.Appendf(j.Progress, "%d", j.Attempt)) }); err != nil {
				return err
			}
			if j.Attempt < 3 {
				return errAway
			}
			return nil
		}})
		p.enqueue("sync", "", "")
		l.after(time.Hour)
		require.Equal(l, []string{"", "1", "12"}, found)
		require.NoError(l, p.c.View(func(r *catalog.Reader) error {
			names, err := r.Collections()
			require.False(l, slices.Contains(names, "fencepost.work.progress"), "it is gone with its job")
			return err
		}))
		var huge error
		p2 := work.Kind{Name: "large", Run: func(ctx context.Context, j *work.Job) error {
			huge = p.c.Update(ctx, func(tx *catalog.Tx) error { return j.SetProgress(tx, make([]byte, work.MaxProgress+1)) })
			return p.c.Update(ctx, func(tx *catalog.Tx) error { return j.SetProgress(tx, nil) })
		}}
		require.ErrorIs(l, p.quit(), errStopped)
		p.work(work.Config{Kinds: []work.Kind{p2}})
		p.enqueue("large", "", "")
		require.ErrorIs(l, huge, work.ErrTooLarge)
	})
}

func TestAnEntryThatCantBeReadStopsNoOtherJob(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		p.update(func(tx *catalog.Tx) error {
			return errors.Join(catalog.Bytes("fencepost.work.jobs").Set(tx, "0000000000009999", []byte("{")),
				catalog.Bytes("fencepost.work.jobs").Set(tx, "nonsense", []byte("{}")),
				catalog.Bytes("fencepost.work.jobs").Set(tx, "0000000000009998", []byte(`{"kind":"sync","payload":"***","made_at":"2000-01-01T00:00:00Z"}`)))
		})
		p.enqueue("sync", "", "a")
		require.Equal(l, []string{"a"}, s.ran())
		require.Len(l, p.status().Broken, 2)
		require.Equal(l, work.Refused, p.job(9998).Reason, "one whose payload alone is spoilt goes to the dead list")
		require.ErrorIs(l, p.quit(), errStopped)
		p.work(work.Config{Kinds: []work.Kind{s.kind("sync")}})
		require.Equal(l, []string{"a", "a"}, s.ran())
		require.Len(l, p.status().Broken, 2)
	})
}

// behind has two Updates share a commit: fn, and behind it what the Queue writes
// because of what then does.
func (p *process) behind(fn func(tx *catalog.Tx) error, then func()) {
	p.Helper()
	hold, done := make(chan struct{}), make(chan error, 2)
	go func() { done <- p.c.Update(p.Context(), func(*catalog.Tx) error { <-hold; return nil }) }()
	p.settle()
	go func() { done <- p.c.Update(p.Context(), fn) }()
	p.settle()
	then()
	close(hold)
	require.NoError(p, <-done)
	require.NoError(p, <-done)
	p.settle()
}

func TestAJobThatIsAbandonedWhileItsEndIsOnItsWayStaysAbandoned(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		id := p.enqueue("sync", "", "a")
		p.behind(func(tx *catalog.Tx) error { return work.Abandon(tx, id, "wrong") }, func() { s.end(id, nil) })
		st := p.status()
		require.NoError(l, st.Sums())
		require.Zero(l, st.Totals.Completed)
		require.Equal(l, work.Abandoned, p.job(id).Reason)
	})
}

func TestAJobThatIsAbandonedWhileItsClaimIsOnItsWayDoesNotRun(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.openWith(1, work.Config{Concurrency: 1, Kinds: []work.Kind{s.kind("sync")}})
		p.enqueueAll(requests("sync", 2)...)
		p.behind(func(tx *catalog.Tx) error { return work.Abandon(tx, 2, "wrong") }, func() { s.end(1, nil) })
		st := p.status()
		require.NoError(l, st.Sums())
		require.Equal(l, []string{"0"}, s.ran())
		require.EqualValues(l, 1, st.Totals.Claims())
	})
}
