package leader_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// called is a configuration with an admin API, for real connections.
func called(g generation.Generation) leader.Config {
	cfg := config(g)
	cfg.Admin = "127.0.0.1:0"
	cfg.Poll = 5 * time.Millisecond
	return cfg
}

// reached waits, in real time, until the process is in phase.
func (p *process) reached(t *testing.T, phase leader.Phase) {
	t.Helper()
	require.Eventually(t, func() bool { return p.Status().Phase == phase }, time.Minute, time.Millisecond)
}

// A gated is a work that admits writers, and is joined only once they are done.
type gated struct {
	mu      sync.Mutex
	writers sync.WaitGroup
	open    *catalog.Catalog
	ended   chan struct{} // closed when the last work returned
}

func (g *gated) work(ctx context.Context, term *leader.Term) error {
	g.mu.Lock()
	g.open, g.ended = term.Catalog, make(chan struct{})
	g.mu.Unlock()
	term.Serving()
	<-ctx.Done()
	g.mu.Lock()
	g.open = nil
	g.mu.Unlock()
	g.writers.Wait()
	close(g.ended)
	return context.Cause(ctx)
}

// catalog is the one in which writers are admitted, or nil.
func (g *gated) catalog() *catalog.Catalog {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// increment counts by one commit, if writers are admitted.
func (g *gated) increment() (admitted bool, err error) {
	g.mu.Lock()
	c := g.open
	if c == nil {
		g.mu.Unlock()
		return false, nil
	}
	g.writers.Add(1)
	g.mu.Unlock()
	defer g.writers.Done()
	return true, c.Update(context.Background(), func(tx *catalog.Tx) error {
		n, _, err := entries.Get(tx, "count")
		return errors.Join(err, entries.Set(tx, "count", n+1))
	})
}

func run(t *testing.T, store *memory.Store, cfg leader.Config, work leader.Work) *process {
	t.Helper()
	l, err := leader.New(store, cfg)
	require.NoError(t, err)
	ctx, stop := context.WithCancelCause(t.Context())
	p := &process{Leader: l, stop: stop, ended: make(chan error, 1)}
	go func() { p.ended <- l.Run(ctx, work) }()
	return p
}

func TestAPromotionUnderLoadFailsNoWriteThatWasAdmitted(t *testing.T) {
	t.Parallel()
	store := memory.New()
	var blue, green gated
	one := run(t, store.Open(), called(1), blue.work)
	one.reached(t, leader.Leading)
	two := run(t, store.Open(), called(2), green.work)
	two.reached(t, leader.ReadyToPromote)
	var acked, refused atomic.Int64
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				admitted, err := blue.increment()
				switch {
				case err != nil:
					refused.Add(1)
				case admitted:
					acked.Add(1)
				}
			}
		})
	}
	require.Eventually(t, func() bool { return acked.Load() > 100 }, time.Minute, time.Millisecond)
	promote(t, store, 2)
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	two.reached(t, leader.Leading)
	close(stop)
	writers.Wait()
	require.Zero(t, refused.Load(), "writes that were admitted failed")
	require.Contains(t, phases(one), leader.HandingOver)
	require.Eventually(t, func() bool { return green.catalog() != nil }, time.Minute, time.Millisecond)
	require.NoError(t, green.catalog().View(func(r *catalog.Reader) error {
		n, _, err := entries.Get(r, "count")
		require.EqualValues(t, acked.Load(), n)
		return err
	}))
	require.NoError(t, two.end(t))
	require.Len(t, claims(t, store), 2)
}

func TestTheHolderResumesIfTheMigrationsOfItsSuccessorFailOnItsLastCommit(t *testing.T) {
	t.Parallel()
	store := memory.New()
	working := make(chan *catalog.Catalog, 2)
	blue := run(t, store.Open(), called(1), func(ctx context.Context, term *leader.Term) error {
		working <- term.Catalog
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), leader.ErrHandingOver) {
			return errors.Join(term.Update(context.Background(), set("last", 1)), context.Cause(ctx))
		}
		return context.Cause(ctx)
	})
	token := (<-working).Token()
	broken := errors.New("broken")
	cfg := called(2)
	cfg.Catalog.Migrations = []catalog.Migration{{Version: 1, Up: func(tx *catalog.Tx) error {
		if _, ok, err := entries.Get(tx, "last"); ok || err != nil { // there is none in the rehearsal
			return errors.Join(broken, err)
		}
		return nil
	}}}
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	again := <-working
	green.reached(t, leader.CatchingUp)
	require.Contains(t, green.Status().Reason, broken.Error())
	require.Equal(t, token, again.Token())
	require.NoError(t, again.Update(t.Context(), set("a", 1)))
	require.Len(t, claims(t, store), 1)
	require.Subset(t, phases(blue), []leader.Phase{leader.HandingOver, leader.Leading})
	require.NoError(t, green.end(t))
	require.NoError(t, blue.end(t))
}

