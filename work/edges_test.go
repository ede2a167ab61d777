package work_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/work"
)

func TestAJobForAnyYearWaitsForIt(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		for _, year := range []int{2261, 2262, 2263, 2400, 3000, 5000, 9999} { // ns since 1970 end in 2262
			at := time.Date(year, 12, 31, 0, 0, 0, 0, time.UTC)
			info := p.job(p.enqueueAll(work.Request{Kind: "sync", RunAt: at}))
			require.Equal(l, work.Scheduled, info.State, "%d", year)
			require.Equal(l, at, info.Due)
		}
		require.Empty(l, s.ran())
		require.NoError(l, p.status().Sums())
	})
}

func TestARequestForAYearThatCantBeStoredIsRefusedAndHoldsUpNoOther(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1, instantly("sync", succeed))
		at := time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200)) // 10000 in UTC
		require.ErrorIs(l, work.Request{Kind: "sync", RunAt: at}.Check(), work.ErrInvalid)
		l.put("1", `{"op":"enqueue","kind":"sync","run_at":"9999-12-31T23:00:00-02:00"}`)
		l.put("2", `{"op":"enqueue","kind":"sync"}`)
		l.after(2 * time.Second)
		require.Contains(l, p.reply("1").Error, "year 10000")
		require.Empty(l, p.reply("2").Error)
		require.Empty(l, l.inbox())
	})
}

func TestAWaitAsLongAsADurationIsNotOver(t *testing.T) {
	inLab(t, func(l *lab) {
		runs := 0
		never := instantly("failing", func(*work.Job) error { runs++; return errAway })
		never.Retry = func(int) time.Duration { return math.MaxInt64 }
		p := l.open(1, never, instantly("later", func(*work.Job) error { runs++; return work.Later(math.MaxInt64) }))
		p.enqueue("failing", "", "")
		p.enqueue("later", "", "")
		l.after(time.Hour)
		require.Equal(l, 2, runs)
		require.Equal(l, map[work.State]int{work.Backoff: 2}, p.states())
	})
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type nilCause struct{ cause error }

func (*nilCause) Error() string   { return "its cause can't be read" }
func (e *nilCause) Unwrap() error { return e.cause }

func TestAFailureThatPanicsIsAFailureOfItsRunAlone(t *testing.T) {
	inLab(t, func(l *lab) {
		kinds := []work.Kind{
			instantly("error", func(*work.Job) error { return (*nilError)(nil) }),
			instantly("cause", func(*work.Job) error { return (*nilCause)(nil) }),
			instantly("retry", func(*work.Job) error { return errAway }),
		}
		kinds[2].Retry = func(int) time.Duration { panic("no wait") }
		p := l.open(1, append(kinds, instantly("other", succeed))...)
		for _, kind := range []string{"error", "cause", "retry"} {
			info := p.job(p.enqueue(kind, "", ""))
			require.Equal(l, work.Backoff, info.State, kind)
			require.Contains(l, info.Error, "panic: ", kind)
		}
		require.Contains(l, p.job(3).Error, errAway.Error())
		require.Positive(l, p.job(3).NotBefore.Sub(time.Now()), "it waits as by default")
		p.enqueue("other", "", "")
		require.Equal(l, 3, p.status().Live)
	})
}

func TestAJobWhoseRunCantBeReadHoldsUpNoOther(t *testing.T) {
	for spoilt := range 3 {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprint(spoilt+1, running), func(t *testing.T) {
				inLab(t, func(l *lab) {
					s := newStage()
					k := s.kind("sync")
					k.Order = work.Latest
					p := l.open(1)
					p.enqueueAll(work.Request{Kind: "sync", Key: "serde"}, work.Request{Kind: "sync", Key: "serde"}, work.Request{Kind: "sync", Key: "serde"})
					spoil := func() {
						p.update(func(tx *catalog.Tx) error {
							return catalog.Bytes("fencepost.work.runs").Set(tx, fmt.Sprintf("%016d", spoilt+1), []byte("{"))
						})
					}
					if !running {
						spoil()
					}
					require.ErrorIs(l, p.quit(), errStopped)
					p.work(work.Config{Kinds: []work.Kind{k, instantly("free", succeed)}})
					if running {
						spoil()
					}
					for id := work.ID(3); id > 0; id-- {
						if s.last(id) != nil {
							s.end(id, nil)
						}
					}
					p.enqueue("free", "", "")
					require.Equal(l, map[work.State]int{work.Broken: 1}, p.states())
				})
			})
		}
	}
}

