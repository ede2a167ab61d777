package drivertest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func presenceRules() []rule {
	rules := []rule{
		{"presence-ends-with-its-context", "where a claim was shown and its Present ends, WatchPresence of another store calls lost soon, and once; both return when their contexts end", presenceEndsWithItsContext},
		{"presence-ends-with-its-store", "Close ends what a store shows, and a closed store shows and watches nothing", presenceEndsWithItsStore},
		{"presence-unseen", "lost is not called for a claim that was never shown", presenceUnseen},
		{"presences-apart", "claims may be shown at the same time, and the end of one is no loss of another", presencesApart},
		{"presence-again", "a claim whose presence has ended may be shown again, and its end is told again", presenceAgain},
		{"presence-waits-for-no-watcher", "however many watch a claim, Present shows it soon", presenceWaitsForNoWatcher},
		{"presence-is-unwritten", "what is shown and watched changes neither head nor log, claims nor notes", presenceIsUnwritten},
	}
	for i, r := range rules {
		rules[i].test = func(b *bench) {
			_, shows := b.s.(driver.Presenter)
			_, watches := b.s.(driver.PresenceWatcher)
			if !shows || !watches {
				b.Log("the store is no driver.Presenter and driver.PresenceWatcher, and promises no presence: a death is noticed by silence")
				return
			}
			r.test(b)
		}
	}
	return rules
}

// A presence is one call of Present.
type presence struct {
	end  context.CancelFunc
	done <-chan error
}

// present shows claim, and returns once others can see it.
func (b *bench) present(s driver.Store, claim driver.ID) presence {
	b.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	b.Cleanup(cancel)
	shown := make(chan error, 1)
	p := presence{cancel, async(func() error {
		return s.(driver.Presenter).Present(ctx, claim, func() { shown <- nil })
	})}
	timeout, stop := context.WithTimeout(b.ctx, b.patience)
	defer stop()
	select {
	case <-shown:
	case err := <-p.done:
		require.FailNow(b, "Present ended", "it returned %v", err)
	case <-timeout.Done():
		require.FailNow(b, "Present did not show the claim", "within %v", b.patience)
	}
	return p
}

// hide ends p by its context.
func (b *bench) hide(p presence) {
	b.Helper()
	p.end()
	if err := b.await(p.done, "Present after its context ended"); err != nil {
		b.classified(err, "Present")
	}
}

// A lookout is one call of WatchPresence.
type lookout struct {
	end    context.CancelFunc
	done   <-chan error
	lost   chan error // gets one for each call of lost
	untold int        // losses that were not told yet, and need not be: they may not have been seen
}

func (b *bench) lookOut(s driver.Store, claim driver.ID) *lookout {
	ctx, cancel := context.WithCancel(b.ctx)
	b.Cleanup(cancel)
	const most = 100
	l := &lookout{end: cancel, lost: make(chan error, most)}
	l.done = async(func() error {
		return s.(driver.PresenceWatcher).WatchPresence(ctx, claim, func() { l.lost <- nil })
	})
	return l
}

// lose has a claim shown and no longer shown, for longer each time, until l is
// told so: a store may take a moment to see what is shown.
func (b *bench) lose(l *lookout, show func() (hide func())) {
	b.Helper()
	for hold := quiet; hold < b.patience; hold *= 2 {
		hide := show()
		late := b.told(l, hold)
		require.False(b, late && l.untold == 0, "lost was called while the claim was shown")
		hide()
		l.untold++
		if b.told(l, max(hold, b.moment())) || late {
			l.untold--
			return
		}
	}
	require.FailNow(b, "the loss of a presence was not told", "within %v", b.patience)
}

// moment is how long a loss is waited for before another one is made.
func (b *bench) moment() time.Duration { return min(b.patience/4, 2*time.Second) }

