package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// plain is a process without delays, on host 0.
func plain(name string, g generation.Generation) profile {
	return profile{name: name, generation: g, address: true, restarts: true, start: 50 * time.Millisecond, join: 10 * time.Millisecond}
}

// on moves a process to another host.
func (p profile) on(host int) profile { p.host = host; return p }

// steady returns a world in which the first process leads and the others wait.
func steady(t *testing.T, w *world, first profile, others ...profile) (holder *process, waiting []*process) {
	t.Helper()
	holder = w.begin(first)
	require.True(t, w.run(time.Second, w.served))
	for _, o := range others {
		waiting = append(waiting, w.begin(o))
	}
	w.run(w.between(2*heartbeat, 4*heartbeat), nil)
	require.NoError(t, w.error())
	w.restart()
	return holder, waiting
}

// error returns the violation, if there is one.
func (w *world) error() error {
	if w.fault == nil {
		return nil
	}
	w.fault.Trace = w.trace
	return w.fault
}

// by reports whether a process of g leads and works.
func (w *world) by(g generation.Generation) func() bool {
	return func() bool { return w.served() && w.head.Claim.Token.Generation == g }
}

// claimed reports whether n more claims have landed, and the last holder works.
func (w *world) claimed(n int) func() bool {
	return func() bool { return w.claims >= n && w.served() }
}

// A bound is how long nobody serves at most.
type bound struct {
	name  string
	limit time.Duration
	play  func(t *testing.T, w *world)
}

// always is a revision that no examination has seen: migrations must run again.
const always = 1 << 40

const calls = 40 * time.Millisecond // what a claim and the reads around it take at most

