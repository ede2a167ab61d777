package work_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/work"
)

func TestThresholdsComeFromTheEnvironment(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		work.StaleEnv: " 20m , sync=5m,a=b=1s,dump=off ", work.SlowEnv: "x,y=1h\nz=2h\n", work.UnknownEnv: "1h", work.StrandedEnv: "off",
		work.InboxEnv: "2m", work.DeadEnv: "3",
	}
	th, err := work.ThresholdsFrom(func(name string) string { return env[name] })
	require.NoError(t, err)
	require.Equal(t, work.Limits{"": 20 * time.Minute, "sync": 5 * time.Minute, "a=b": time.Second, "dump": -1}, th.Stale)
	require.Equal(t, work.Limits{"x,y": time.Hour, "z": 2 * time.Hour}, th.Slow)
	require.Equal(t, work.Thresholds{Stale: th.Stale, Slow: th.Slow, Unknown: time.Hour, Stranded: -1, Inbox: 2 * time.Minute, Dead: 3}, th)
	th, err = work.ThresholdsFrom(func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, work.Thresholds{}, th)
}

func TestEveryMistakeOfTheThresholdsIsNamed(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		work.StaleEnv: "soon,=1m,sync=0s,a=1s,a=2s,5m,6m", work.SlowEnv: "-1m", work.BlockedEnv: "a=\x00", work.UnknownEnv: "15",
		work.StrandedEnv: strings.Repeat("9", 100000), work.OrphansEnv: "1h,2h", work.SilentEnv: "never", work.InboxEnv: "0", work.DeadEnv: "-1",
	}
	_, err := work.ThresholdsFrom(func(name string) string { return env[name] })
	require.Error(t, err)
	for name := range env {
		require.ErrorContains(t, err, name+":")
	}
	for _, part := range []string{`"soon"`, `"=1m"`, `"0s"`, `two limits for "a"`, `two limits for ""`, "off"} {
		require.ErrorContains(t, err, part)
	}
	require.Less(t, len(err.Error()), 3000)
	_, again := work.ThresholdsFrom(func(name string) string { return env[name] })
	require.EqualError(t, again, err.Error())
}

func TestTheTextOfTheStatusHasTheFiguresOfItsJSON(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		each := always("op", errors.New("push: 502"))
		each.Order = work.Each
		blue := l.open(1, s.kind("dump"), each)
		blue.enqueueAll(work.Request{Kind: "dump"}, work.Request{Kind: "op", Key: "hot"}, work.Request{Kind: "op", Key: "hot"}, work.Request{Kind: "evil\x1b"[:4]})
		l.after(time.Minute)
		p := l.open(2, s.kind("dump"), each)
		l.after(time.Minute)
		st := p.status()
		var b strings.Builder
		require.NoError(l, st.WriteText(&b))
		text := b.String()
		sum := 0
		for _, n := range st.States {
			sum += n
		}
		require.Equal(l, st.Live, sum)
		for _, want := range []string{
			"token g2.e2", "live 4 = waiting 0 + backoff 1 + scheduled 0 + blocked 1 + orphan 0 + running 1 + stranded 0 + unknown 1 + broken 0\n",
			"claimed 1 = running 1 + orphan 0 + suspended 0\n", "after deploy 1", "took over: from g1.e1, by g2.e2, 60s ago, a deploy: recovered 1 of 1 orphans, first after",
			"oldest waiting:  job 2", "longest running: job 1", "push: 502", "hot", "last pass: number ",
		} {
			require.Contains(l, text, want)
		}
		require.Contains(l, text, fmt.Sprintf("enqueued %d", st.Totals.Enqueued))
	})
}

func TestTheStatusKeepsTheNewestHundredAndTwentyEightFailuresAndTakeovers(t *testing.T) {
	observe(t, func(l *observer) {
		k := instantly("op", func(j *work.Job) error { return work.Permanent(errors.New(string(j.Payload))) })
		p := l.open(1, k)
		p.enqueueAll(requests("op", 130)...)
		st := p.status()
		require.Len(l, st.Failures, 128)
		require.EqualValues(l, 130, st.Failures[0].Number)
		require.EqualValues(l, 130, st.Totals.Failed)
		for range 129 {
			c, err := catalog.Open(context.Background(), l.store.Open(), catalog.Config{Generation: 1})
			require.NoError(l, err)
			old := p
			p = &process{lab: l.lab, c: c}
			p.work(work.Config{Kinds: []work.Kind{k}})
			_ = old.quit()
			_ = old.c.Close()
		}
		st = p.status()
		require.Len(l, st.Takeovers, 128)
		require.Equal(l, st.Token, st.Takeovers[0].Token)
		require.EqualValues(l, 130, st.Takeovers[0].Number)
		_ = p.quit()
		_ = p.c.Close()
	})
}

