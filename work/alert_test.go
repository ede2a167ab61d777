package work_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/work"
)

// An observer looks at a lab from outside, and may look from a time to come: nothing
// happens until then, which costs nothing.
type observer struct {
	*lab
	ahead time.Duration
}

func observe(t *testing.T, fn func(l *observer)) {
	t.Helper()
	inLab(t, func(l *lab) { fn(&observer{lab: l}) })
}

func (l *observer) later(d time.Duration) { l.ahead += d }

func (l *observer) now() time.Time { return time.Now().Add(l.ahead) }

// read derives the status from the store alone.
func (l *observer) read() (st work.Status) {
	l.Helper()
	l.settle()
	require.NoError(l, catalog.Snapshot(l.Context(), l.store, catalog.Config{}, func(head driver.Head, r *catalog.Reader) (err error) {
		st, err = work.Read(r, head, l.now())
		return err
	}))
	return st
}

// monitor checks as a monitor does.
func (l *observer) monitor(out work.Outside, th work.Thresholds) map[string]work.Alert {
	l.Helper()
	st, byKey := l.read(), map[string]work.Alert{}
	require.NoError(l, st.Sums())
	for _, a := range work.Check(st, out, th) {
		require.NotContains(l, byKey, a.Key, "a key is there once")
		require.NotContains(l, a.Summary, "\n")
		require.NotEmpty(l, a.Summary, a.Key)
		require.Equal(l, a.Firing, a.Remedy != "", "%s: what fires says what to do", a.Key)
		byKey[a.Key] = a
	}
	return byKey
}

// fires requires that exactly these keys fire.
func (l *observer) fires(alerts map[string]work.Alert, keys ...string) {
	l.Helper()
	firing := []string{}
	for key, a := range alerts {
		if a.Firing {
			firing = append(firing, key)
		}
	}
	require.ElementsMatch(l, keys, firing, "%+v", alerts)
}

func (l *observer) monitorFires(keys ...string) map[string]work.Alert {
	l.Helper()
	alerts := l.monitor(work.Outside{}, work.Thresholds{})
	l.fires(alerts, keys...)
	return alerts
}

func always(name string, err error) work.Kind {
	k := instantly(name, func(*work.Job) error { return err })
	k.MaxAttempts = -1
	return k
}

func TestTheMonitorPagesForAJobThatDoesNotRunForFifteenMinutesAndResolvesWithTheSameKey(t *testing.T) {
	observe(t, func(l *observer) {
		var back atomic.Bool
		k := instantly("sync", func(*work.Job) error {
			if back.Load() {
				return nil
			}
			return errAway
		})
		k.MaxAttempts = -1
		p := l.open(1, k)
		p.enqueue("sync", "", "a")
		before := l.monitorFires()
		require.Contains(l, before, "work/stale/sync")
		l.after(15 * time.Minute)
		l.monitorFires()
		l.after(time.Second)
		a := l.monitorFires("work/stale/sync")["work/stale/sync"]
		require.Contains(l, a.Summary, "job 1")
		require.Contains(l, a.Summary, errAway.Error())
		require.Equal(l, "fencepost work show 1", a.Remedy)
		require.Equal(l, time.Second, time.Since(a.Since).Round(time.Millisecond))
		require.InDelta(l, 901, a.Value, 0.1)
		back.Store(true)
		l.after(20 * time.Minute)
		require.Contains(l, l.monitorFires(), "work/stale/sync")
	})
}

func TestEndlessRetriesPageSinceAgeCountsFromWhenAJobWasFirstDue(t *testing.T) {
	observe(t, func(l *observer) {
		k := always("sync", errAway)
		k.Retry = func(int) time.Duration { return time.Minute }
		l.open(1, k).enqueue("sync", "", "")
		for range 15 {
			l.monitorFires()
			l.after(time.Minute)
		}
		l.after(time.Millisecond)
		require.Contains(l, l.monitorFires("work/stale/sync")["work/stale/sync"].Summary, "attempt 16")
	})
}

func TestAJobThatIsRetriedWithinItsStaleDoesNotPage(t *testing.T) {
	observe(t, func(l *observer) {
		var n atomic.Int64
		k := instantly("sync", func(*work.Job) error {
			if n.Add(1) < 5 {
				return errAway
			}
			return nil
		})
		p := l.open(1, k)
		p.enqueue("sync", "", "")
		for range 60 {
			l.monitorFires()
			l.after(time.Second)
		}
		require.Zero(l, p.status().Live)
		l.after(time.Hour)
		l.monitorFires()
	})
}