func TestTheHolderGoesOnWhereNobodyClaimsInTime(t *testing.T) {
	t.Parallel()
	store := memory.New()
	cfg := called(1)
	cfg.HandoverTimeout = 300 * time.Millisecond
	blue := start(t, store.Open(), cfg)
	blue.reached(t, leader.Leading)
	handle := store.Open()
	handle.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Claim" {
			return memory.Refuse
		}
		return memory.Pass
	})
	green := start(t, handle, called(2))
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.Eventually(t, func() bool { return blue.works.Load() == 2 }, time.Minute, time.Millisecond)
	require.Equal(t, leader.Leading, blue.Status().Phase)
	require.Contains(t, blue.Status().Reason, "no other process claimed within 300ms")
	handle.Inject(nil)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	require.NoError(t, green.end(t))
}

func TestAHolderThatDoesNotAnswerIsSimplyFenced(t *testing.T) {
	t.Parallel()
	store := memory.New()
	hung := make(chan struct{})
	one := run(t, store.Open(), called(1), func(ctx context.Context, _ *leader.Term) error {
		<-hung
		return nil
	})
	one.reached(t, leader.Leading)
	cfg := called(2)
	cfg.HandoverTimeout = 200 * time.Millisecond
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	green.reached(t, leader.Leading)
	close(hung)
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	require.NoError(t, green.end(t))
}

func TestTheHolderDiesDuringTheHandover(t *testing.T) {
	t.Parallel()
	store := memory.New()
	handle := store.Open()
	blue := start(t, handle, called(1))
	blue.reached(t, leader.Leading)
	mine := store.Open()
	mine.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Claim" && blue.Status().Phase == leader.HandingOver {
			handle.Inject(refuse) // it reaches nothing any more
			blue.stop(errStop)
		}
		return memory.Pass
	})
	green := start(t, mine, called(2))
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	green.reached(t, leader.Leading)
	<-blue.ended
	require.Len(t, claims(t, store), 2)
	require.NoError(t, green.end(t))
}

func TestOnlyWhoKnowsTheClaimAndIsPromotedCanDisturbTheHolder(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue := start(t, store.Open(), called(1))
	blue.reached(t, leader.Leading)
	base := "http://" + blue.Status().Admin
	for _, path := range []string{
		"/api/leader/handover", "/api/leader/handover?generation=2&nonce=0123456789abcdef0&proof=00", "/api/leader/handover?generation=2&nonce=&proof=",
	} {
		resp, err := http.Post(base+path, "application/json", strings.NewReader("{}"))
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, resp.StatusCode, path)
		require.NoError(t, resp.Body.Close())
	}
	require.Eventually(t, func() bool { return blue.works.Load() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, blue.end(t))
}

func TestThoseWithPriorityTakeOverFirstAndTheReluctantLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		holder := start(t, store.Open(), config(1))
		holder.await(t, leader.Leading)
		reluctant, second, first := config(1), config(1), config(1)
		reluctant.PreferNotToLead, second.Priority, first.Priority = true, 2, 1
		var waiting []*process
		for _, cfg := range []leader.Config{reluctant, second, first} {
			p := start(t, store.Open(), cfg)
			p.await(t, leader.ReadyToPromote)
			waiting = append(waiting, p)
		}
		for i := range waiting {
			elapse(5 * time.Second) // each is known to the others
			require.NoError(t, holder.end(t))
			next := waiting[len(waiting)-1-i]
			next.await(t, leader.Leading)
			holder = next
		}
		require.Len(t, claims(t, store), 4)
		require.NoError(t, holder.end(t))
	})
}

func TestAProcessThatIsAloneWaitsForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		holder := start(t, store.Open(), config(1))
		holder.await(t, leader.Leading)
		cfg := config(1)
		cfg.Priority, cfg.PreferNotToLead = 9, true
		last := start(t, store.Open(), cfg)
		last.await(t, leader.ReadyToPromote)
		elapse(5 * time.Second)
		began := time.Now()
		require.NoError(t, holder.end(t))
		last.await(t, leader.Leading)
		require.Less(t, time.Since(began), time.Second)
		require.NoError(t, last.end(t))
	})
}