func TestTheTotalsSinceTheTakeoverBeginAnewForEveryKind(t *testing.T) {
	observe(t, func(l *observer) {
		blue := l.open(1, instantly("a", succeed), instantly("b", succeed))
		blue.enqueueAll(append(requests("a", 3), requests("b", 2)...)...)
		green := l.open(2, instantly("a", succeed)) // it does not know b
		require.Equal(l, work.Totals{}, green.status().Since)
		green.enqueueAll(append(requests("a", 1), requests("b", 1)...)...)
		st := green.status()
		require.Equal(l, work.Totals{Enqueued: 2, Completed: 1, Fresh: 1}, st.Since)
		require.EqualValues(l, 7, st.Totals.Enqueued)
	})
}

func TestAFinishIsSeenInTheSamePass(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		p := l.open(1, s.kind("op"))
		p.enqueueAll(requests("op", 3)...)
		s.end(2, nil)
		st := p.status()
		require.EqualValues(l, 1, st.Totals.Completed)
		require.Equal(l, 2, st.Pass.Held())
		require.Equal(l, 2, st.States[work.Running])
	})
}

func TestARequestAboutAnEntryThatCantBeReadHoldsUpNoOtherRequest(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		p := l.open(1, s.kind("op"))
		id := p.enqueue("op", "", "")
		p.update(func(tx *catalog.Tx) error {
			return errors.Join(catalog.Bytes("fencepost.work.dead").Set(tx, "0000000000009998", []byte("{")),
				catalog.Bytes("fencepost.work.runs").Set(tx, fmt.Sprintf("%016d", id), []byte("[]")))
		})
		notes := []work.Note{{Op: work.OpClear, ID: 9998}, {Op: work.OpRetry, ID: 9998}, {Op: work.OpRetry, ID: id}, {Op: work.OpAbandon, ID: id, Reason: "spoilt"}}
		for i, n := range notes {
			require.NoError(l, work.Post(l.Context(), p.c.Board(), fmt.Sprint(i), n))
		}
		<-time.After(2 * time.Second)
		l.settle()
		require.NoError(l, p.c.View(func(r *catalog.Reader) error {
			for i := range notes {
				reply, found, err := work.ReplyTo(r, fmt.Sprint(i))
				require.NoError(l, err)
				require.True(l, found, i)
				require.Equal(l, i < 3, reply.Error != "", "%d: %+v", i, reply)
			}
			return nil
		}))
		require.Equal(l, work.Abandoned, p.job(id).Reason)
	})
}

func TestTheInboxSaysHowManyRequestsWaitAndSinceWhen(t *testing.T) {
	observe(t, func(l *observer) {
		board, now := catalog.NewBoard(l.store, catalog.Config{}), time.Now()
		out, err := work.Inbox(l.Context(), board)
		require.NoError(l, err)
		require.Equal(l, work.Outside{}, out)
		require.NoError(l, work.Post(l.Context(), board, "z", work.Note{Op: work.OpActivate}))
		require.NoError(l, work.Post(l.Context(), board, work.NewRef(now.Add(-time.Hour)), work.Note{Op: work.OpActivate}))
		require.NoError(l, work.Post(l.Context(), board, "a", work.Note{Op: work.OpActivate, At: now.Add(-time.Minute)}))
		_, err = catalog.UpdateNote(l.Context(), board, work.InboxPrefix+"b", func(n *map[string]any) error { *n = map[string]any{"op": 5}; return nil })
		require.NoError(l, err)
		out, err = work.Inbox(l.Context(), board)
		require.NoError(l, err)
		require.Equal(l, work.Outside{Requests: 4, Unread: 1, Oldest: now.Add(-time.Hour).Truncate(time.Millisecond).UTC()}, out)
	})
}