func TestAJobThatRunsNeverPagesHoweverLong(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		k := s.kind("dump")
		k.Stale = time.Second
		p := l.open(1, k)
		p.enqueue("dump", "", "")
		l.later(1000 * time.Hour)
		alerts := l.monitorFires()
		require.Equal(l, 0.0, alerts["work/stale/dump"].Value)
		require.InDelta(l, 1000*3600, alerts["work/slow/dump"].Value, 1, "it is shown")
	})
}

func TestAKindMayHaveALimitForItsRunsAndForItsWaits(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		slow := s.kind("update_downloads")
		slow.Slow = 120 * time.Minute
		quick, patient := always("quick", errAway), always("patient", errAway)
		quick.Stale, patient.Stale = time.Minute, -1
		p := l.open(1, slow, quick, patient)
		p.enqueue("update_downloads", "", "")
		p.enqueue("quick", "", "")
		p.enqueue("patient", "", "")
		l.later(2 * time.Minute)
		l.monitorFires("work/stale/quick")
		l.later(119 * time.Minute)
		l.monitorFires("work/stale/quick", "work/slow/update_downloads")
	})
}

func TestAJobForATimeToComePagesOnlyOnceItWasDueForLong(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1)
		p.enqueueAll(work.Request{Kind: "later", RunAt: time.Now().Add(24 * time.Hour)})
		l.later(24 * time.Hour)
		l.monitorFires()
		l.later(15*time.Minute + time.Second)
		l.monitorFires("work/unknown/later")
	})
}

func TestNothingOfANegativePriorityPages(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		run, dies, each := s.kind("run"), instantly("dies", func(*work.Job) error { return work.Permanent(errAway) }), always("each", errAway)
		run.Slow, each.Order = time.Second, work.Each
		pinned := s.kind("pinned")
		pinned.Pin = work.SameGeneration
		p := l.open(1, run, dies, each, pinned)
		low := func(kind string) work.Request {
			return work.Request{Kind: kind, Key: "k", Priority: -1, Member: map[string]string{"pinned": "gone"}[kind]}
		}
		p.enqueueAll(low("run"), low("dies"), low("each"), low("each"), low("unknown"), low("pinned"))
		l.later(10 * time.Hour)
		l.monitorFires()
		st := p.status()
		require.Equal(l, 1, st.Dead)
		for _, state := range []work.State{work.Running, work.Blocked, work.Backoff, work.Unknown, work.Stranded} {
			require.Equal(l, 1, st.States[state], "%s: the status shows it", state)
		}
	})
}

func TestADrainedKindIsReportedAsZeroAndNotLeftOut(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1, instantly("sync", succeed), instantly("never", succeed))
		p.enqueue("sync", "", "")
		p.enqueue("unknown", "", "")
		p.update(func(tx *catalog.Tx) error { return errors.Join(work.Abandon(tx, 2, "no"), work.Clear(tx, 2)) })
		l.open(2)
		alerts := l.monitorFires()
		for _, kind := range []string{"sync", "never", "unknown"} {
			for _, rule := range []string{"stale", "slow", "blocked", "unknown", "stranded", "orphans", "dead"} {
				a, found := alerts["work/"+rule+"/"+kind]
				require.True(l, found, "%s of %s", rule, kind)
				require.Zero(l, a.Value)
			}
		}
		for _, key := range []string{"work/holder", "work/inbox", "work/broken", "work/sums"} {
			require.Contains(l, alerts, key)
		}
	})
}

func TestTheSameKeysComeAtEveryCheckInTheSameOrder(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1, always("b", errAway), always("a", errAway))
		keys := func() (all []string) {
			for _, a := range work.Check(p.status(), work.Outside{}, work.Thresholds{}) {
				all = append(all, a.Key)
			}
			return all
		}
		first := keys()
		require.Len(l, first, 2*7+4)
		p.enqueue("a", "", "")
		require.Equal(l, first, keys())
		l.later(time.Hour)
		require.Equal(l, first, keys())
	})
}