// loseHere is lose for a claim that s shows until the context ends.
func (b *bench) loseHere(l *lookout, s driver.Store, claim driver.ID) {
	b.Helper()
	b.lose(l, func() func() {
		p := b.present(s, claim)
		return func() { b.hide(p) }
	})
}

// told reports whether lost is called, before so much time has passed.
func (b *bench) told(l *lookout, within time.Duration) bool {
	b.Helper()
	timeout, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	select {
	case <-l.lost:
		return true
	case err := <-l.done:
		require.FailNow(b, "WatchPresence ended", "it returned %v", err)
	case <-timeout.Done():
	}
	return false
}

// unlost fails where lost is called soon.
func (b *bench) unlost(l *lookout, within time.Duration, when string) {
	b.Helper()
	require.False(b, b.told(l, within), "lost was called "+when)
}

func presenceEndsWithItsContext(b *bench) {
	claim := Install(b, b.s, 1).Claim.ID
	l := b.lookOut(b.another(), claim)
	b.loseHere(l, b.s, claim)
	for range l.untold {
		b.told(l, quiet)
	}
	b.unlost(l, quiet, "more often than there were losses")
	l.end()
	if err := b.await(l.done, "WatchPresence after its context ended"); err != nil {
		b.classified(err, "WatchPresence")
	}
}

func presenceEndsWithItsStore(b *bench) {
	claim := Install(b, b.s, 1).Claim.ID
	var closed driver.Store
	b.lose(b.lookOut(b.s, claim), func() func() {
		closed = b.another()
		p := b.present(closed, claim)
		return func() {
			require.NoError(b, closed.Close())
			err := b.await(p.done, "Present after Close")
			require.Error(b, err)
			b.classified(err, "Present after Close")
		}
	})
	nobody := func() { b.Error("a closed store shows a claim, or watches one") }
	for op, call := range map[string]func(context.Context, driver.ID, func()) error{
		"Present": closed.(driver.Presenter).Present, "WatchPresence": closed.(driver.PresenceWatcher).WatchPresence,
	} {
		err := b.await(async(func() error { return call(b.ctx, claim, nobody) }), op+" of a closed store")
		require.Error(b, err, op)
		b.classified(err, op)
	}
}

func presenceUnseen(b *bench) {
	claim := Install(b, b.s, 1).Claim.ID
	b.unlost(b.lookOut(b.another(), claim), 5*quiet, "for a claim that was never shown")
}

func presencesApart(b *bench) {
	mine, other := Install(b, b.s, 1).Claim.ID, driver.NewID()
	otherStore := b.another()
	p := b.present(otherStore, other)
	ofMine, ofOther := b.lookOut(b.another(), mine), b.lookOut(b.s, other)
	b.loseHere(ofMine, b.s, mine)
	b.unlost(ofOther, quiet, "when another claim was lost")
	b.hide(p)
	if !b.told(ofOther, b.moment()) {
		b.loseHere(ofOther, otherStore, other)
	}
}

func presenceAgain(b *bench) {
	claim := Install(b, b.s, 1).Claim.ID
	l := b.lookOut(b.another(), claim)
	for range 3 {
		b.loseHere(l, b.s, claim)
	}
}

func presenceWaitsForNoWatcher(b *bench) {
	const watchers, showings = 8, 10
	claim := Install(b, b.s, 1).Claim.ID
	other := b.another()
	for i := range watchers {
		b.unlost(b.lookOut([]driver.Store{b.s, other}[i%2], claim), quiet, "before the claim was shown") // they watch by now
	}
	for range showings {
		b.hide(b.present(b.s, claim))
	}
}

func presenceIsUnwritten(b *bench) {
	claim := Install(b, b.s, 1).Claim.ID
	before := b.picture()
	l := b.lookOut(b.another(), claim)
	b.lose(l, func() func() {
		p := b.present(b.s, claim)
		b.unchanged(before, "a claim was shown")
		return func() { b.hide(p) }
	})
	b.unchanged(before, "a presence was lost")
}
