package drivertest

import (
	"context"
	"errors"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func blockRules() []rule {
	return []rule{
		{"append-waits-for-a-claim", "Append waits while a claim is under way, and lands once it is abandoned", appendWaits},
		{"append-wait-is-bounded", "an Append whose context ends while a claim is under way fails and moves nothing", appendWaitIsBounded},
		{"append-loses-to-a-claim", "an Append that waited for a claim that installs wraps ErrConflict", appendLoses},
		{"claims-serialise", "a second Claim waits for the first one and then sees what it installed", claimsSerialise},
		{"first-claims-serialise", "a second Claim waits for the first one where nobody has ever claimed, too, and then sees what it installed", serialise},
		{"claim-is-bounded", "a Claim that another one blocks until its context ends wraps ErrBlocked and writes nothing", claimIsBounded},
		{"claim-race", "of many claims at once each one installs, one after another", claimRace},
		{"claim-beats-a-busy-holder", "a holder that never stops committing cannot keep a claim out", claimBeatsBusyHolder},
	}
}

func appendWaits(b *bench) {
	head := Install(b, b.s, 1)
	claiming := b.claim(b.another())
	rec := NextRecord(head, []byte("patient"))
	appended := async(func() error { return b.s.Append(b.ctx, head, rec) })
	b.waits(appended, "Append while a claim is under way")
	SameHead(b, head, ReadHead(b, b.another()), "while the claim is under way")
	claiming.Abandon()
	require.NoError(b, b.await(appended, "Append after Abandon"))
	SameHead(b, head.After(rec), ReadHead(b, b.another()))
}

func appendWaitIsBounded(b *bench) {
	head := Install(b, b.s, 1)
	before := b.picture()
	b.claim(b.another())
	ctx := b.short()
	appended := async(func() error { return b.s.Append(ctx, head, NextRecord(head, nil)) })
	err := b.await(appended, "Append past its deadline")
	require.Error(b, err, "Append while a claim is under way")
	require.NotErrorIs(b, err, driver.ErrConflict, "the head has not moved")
	b.classified(err, "Append that waited in vain")
	b.unchanged(before, "an Append that waited in vain")
}

func appendLoses(b *bench) {
	head := Install(b, b.s, 1)
	claiming := b.claim(b.another())
	appended := async(func() error { return b.s.Append(b.ctx, head, NextRecord(head, []byte("late"))) })
	b.waits(appended, "Append while a claim is under way")
	claim := NextClaim(b, claiming.Head(), 2)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	b.conflict(b.await(appended, "Append after Install"), "Append that a claim overtook")
	SameHead(b, claim.Head(), ReadHead(b, b.s))
	SameLog(b, []driver.Record{ClaimRecord(claim)}, ReadLog(b, b.s, head.Revision))
}

func claimsSerialise(b *bench) {
	Install(b, b.s, 1)
	serialise(b)
}

// serialise makes two claims, of which the second one has to wait.
func serialise(b *bench) {
	first := b.claim(b.s)
	other := b.another()
	var second driver.Claiming
	begun := async(func() (err error) { second, err = other.Claim(b.ctx); return err })
	b.waits(begun, "a second Claim")
	claim := NextClaim(b, first.Head(), 2)
	require.NoError(b, first.Install(b.ctx, claim, ClaimRecord(claim)))
	require.NoError(b, b.await(begun, "the second Claim after Install"))
	defer second.Abandon()
	SameHead(b, claim.Head(), second.Head(), "the head under the second claim")
	next := NextClaim(b, second.Head(), 2)
	require.NoError(b, second.Install(b.ctx, next, ClaimRecord(next)))
	SameHead(b, next.Head(), ReadHead(b, b.s))
}

func claimIsBounded(b *bench) {
	Install(b, b.s, 1)
	before := b.picture()
	first := b.claim(b.s)
	for what, s := range map[string]driver.Store{"another store": b.another(), "the same store": b.s} {
		b.refused(b.blocked(s, "a Claim on "+what+" past its deadline"), driver.ErrBlocked, "a Claim on "+what+" while one is under way")
		b.unchanged(before, "a Claim that was blocked")
	}
	claim := NextClaim(b, first.Head(), 2)
	require.NoError(b, first.Install(b.ctx, claim, ClaimRecord(claim)), "the claim that blocked the others")
	Install(b, b.s, 3)
}

// blocked returns the error of a Claim beside one that is under way. It gets ever
// more time: a busy machine may not come as far as to wait in the first.
func (b *bench) blocked(s driver.Store, what string) error {
	b.Helper()
	for d := 5 * quiet; ; d *= 4 {
		ctx, cancel := context.WithTimeout(b.ctx, d)
		err := b.await(async(func() error { _, err := s.Claim(ctx); return err }), what)
		cancel()
		if errors.Is(err, driver.ErrBlocked) || 4*d > b.patience {
			return err
		}
	}
}

func claimRace(b *bench) {
	const claimers = 6
	var calls []<-chan error
	for range claimers {
		s := b.another()
		calls = append(calls, async(func() error { return claimOnce(b.ctx, s) }))
	}
	for _, call := range calls {
		require.NoError(b, b.await(call, "a racing claim"))
	}
	claims := ReadClaims(b, b.s, 0)
	require.Len(b, claims, claimers)
	for i, c := range claims {
		require.EqualValues(b, i+1, c.Token.Epoch, "the epochs, in order")
		require.EqualValues(b, i+1, c.Revision)
		if i > 0 {
			require.Equal(b, claims[i-1].ID, c.PriorClaim, "the chain of claims")
		}
	}
}

// claimOnce claims s. It is called from goroutines and fails no test itself.
func claimOnce(ctx context.Context, s driver.Store) error {
	claiming, err := s.Claim(ctx)
	if err != nil {
		return err
	}
	head := claiming.Head()
	token, err := head.Claim.Token.Next(1)
	if err != nil {
		claiming.Abandon()
		return err
	}
	c := driver.Claim{Token: token, ID: driver.NewID(), Revision: head.Revision + 1, PriorClaim: head.Claim.ID, PriorCommit: head.Commit}
	return claiming.Install(ctx, c, ClaimRecord(c))
}

func claimBeatsBusyHolder(b *bench) {
	head := Install(b, b.s, 1)
	holder := b.another()
	busy := async(func() error {
		for h := head; ; {
			rec := NextRecord(h, []byte("busy"))
			if err := holder.Append(b.ctx, h, rec); err != nil {
				return err
			}
			h = h.After(rec)
		}
	})
	claiming := b.claim(b.s)
	seen := claiming.Head()
	b.waits(busy, "the busy holder")
	SameHead(b, seen, ReadHead(b, b.s), "while the claim is under way")
	claim := NextClaim(b, seen, 2)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	err := b.await(busy, "the busy holder")
	require.True(b, errors.Is(err, driver.ErrConflict), "the busy holder ended with %v", err)
	SameHead(b, claim.Head(), ReadHead(b, b.s))
	log := ReadLog(b, b.s, 0)
	require.Len(b, log, int(claim.Revision))
}