func TestAKeyThatIsBlockedForLongPagesAndSaysBehindWhat(t *testing.T) {
	observe(t, func(l *observer) {
		k := always("op", errors.New("push: 502"))
		k.Order = work.Each
		p := l.open(1, k)
		p.enqueue("op", "hot", "1")
		l.after(10 * time.Minute)
		p.enqueue("op", "hot", "2")
		l.after(14 * time.Minute)
		l.monitorFires("work/stale/op")
		l.after(time.Minute + time.Second)
		a := l.monitorFires("work/stale/op", "work/blocked/op")["work/blocked/op"]
		require.Contains(l, a.Summary, `job 2 (key "hot") of kind op`)
		require.Contains(l, a.Summary, "behind job 1")
		require.Contains(l, a.Summary, "push: 502")
		require.Equal(l, map[string]bool{"work/blocked/op": true}, onlyOf(l.monitor(work.Outside{}, work.Thresholds{Stale: work.Limits{"": -1}, Blocked: work.Limits{"op": time.Minute}})))
	})
}

func onlyOf(alerts map[string]work.Alert) map[string]bool {
	firing := map[string]bool{}
	for key, a := range alerts {
		if a.Firing {
			firing[key] = true
		}
	}
	return firing
}

func TestWhatARunOfANewerJobOfTheKeyDoesTooDoesNotPage(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		k := s.kind("sync")
		k.Order = work.Latest
		p := l.open(1, k)
		p.enqueueAll(work.Request{Kind: "sync", Key: "k"}, work.Request{Kind: "sync", Key: "k"}, work.Request{Kind: "sync", Key: "k"})
		require.Equal(l, 2, s.last(3).Merged)
		l.later(time.Hour)
		l.monitorFires()
		l.ahead = 16 * time.Minute
		p.enqueue("sync", "k", "")
		require.Contains(l, l.monitorFires("work/blocked/sync")["work/blocked/sync"].Summary, "job 4")
	})
}

func TestTheDiagnoserSeesWorkOfAGenerationThatIsNotTheNewestAndClosesWhenThatIsOver(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		k := s.kind("op")
		k.Pin = work.SameGeneration
		l.open(1, k).enqueue("op", "", "")
		green := l.open(2, k)
		l.after(15 * time.Minute)
		l.monitorFires()
		l.after(time.Second)
		a := l.monitorFires("work/stranded/op")["work/stranded/op"]
		require.Contains(l, a.Summary, "generation 1")
		green.update(func(tx *catalog.Tx) error { _, err := work.Reassign(tx, work.Owner{Generation: 1}); return err })
		l.monitorFires()
	})
}

func TestAnUnknownKindIsShownAndPagesWithinFifteenMinutesAndIsNeverLost(t *testing.T) {
	observe(t, func(l *observer) {
		blue := l.open(1, instantly("old", succeed))
		blue.enqueue("new", "", "")
		require.Equal(l, 1, blue.status().States[work.Unknown])
		l.after(15*time.Minute + time.Second)
		l.monitorFires("work/unknown/new")
		green := l.open(2, instantly("new", succeed))
		l.settle()
		l.monitorFires()
		require.EqualValues(l, 1, green.status().Totals.Completed)
	})
}

func TestAnAbandonedJobKeepsPagingUntilItIsCleared(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1, always("op", errAway))
		id := p.enqueue("op", "", "")
		p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, id, "ticket 4711") })
		for range 3 {
			a := l.monitorFires("work/dead/op")["work/dead/op"]
			require.Equal(l, 1.0, a.Value)
			require.Contains(l, a.Remedy, "--kind 'op'")
			l.later(100 * time.Hour)
		}
		p.update(func(tx *catalog.Tx) error { return work.Clear(tx, id) })
		l.monitorFires()
	})
}

func TestAnItemThatFailsForGoodStopsNoPassAndStaysReported(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1, instantly("op", func(j *work.Job) error {
			if string(j.Payload) == "bad" {
				return work.Permanent(errAway)
			}
			return nil
		}))
		p.enqueue("op", "", "bad")
		p.enqueue("op", "", "good")
		st := p.status()
		require.EqualValues(l, 1, st.Totals.Completed)
		require.Equal(l, errAway.Error(), st.Failures[0].Error)
		l.monitorFires("work/dead/op")
	})
}

func TestOrphansPageWhileNobodyTakesThem(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		l.open(1, s.kind("op")).enqueue("op", "", "")
		c, err := catalog.Open(l.Context(), l.store.Open(), catalog.Config{Generation: 1}) // it runs no Queue
		require.NoError(l, err)
		l.Cleanup(func() { _ = c.Close() })
		l.after(59 * time.Second)
		l.monitorFires()
		l.after(2 * time.Second)
		require.Contains(l, l.monitorFires("work/orphans/op", "work/holder")["work/orphans/op"].Summary, "no Queue")
		green := l.open(2, s.kind("op"))
		l.monitorFires()
		require.Equal(l, 1, green.status().States[work.Running])
	})
}