func bounds() []bound {
	return []bound{
		{"the holder is killed, and a standby is on its host", poll/2 + calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1), plain("b", 1))
			h.profile.restarts = false
			h.kill("by hand")
			w.run(lease, w.claimed(1))
		}},
		{"the holder is killed, and a standby on another host was connected", poll/2 + calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1), plain("b", 1).on(1))
			h.profile.restarts = false
			h.kill("by hand")
			w.run(lease, w.claimed(1))
		}},
		{"the holder is killed, has no standby, and is started again", 50*time.Millisecond + calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1))
			h.kill("by hand")
			w.run(lease, w.claimed(1))
		}},
		{"a standby that is alone waits for nobody, whatever its priority", poll/2 + calls, func(t *testing.T, w *world) {
			late := plain("b", 1)
			late.delay = 9 * step
			h, waiting := steady(t, w, plain("a", 1), late)
			waiting[0].stepped = true
			h.profile.restarts = false
			h.kill("by hand")
			w.run(lease, w.claimed(1))
		}},
		{"the holder's host vanishes", lease*11/10 + poll + calls, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("b", 1).on(1))
			w.vanish(0)
			w.run(2*lease, w.claimed(1))
		}},
		{"the holder is stopped", lease*11/10 + poll + calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1), plain("b", 1))
			h.stop()
			w.run(2*lease, w.claimed(1))
		}},
		{"a generation is promoted", 10*time.Millisecond + calls, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("b", 1), plain("c", 2).on(1))
			w.promote(2)
			w.run(lease, w.by(2))
			require.Equal(t, 1, w.claims)
		}},
		{"a generation is promoted over a holder that is stopped", poll + answer*11/10 + 2*calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1), plain("c", 2))
			h.stop()
			w.promote(2)
			w.run(lease, w.by(2))
		}},
		{"a generation is promoted over a holder that is cut off from it", calls, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("c", 2).on(1))
			w.cut(0, 1, true)
			w.promote(2)
			w.run(lease, w.by(2))
		}},
		{"a generation is promoted over a holder whose work does not end", handover*11/10 + calls, func(t *testing.T, w *world) {
			stuck := plain("a", 1)
			stuck.join = time.Hour
			_, _ = steady(t, w, stuck, plain("c", 2))
			w.promote(2)
			w.run(lease, w.by(2))
		}},
		{"the holder is killed while it hands over", poll + calls, func(t *testing.T, w *world) {
			slow := plain("a", 1)
			slow.join, slow.restarts = time.Hour, false
			h, _ := steady(t, w, slow, plain("c", 2))
			w.promote(2)
			require.True(t, w.run(lease, func() bool { return w.pauses == 1 }))
			w.run(50*time.Millisecond, nil)
			w.restart()
			h.kill("by hand")
			w.run(lease, w.by(2))
		}},
		{"the successor is killed while the holder waits for it", 10*time.Millisecond + 2*calls, func(t *testing.T, w *world) {
			next := plain("c", 2)
			next.migration, next.restarts = handover/2, false
			_, waiting := steady(t, w, plain("a", 1), next)
			w.touched = always
			w.promote(2)
			require.True(t, w.run(4*lease, func() bool { return w.finals == 1 }))
			w.run(5*time.Millisecond, nil)
			waiting[0].kill("by hand")
			w.run(handover/4, nil)
			require.True(t, w.by(1)())
		}},
		{"a deploy with a migration that must run again pauses the holder once", 2*handover + 10*time.Millisecond + 2*calls, func(t *testing.T, w *world) {
			next := plain("c", 2)
			next.migration = 2 * handover * 98 / 100
			_, _ = steady(t, w, plain("a", 1), plain("b", 1), next)
			w.run(4*lease, nil)
			w.touched = always
			w.promote(2)
			w.run(10*lease, w.by(2))
			require.Equal(t, 1, w.pauses)
			require.Equal(t, 1, w.finals)
		}},
		{"an operator fences the holder, and a standby is ready", poll + calls, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("b", 1).on(1))
			w.fence(true)
			w.run(lease, w.claimed(2))
		}},
		{"an old tool fences the holder, and does not say so", lease*11/10 + poll + calls, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("b", 1).on(1))
			w.fence(false)
			w.run(2*lease, w.claimed(2))
		}},
		{"the holder steps down", poll + 10*time.Millisecond + calls, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("b", 1).on(1))
			w.stepDown()
			w.run(lease, w.claimed(1))
			require.Equal(t, 1, w.claims)
		}},
		{"the holder dies behind a step-down", poll/2 + calls, func(t *testing.T, w *world) {
			_, waiting := steady(t, w, plain("a", 1), plain("b", 1))
			w.stepDown()
			w.run(lease, nil)
			w.restart()
			waiting[0].profile.restarts = false
			waiting[0].kill("by hand")
			w.run(lease, w.claimed(1))
		}},
		{"the store is away for longer than a lease", 2*lease + heartbeat + handover/10, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("b", 1), plain("c", 1).on(1))
			w.state = failing
			w.run(2*lease, nil)
			w.state, w.disturbed = up, w.now
			w.run(3*lease, nil)
			require.Zero(t, w.claims)
			require.True(t, w.served())
		}},
		{"the holder's host vanishes, and the store fails one call in six", 4 * lease, func(t *testing.T, w *world) {
			_, _ = steady(t, w, plain("a", 1), plain("b", 1).on(1))
			w.lossy = true
			w.vanish(0)
			w.run(4*lease, w.claimed(1))
		}},
		{"the holder's host vanishes, the store fails one call in six, and the standbys are of the lowest priority", 8 * lease, func(t *testing.T, w *world) {
			last := plain("b", 1).on(1)
			last.delay = 9 * step
			_, _ = steady(t, w, plain("a", 1), last, last)
			w.makers[w.head.Claim.ID].profile.restarts = false
			w.lossy = true
			w.vanish(0)
			w.run(8*lease, w.claimed(1))
		}},
		{"a promoted process stops as it is about to claim, and the holder dies", 3 * silence, func(t *testing.T, w *world) {
			h, waiting := steady(t, w, plain("a", 1), plain("b", 1), plain("c", 2))
			w.promote(2)
			require.True(t, w.run(lease, func() bool { return waiting[1].runs.contending }))
			waiting[1].stop()
			h.profile.restarts = false
			h.kill("by hand")
			w.run(4*silence, w.by(1))
		}},
		{"the holder dies while its successor runs long migrations again", lease + heartbeat + silence + poll + calls, func(t *testing.T, w *world) {
			next := plain("c", 2)
			next.migration = 20 * lease
			h, waiting := steady(t, w, plain("a", 1), plain("b", 1), next)
			w.run(21*lease, nil)
			w.touched = always
			w.promote(2)
			require.True(t, w.run(lease, func() bool { return waiting[1].runs.contending }))
			w.restart()
			h.profile.restarts = false
			h.kill("by hand")
			w.run(3*lease, w.by(1))
		}},
		{"a generation without a process is promoted, and the holder dies at once", silence + 2*poll + calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1), plain("b", 1))
			w.promote(2)
			h.profile.restarts = false
			h.kill("by hand")
			w.run(2*silence, w.by(1))
		}},
		{"a generation without a process was promoted, and the holder dies later", poll/2 + calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1), plain("b", 1))
			w.promote(2)
			w.run(2*silence, nil)
			w.restart()
			h.profile.restarts = false
			h.kill("by hand")
			w.run(silence, w.by(1))
		}},
		{"a generation without a process was promoted, and the only process is started again", 50*time.Millisecond + calls, func(t *testing.T, w *world) {
			h, _ := steady(t, w, plain("a", 1))
			w.promote(2)
			h.kill("by hand")
			w.run(silence, w.by(1))
		}},
		{"a promoted process died as it was about to claim, and the holder dies later", poll/2 + calls, func(t *testing.T, w *world) {
			next := plain("c", 2)
			next.restarts = false
			h, waiting := steady(t, w, plain("a", 1), plain("b", 1), next)
			w.promote(2)
			require.True(t, w.run(lease, func() bool { return w.read().contender.Seq > 0 }))
			waiting[1].kill("by hand")
			w.run(3*silence, nil)
			w.restart()
			h.profile.restarts = false
			h.kill("by hand")
			w.run(silence, w.by(1))
		}},
	}
}