func TestWhatAHolderBeforeHasNotedAndCantBeReadIsNotedAnew(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		blue := l.open(1, s.kind("sync"), s.kind("gone"))
		blue.enqueueAll(work.Request{Kind: "sync", Member: "gone"})
		blue.update(func(tx *catalog.Tx) error {
			set := func(collection, key string) error {
				return catalog.Bytes("fencepost.work."+collection).Set(tx, key, []byte("{"))
			}
			return errors.Join(set("kinds", "sync"), set("kinds", "gone"), set("takeovers", "0001"))
		})
		blue.enqueue("sync", "", "by this one")
		ref := blue.post(work.Note{Op: work.OpReassign, Member: "gone"})
		l.after(2 * time.Second)
		require.Equal(l, "1 jobs reassigned", blue.reply(ref).Text)
		green := l.open(2, s.kind("sync"))
		require.ElementsMatch(l, []string{"by this one", "", "", "by this one"}, s.ran())
		require.Len(l, green.status().Broken, 2, "the kind that it does not run, and its takeover")
		require.NoError(l, green.status().Sums())
	})
}

func TestTheSumsStandOnceAJobWhoseRunCantBeReadIsAbandoned(t *testing.T) {
	for _, waiting := range []bool{false, true} { // else it runs
		t.Run(fmt.Sprint(waiting), func(t *testing.T) {
			inLab(t, func(l *lab) {
				s := newStage()
				p := l.open(1, s.kind("sync"))
				p.enqueue("sync", "", "runs")
				id := p.enqueue("sync", "", "is spoilt")
				if waiting {
					s.end(id, errAway)
				}
				p.update(func(tx *catalog.Tx) error {
					return catalog.Bytes("fencepost.work.runs").Set(tx, fmt.Sprintf("%016d", id), []byte("{"))
				})
				p.update(func(tx *catalog.Tx) error { return work.Abandon(tx, id, "it can't be read") })
				require.NoError(l, p.status().Sums())
				require.Equal(l, map[work.State]int{work.Running: 1}, p.states())
			})
		})
	}
}

func TestAJobOfWhichNothingCanBeReadIsAbandonedByARequestThatHoldsUpNoOther(t *testing.T) {
	for _, byHand := range []bool{false, true} {
		t.Run(fmt.Sprint(byHand), func(t *testing.T) {
			inLab(t, func(l *lab) {
				p := l.open(1, instantly("sync", succeed), instantly("other", succeed))
				id := p.enqueueAll(work.Request{Kind: "sync", RunAt: time.Now().Add(time.Hour)})
				if byHand {
					id = 77
				}
				p.update(func(tx *catalog.Tx) error {
					return catalog.Bytes("fencepost.work.jobs").Set(tx, fmt.Sprintf("%016d", id), []byte("{"))
				})
				abandon := l.post(work.Note{Op: work.OpAbandon, ID: id, Reason: "it can't be read"})
				l.after(time.Millisecond)
				other := l.post(work.Note{Op: work.OpEnqueue, Kind: "other"})
				l.after(2 * time.Second)
				require.Empty(l, l.inbox())
				require.Equal(l, "abandoned", p.reply(abandon).Text)
				require.Empty(l, p.reply(other).Error)
				require.Equal(l, "{", string(p.job(id).Payload), "nothing of it is lost")
				require.NoError(l, p.status().Sums())
				p.update(func(tx *catalog.Tx) error { return work.Clear(tx, id) })
				require.NoError(l, p.status().Sums())
			})
		})
	}
}
