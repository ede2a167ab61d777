package leader_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// A register is one in memory, which may be away, or refuse to be raised only.
type register struct {
	name string

	mu       sync.Mutex
	away     error // of every call
	stuck    error // of Raise
	token    fence.Token
	provings int
	raises   int
}

func (r *register) String() string { return r.name }

func (r *register) set(away, stuck error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away, r.stuck = away, stuck
}

func (r *register) Prove(_ context.Context, t fence.Token) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.provings++
	return errors.Join(r.away, fence.Check(t, r.token, fence.Holder{}))
}

func (r *register) Raise(_ context.Context, t fence.Token, _ fence.Holder) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raises++
	if err := errors.Join(r.away, r.stuck); err != nil {
		return err
	}
	if r.token.Compare(t) > 0 {
		return &fence.Error{Held: t, Current: r.token, Guard: r.name}
	}
	r.token = t
	return nil
}

func (r *register) holds() fence.Token {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.token
}

func over(cfg leader.Config, registers ...fence.Register) leader.Config {
	cfg.Registers = registers
	return cfg
}

func TestAPromotionIsRefusedWhileAStoreCouldNotBeRaisedAndBlueServesOn(t *testing.T) {
	t.Parallel()
	store := memory.New()
	rows, files := &register{name: "rows"}, &register{name: "files"}
	var blue, green gated
	one := run(t, store.Open(), over(called(1), rows, files), blue.work)
	one.reached(t, leader.Leading)
	require.Equal(t, "g1.e1", rows.holds().String())
	files.set(errors.New("the disk is full"), nil)
	often := over(called(2), rows, files)
	often.Lease = time.Second // it asks three times as often
	two := run(t, store.Open(), often, green.work)
	require.Eventually(t, func() bool {
		s := two.Status()
		return s.Phase == leader.CatchingUp && s.Reason == "a store could not be raised: files: the disk is full"
	}, time.Minute, time.Millisecond)
	_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true})
	require.NoError(t, err)
	for range 3 {
		asked := provings(files)
		require.Eventually(t, func() bool { return provings(files) > asked }, time.Minute, time.Millisecond)
		admitted, err := blue.increment()
		require.True(t, admitted, "blue was asked to stop its work")
		require.NoError(t, err)
	}
	require.Equal(t, "g1.e1", rows.holds().String(), "a proof changes nothing")
	files.set(nil, nil)
	two.reached(t, leader.Leading)
	require.Equal(t, []string{"g2.e2", "g2.e2"}, []string{rows.holds().String(), files.holds().String()})
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	two.stop(nil)
	<-two.ended
}

// TestAStoreIsProvedAgainBeforeTheHolderIsAsked has the store fail behind a proof that
// would be good for a long time yet.
func TestAStoreIsProvedAgainBeforeTheHolderIsAsked(t *testing.T) {
	t.Parallel()
	store := memory.New()
	files := &register{name: "files"}
	var blue, green gated
	one := run(t, store.Open(), over(called(1), files), blue.work)
	one.reached(t, leader.Leading)
	seldom := over(called(2), files)
	seldom.Lease = time.Hour
	two := run(t, store.Open(), seldom, green.work)
	two.reached(t, leader.ReadyToPromote)
	files.set(errors.New("the disk is full"), nil)
	_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return two.Status().Reason == "a store could not be raised: files: the disk is full"
	}, time.Minute, time.Millisecond)
	require.Len(t, one.Status().Moves, 4, "blue has only started, and leads")
	admitted, err := blue.increment()
	require.True(t, admitted)
	require.NoError(t, err)
	files.set(nil, nil)
	two.reached(t, leader.Leading)
	require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
	two.stop(nil)
	<-two.ended
}

func provings(r *register) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.provings
}

func TestNothingIsServedUntilEveryStoreRefusesTheOlderToken(t *testing.T) {
	t.Parallel()
	store := memory.New()
	rows, files := &register{name: "rows"}, &register{name: "files"}
	files.set(nil, errors.New("the network is down"))
	var work gated
	p := run(t, store.Open(), over(called(1), rows, files), work.work)
	require.Eventually(t, func() bool {
		s := p.Status()
		return s.Token != nil && s.Reason == "leads, not serving: files: the network is down"
	}, time.Minute, time.Millisecond)
	s := p.Status()
	require.False(t, s.Serving)
	require.Equal(t, leader.Promoting, s.Phase)
	require.Nil(t, work.catalog(), "the work has begun")
	require.Equal(t, "g1.e1", rows.holds().String())
	raised := func() int { rows.mu.Lock(); defer rows.mu.Unlock(); return rows.raises }()
	files.set(nil, nil)
	p.reached(t, leader.Leading)
	require.Eventually(t, func() bool { return work.catalog() != nil }, time.Minute, time.Millisecond)
	require.Equal(t, 1, raised, "what was raised is not raised again")
	p.stop(nil)
	require.NoError(t, <-p.ended)
}

func TestAHolderThatCanRaiseNothingIsReplacedAtOnceAndStopsWhenTold(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"replaced", "stopped"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			store := memory.New()
			files := &register{name: "files"}
			files.set(nil, errors.New("the network is down"))
			var work, green gated
			patient := called(1)
			patient.HandoverTimeout = time.Hour // nobody waits for an answer
			p := run(t, store.Open(), over(patient, files), work.work)
			require.Eventually(t, func() bool { return p.Status().Token != nil }, time.Minute, time.Millisecond)
			if how == "stopped" {
				p.stop(nil)
				require.NoError(t, <-p.ended)
				return
			}
			patient.Catalog.Generation = 2
			two := run(t, store.Open(), patient, green.work)
			two.reached(t, leader.ReadyToPromote)
			_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true})
			require.NoError(t, err)
			two.reached(t, leader.Leading)
			require.ErrorIs(t, <-p.ended, fence.ErrSuperseded)
			two.stop(nil)
			<-two.ended
		})
	}
}

// TestAStoreWithAHigherTokenIsAHintAndNoEnd has a register that was raised by
// somebody else, such as by mistake.
func TestAStoreWithAHigherTokenIsAHintAndNoEnd(t *testing.T) {
	t.Parallel()
	store := memory.New()
	files := &register{name: "files", token: fence.Token{Generation: 9, Epoch: 9}}
	var work gated
	p := run(t, store.Open(), over(called(1), files), work.work)
	require.Eventually(t, func() bool {
		return p.Status().Reason == "leads, not serving: files: refused by files: held g1.e1, the newest is g9.e9 of an unnamed holder: stop writing; the head of the catalog says whether to end for good"
	}, time.Minute, time.Millisecond)
	files.mu.Lock()
	files.token = fence.Token{}
	files.mu.Unlock()
	p.reached(t, leader.Leading)
	p.stop(nil)
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(<-p.ended))
}