func TestARunThatMovedSinceThePlanIsNotTakenOverAndTheSumsStand(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		latest := s.kind("sync")
		latest.Order = work.Latest
		blue := l.open(1, latest)
		blue.enqueue("sync", "k", "1")
		blue.enqueue("sync", "k", "2")
		hog := blue.enqueueAll(work.Request{Kind: "hog", Priority: 10})
		green := l.openWith(2, work.Config{Kinds: []work.Kind{latest, s.kind("hog")}, Concurrency: 1})
		require.Equal(l, 1, green.status().States[work.Orphan])

		held, free := make(chan struct{}), make(chan struct{})
		first := true
		green.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Append" && first {
				first = false
				close(held)
				<-free
			}
			return memory.Pass
		})
		update := func(fn func(tx *catalog.Tx) error) { go func() { _ = green.c.Update(l.Context(), fn) }() }
		update(func(tx *catalog.Tx) error { return catalog.Bytes("other").Set(tx, "k", nil) })
		<-held
		update(func(tx *catalog.Tx) error { return work.Abandon(tx, 1, "not wanted") }) // queued behind that
		l.settle()
		s.end(hog, nil) // the next pass plans to take the orphan over, and queues behind the abandoning
		close(free)
		l.settle()
		green.store.Inject(nil)
		st := green.status()
		require.NoError(l, st.Sums())
		require.Equal(l, 1, st.Dead)
		require.Equal(l, 1, st.States[work.Running], "the newer job runs, by a plan that knows of it")
		require.EqualValues(l, 1, st.Totals.Withdrawn)
		require.Zero(l, st.Totals.AfterDeploy)
	})
}

// TestThePageOfTheMonitorHasEveryKeyAndEveryVariable holds docs/work.md against the code.
func TestThePageOfTheMonitorHasEveryKeyAndEveryVariable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/work.md")
	require.NoError(t, err)
	for _, a := range work.Check(work.Status{Kinds: []work.KindStatus{{Name: "KIND"}}}, work.Outside{}, work.Thresholds{}) {
		require.Contains(t, string(page), "| `"+a.Key+"` |")
	}
	for _, variable := range []string{
		work.StaleEnv, work.SlowEnv, work.BlockedEnv, work.UnknownEnv, work.StrandedEnv, work.OrphansEnv, work.SilentEnv, work.InboxEnv, work.DeadEnv,
	} {
		require.Contains(t, string(page), "`"+variable)
	}
	for _, s := range work.States() {
		require.Contains(t, string(page), "| `"+string(s)+"` |")
	}
}

func TestTheStatusSaysFromWhomAJobWasReassignedOrTakenOver(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		keep, taken := s.kind("keep"), s.kind("taken")
		keep.Pin, taken.Pin, taken.Stranded = work.SameGeneration, work.SameGeneration, work.TakeOver
		l.open(1, keep, taken).enqueueAll(work.Request{Kind: "keep"}, work.Request{Kind: "taken"})
		green := l.open(2, keep, taken)
		require.Equal(l, work.Stranded, green.job(1).State)
		require.Equal(l, "generation 1", green.job(1).Owner)
		require.Equal(l, work.Running, green.job(2).State)
		require.Equal(l, "generation 1", green.job(2).From)
		green.update(func(tx *catalog.Tx) error { _, err := work.Reassign(tx, work.Owner{Generation: 1}); return err })
		require.Equal(l, work.Running, green.job(1).State)
		require.Equal(l, "generation 1", green.job(1).From)
		require.NoError(l, green.status().Sums())
	})
}

func TestARunThatLostItsJobAndHasNotReturnedIsLeaving(t *testing.T) {
	inLab(t, func(l *lab) {
		end := make(chan struct{})
		p := l.open(1, work.Kind{Name: "op", Run: func(context.Context, *work.Job) error { <-end; return nil }})
		id := p.enqueue("op", "", "")
		p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, id, "not wanted") })
		st := p.status()
		require.NoError(l, st.Sums())
		require.Equal(l, 0, st.States[work.Running])
		require.Equal(l, 1, st.Pass.Leaving)
		require.Equal(l, 0, st.Pass.Held())
		close(end)
		l.settle()
		_, err := p.q.Pass(l.Context())
		require.NoError(l, err)
		require.Equal(l, 0, p.status().Pass.Leaving)
	})
}

func TestJobsRunWhileAStatusReadsTheOthers(t *testing.T) {
	t.Parallel()
	c, err := catalog.Open(t.Context(), memory.New(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	const jobs = 8_000 // several times what is read between two passes
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, requests("later", jobs)...); return err }))
	q, err := work.New(c, work.Config{})
	require.NoError(t, err)
	ctx, stop := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	st, err := q.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, jobs, st.Live)
	require.Greater(t, st.Pass.Number, 2)
	stop(errStopped)
	require.ErrorIs(t, <-done, errStopped)
}