func TestOrphansForWhichThereIsNoRoomPageLater(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		l.open(1, s.kind("op")).enqueueAll(requests("op", 2)...)
		l.openWith(2, work.Config{Kinds: []work.Kind{s.kind("op")}, Concurrency: 1})
		l.later(15 * time.Minute)
		l.monitorFires()
		l.later(time.Second)
		require.Contains(l, l.monitorFires("work/orphans/op")["work/orphans/op"].Summary, "no room")
	})
}

func TestWhatASilentHolderHasClaimedDoesNotCountAsRunning(t *testing.T) {
	observe(t, func(l *observer) {
		s := newStage()
		l.open(1, s.kind("op")).enqueue("op", "", "")
		l.later(time.Hour)
		l.fires(l.monitor(work.Outside{Seen: l.now().Add(-59 * time.Second)}, work.Thresholds{}))
		alerts := l.monitor(work.Outside{Seen: l.now().Add(-61 * time.Second)}, work.Thresholds{})
		l.fires(alerts, "work/orphans/op", "work/holder")
		require.Contains(l, alerts["work/orphans/op"].Summary, "job 1")
		l.fires(l.monitor(work.Outside{Seen: l.now().Add(-time.Hour)}, work.Thresholds{Silent: -1}))
	})
}

func TestAHolderWithoutWorkPagesNobody(t *testing.T) {
	observe(t, func(l *observer) {
		l.monitorFires()
		l.open(1, instantly("op", succeed)).enqueue("op", "", "")
		l.later(time.Hour)
		l.fires(l.monitor(work.Outside{Seen: l.now().Add(-30 * time.Minute)}, work.Thresholds{}))
	})
}

func TestRequestsThatNobodyTakesPage(t *testing.T) {
	observe(t, func(l *observer) {
		out := work.Outside{Requests: 3, Oldest: l.now()}
		l.later(time.Minute)
		l.fires(l.monitor(out, work.Thresholds{}))
		l.later(time.Second)
		require.Contains(l, l.monitor(out, work.Thresholds{})["work/inbox"].Summary, "3 requests")
		l.fires(l.monitor(out, work.Thresholds{}), "work/inbox")
		l.fires(l.monitor(out, work.Thresholds{Inbox: time.Hour}))
		l.fires(l.monitor(work.Outside{Unread: 1}, work.Thresholds{}), "work/broken")
	})
}

func TestEntriesThatCantBeReadPageAndTheRestOfTheStatusStands(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1, always("op", errAway))
		p.enqueue("op", "", "")
		p.update(func(tx *catalog.Tx) error {
			for _, collection := range []string{"jobs", "dead", "failures", "takeovers", "opened"} {
				if err := catalog.Bytes("fencepost.work."+collection).Set(tx, "0000000000009999", []byte("{")); err != nil {
					return err
				}
			}
			return nil
		})
		st := p.status()
		require.Len(l, st.Unreadable, 5)
		require.Equal(l, 1, st.States[work.Broken])
		require.Equal(l, 1, st.States[work.Backoff])
		alerts := map[string]work.Alert{}
		for _, a := range work.Check(st, work.Outside{}, work.Thresholds{}) {
			alerts[a.Key] = a
		}
		require.Equal(l, 5.0, alerts["work/broken"].Value)
		require.True(l, alerts["work/broken"].Firing)
	})
}

func TestFiguresThatContradictEachOtherPage(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1, always("op", errAway))
		p.enqueue("op", "", "")
		st := p.status()
		require.NoError(l, st.Sums())
		st.Totals.Completed++
		require.ErrorIs(l, st.Sums(), work.ErrSums)
		for _, a := range work.Check(st, work.Outside{}, work.Thresholds{}) {
			require.Equal(l, a.Key == "work/sums", a.Firing, a.Key)
		}
	})
}

func TestAnAlertIsOneLineWhateverAnApplicationWrote(t *testing.T) {
	observe(t, func(l *observer) {
		p := l.open(1, always("op", errors.New(strings.Repeat("x\x1b[2J\n", 1000))))
		p.enqueue("op", strings.Repeat("\r\n", 200), "")
		l.later(time.Hour)
		a := l.monitorFires("work/stale/op")["work/stale/op"]
		require.NotContains(l, a.Summary, "\x1b")
		require.Less(l, len(a.Summary), 2000)
		_, err := json.Marshal(a)
		require.NoError(l, err)
	})
}