func TestNobodyServesForNoLongerThanItsBound(t *testing.T) {
	t.Parallel()
	for _, b := range bounds() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			worst := time.Duration(0)
			for seed := range *plays {
				w := newWorld(seed, Machines{}, true)
				b.play(t, w)
				require.NoError(t, w.error())
				if w.unserved > b.limit || !w.served() {
					w.violated("nobody served for %v, want %v at most", w.unserved, b.limit)
					require.NoError(t, w.error())
				}
				worst = max(worst, w.unserved)
			}
			t.Logf("%s: %v, want %v at most", b.name, worst, b.limit)
		})
	}
}

// outlasts plays a promoted generation against a lower one that crashes and claims
// again and again, and returns whether it wins within d.
func outlasts(w *world, old profile, d time.Duration) bool {
	w.begin(old)
	w.run(time.Second, nil)
	next := plain("c", 2).on(1)
	next.migration = 500 * time.Millisecond
	w.begin(next)
	w.run(2*next.migration, nil)
	w.promote(2)
	return w.run(d, w.by(2))
}

func TestAPromotedGenerationWinsAgainstALowerOneThatRestarts(t *testing.T) {
	t.Parallel()
	for name, bare := range map[string]bool{"of this build": false, "that claims without a look": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range *plays {
				w := newWorld(seed, Machines{}, true)
				old := plain("a", 1)
				old.crashes, old.start, old.bare = w.between(50*time.Millisecond, 300*time.Millisecond), w.between(0, 300*time.Millisecond), bare
				won := outlasts(w, old, 2*time.Second+handover)
				require.NoError(t, w.error())
				if !won {
					w.violated("generation 2 does not lead")
					require.NoError(t, w.error())
				}
			}
		})
	}
}

// The first of all claims is anybody's; behind it nobody claims without a promotion.
func TestAGenerationThatLooksWhileTheFirstClaimIsMadeWaitsForItsPromotion(t *testing.T) {
	t.Parallel()
	for seed := range *plays {
		w := newWorld(seed, Machines{}, true)
		w.slow = true
		w.begin(plain("a", 1))
		w.run(w.between(0, 200*time.Millisecond), nil)
		w.begin(plain("c", 2).on(1))
		w.run(2*lease, nil)
		require.NoError(t, w.error())
		require.Equal(t, 1, w.claims)
	}
}

func TestOfManyReplicasTheFirstByPriorityTakesOver(t *testing.T) {
	t.Parallel()
	for seed := range *plays {
		w := newWorld(seed, Machines{}, true)
		second, third := plain("c", 1), plain("d", 1)
		second.delay, third.delay = 3*step, 6*step
		h, waiting := steady(t, w, plain("a", 1), third, second, plain("b", 1).on(1))
		h.profile.restarts = false
		h.kill("by hand")
		w.run(lease, w.claimed(1))
		require.NoError(t, w.error())
		require.Same(t, waiting[2], w.makers[w.head.Claim.ID])
		w.run(heartbeat, nil) // the others connect to it
		waiting[2].profile.restarts = false
		waiting[2].kill("by hand")
		w.run(lease, w.claimed(2))
		require.Same(t, waiting[1], w.makers[w.head.Claim.ID])
	}
}

// A process that takes no notice of contenders claims before them.
func TestTheCheckerFindsThatContendersAreIgnored(t *testing.T) {
	t.Parallel()
	ignores := candidates(func(election.Settings) planted {
		return planted{sees: func(v *election.View) { v.Board.Contender = election.Contender{} }}
	})
	for seed := range uint64(within) {
		w := newWorld(seed, ignores, false)
		old := plain("a", 1)
		old.crashes, old.start = 150*time.Millisecond, time.Millisecond
		if !outlasts(w, old, 2*time.Second+handover) {
			return
		}
	}
	t.Fatalf("not found in %d plays", within)
}