func TestTwentyStandbysOfAHolderThatDiedMakeOneClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		dead, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		var all []*process
		for range 20 {
			all = append(all, start(t, store.Open(), config(1)))
		}
		elapse(5 * time.Second)
		require.NoError(t, all[0].end(t)) // and one begins anew while it waits
		all[0] = start(t, store.Open(), config(1))
		elapse(time.Minute)
		require.Len(t, claims(t, store), 2)
		require.Equal(t, exitcodes.Restart, exitcodes.CodeOf(dead.Close()))
		for _, p := range all {
			p.stop(errStop)
		}
		for _, p := range all {
			require.NoError(t, <-p.ended)
		}
	})
}

func TestWhoKnowsThatItWasFencedDoesNotHoldTheToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		slow := make(chan struct{})
		p := run(t, store, config(1), func(ctx context.Context, _ *leader.Term) error {
			<-ctx.Done()
			<-slow
			return nil
		})
		p.await(t, leader.Leading)
		require.True(t, p.Held())
		next, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 2})
		require.NoError(t, err)
		elapse(time.Second)
		require.False(t, p.Held())
		close(slow)
		require.ErrorIs(t, <-p.ended, fence.ErrSuperseded)
		require.NoError(t, next.Close())
	})
}

func TestTheMigrationsAreRehearsedOnTheHoldersLastCommitToo(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue := run(t, store.Open(), called(1), func(ctx context.Context, term *leader.Term) error {
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), leader.ErrHandingOver) { // what was still under way
			return errors.Join(term.Update(context.Background(), set("a", 101)), context.Cause(ctx))
		}
		return context.Cause(ctx)
	})
	blue.reached(t, leader.Leading)
	tooMuch := errors.New("too much")
	cfg := called(2)
	cfg.Catalog.Migrations = []catalog.Migration{{Version: 1, Up: func(tx *catalog.Tx) error {
		if n, _, err := entries.Get(tx, "a"); n > 100 || err != nil {
			return errors.Join(tooMuch, err)
		}
		return nil
	}}}
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	green.reached(t, leader.CatchingUp)
	require.Contains(t, green.Status().Reason, "rehearsal", "it came to a claim")
	require.Contains(t, green.Status().Reason, tooMuch.Error())
	blue.reached(t, leader.Leading)
	require.NoError(t, green.end(t))
	require.NoError(t, blue.end(t))
}

func TestAClaimThatFailsInPassingAndDisturbedNobodyIsTriedAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		handle := store.Open()
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claim" {
				return memory.Refuse
			}
			return memory.Pass
		})
		green := start(t, handle, config(2))
		promote(t, store, 2)
		elapse(10 * time.Minute)
		handle.Inject(nil)
		began := time.Now()
		green.await(t, leader.Leading)
		require.Less(t, time.Since(began), 2*time.Second)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.NoError(t, green.end(t))
	})
}

// A headless store has a board that answers, and from a moment on no head.
type headless struct {
	driver.Store
	gone atomic.Bool
}

func (h *headless) Head(ctx context.Context) (driver.Head, error) {
	if h.gone.Load() {
		return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: "headless", Op: "head", Err: errors.New("no answer")}
	}
	return h.Store.Head(ctx)
}

func TestAHolderThatIsUnconfirmedIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blinking := &headless{Store: store.Open()}
	patient := called(1)
	patient.HandoverTimeout = time.Hour // nobody waits for an answer
	patient.Lease = time.Second
	l, err := leader.New(blinking, patient)
	require.NoError(t, err)
	var blue, green gated
	ended := make(chan error, 1)
	go func() { ended <- l.Run(t.Context(), blue.work) }()
	require.Eventually(t, func() bool { return l.Status().Phase == leader.Leading }, time.Minute, time.Millisecond)
	blinking.gone.Store(true)
	require.Eventually(t, func() bool { return l.Status().Phase == leader.Unconfirmed }, time.Minute, time.Millisecond)
	patient.Catalog.Generation, patient.Lease = 2, 0
	two := run(t, store.Open(), patient, green.work)
	two.reached(t, leader.ReadyToPromote)
	_, err = leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test"})
	require.NoError(t, err)
	two.reached(t, leader.Leading)
	blinking.gone.Store(false)
	require.ErrorIs(t, <-ended, fence.ErrSuperseded)
	two.stop(nil)
	<-two.ended
}
