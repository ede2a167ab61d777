package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
)

// first is a plan that gives fault to the first call of method after it was
// injected.
func first(method string, fault memory.Fault) func(memory.Call) memory.Fault {
	done := false
	return func(c memory.Call) memory.Fault {
		if done || c.Method != method {
			return memory.Pass
		}
		done = true
		return fault
	}
}

func requireFault(t *testing.T, err error, outcome driver.Outcome) {
	t.Helper()
	var e *driver.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, exitcodes.Retry, e.Disposition())
	require.Equal(t, outcome, driver.OutcomeOf(err))
}

func TestARefusedWriteNeverLands(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	s.Inject(first("Append", memory.Refuse))
	requireFault(t, s.Append(t.Context(), head, drivertest.NextRecord(head, nil)), driver.NotApplied)
	require.Zero(t, s.Release())
	drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
}

func TestALostAnswerIsThatOfACommitThatLanded(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	rec := drivertest.NextRecord(head, nil)
	s.Inject(first("Append", memory.LoseAnswer))
	requireFault(t, s.Append(t.Context(), head, rec), driver.Unknown)
	drivertest.SameHead(t, head.After(rec), drivertest.ReadHead(t, s))
	require.ErrorIs(t, s.Append(t.Context(), head, rec), driver.ErrConflict, "sent again")
}

func TestALostRequestMayBeSentAgain(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	rec := drivertest.NextRecord(head, nil)
	s.Inject(first("Append", memory.LoseRequest))
	requireFault(t, s.Append(t.Context(), head, rec), driver.Unknown)
	drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
	require.NoError(t, s.Append(t.Context(), head, rec))
}

func TestADelayedWriteLandsLaterOnItsCondition(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	rec := drivertest.NextRecord(head, []byte("late"))
	s.Inject(first("Append", memory.Delay))
	requireFault(t, s.Append(t.Context(), head, rec), driver.Unknown)
	drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
	require.Equal(t, 1, s.Release())
	drivertest.SameHead(t, head.After(rec), drivertest.ReadHead(t, s))
	require.Zero(t, s.Release())
}

func TestADelayedWriteIsGoneWhereItsConditionIs(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	rec := drivertest.NextRecord(head, nil)
	s.Inject(first("Append", memory.Delay))
	requireFault(t, s.Append(t.Context(), head, rec), driver.Unknown)
	require.NoError(t, s.Append(t.Context(), head, rec), "sent again")
	require.Zero(t, s.Release())
	require.Len(t, drivertest.ReadLog(t, s, 1), 1)
}

func TestADelayedCommitWaitsForAClaimUnderWay(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	s.Inject(first("Append", memory.Delay))
	requireFault(t, s.Append(t.Context(), head, drivertest.NextRecord(head, nil)), driver.Unknown)
	claiming, err := s.Open().Claim(drivertest.Context(t))
	require.NoError(t, err)
	require.Zero(t, s.Release())
	drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
	claiming.Abandon()
	require.Equal(t, 1, s.Release())
}

func TestADelayedInstallEndsTheClaimAndLandsLater(t *testing.T) {
	s := memory.New()
	ctx := drivertest.Context(t)
	s.Inject(first("Install", memory.Delay))
	claiming, err := s.Claim(ctx)
	require.NoError(t, err)
	claim := drivertest.NextClaim(t, claiming.Head(), 1)
	requireFault(t, claiming.Install(ctx, claim, drivertest.ClaimRecord(claim)), driver.Unknown)
	again, err := s.Claim(ctx)
	require.NoError(t, err)
	require.True(t, again.Head().IsZero())
	again.Abandon()
	require.Equal(t, 1, s.Release())
	drivertest.SameHead(t, claim.Head(), drivertest.ReadHead(t, s))
}

func TestAPostMayBeDelayedToo(t *testing.T) {
	s := memory.New()
	s.Inject(first("Post", memory.Delay))
	_, err := s.Post(t.Context(), driver.Note{Key: "k", Value: []byte("v")})
	requireFault(t, err, driver.Unknown)
	require.Empty(t, drivertest.ReadNotes(t, s, ""))
	require.Equal(t, 1, s.Release())
	require.Len(t, drivertest.ReadNotes(t, s, "k"), 1)
}

func TestReadsFailAsThePlanSays(t *testing.T) {
	s := memory.New()
	s.Inject(func(memory.Call) memory.Fault { return memory.LoseAnswer })
	_, err := s.Head(t.Context())
	requireFault(t, err, driver.NotApplied)
	requireFault(t, s.Log(t.Context(), 0, nil), driver.NotApplied)
	requireFault(t, s.Claims(t.Context(), 0, nil), driver.NotApplied)
	_, err = s.Notes(t.Context(), "")
	requireFault(t, err, driver.NotApplied)
	requireFault(t, s.Watch(t.Context(), func() {}), driver.NotApplied)
	s.Inject(nil)
	require.True(t, drivertest.ReadHead(t, s).IsZero())
}

func TestThePlanIsToldMethodAndNumberOfItsHandle(t *testing.T) {
	s := memory.New()
	drivertest.ReadHead(t, s)
	var calls []memory.Call
	s.Inject(func(c memory.Call) memory.Fault { calls = append(calls, c); return memory.Pass })
	drivertest.ReadHead(t, s)
	drivertest.ReadHead(t, s.Open())
	drivertest.Install(t, s, 1)
	require.Equal(t, []memory.Call{{Method: "Head", N: 1}, {Method: "Claim"}, {Method: "Install"}}, calls)
}

func TestALostClaimBlocksUntilItsHandleIsClosed(t *testing.T) {
	catalog := memory.New()
	dead := catalog.Open()
	dead.Inject(first("Claim", memory.LoseAnswer))
	_, err := dead.Claim(drivertest.Context(t))
	requireFault(t, err, driver.NotApplied)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = catalog.Claim(ctx)
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "process 2")
	require.NoError(t, dead.Close())
	drivertest.Install(t, catalog, 1)
}

func TestAClaimThatOutlivesItsBoundIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewWith(memory.Config{ClaimBound: 5 * time.Second})
		head := drivertest.Install(t, s, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		claiming, err := s.Claim(ctx)
		require.NoError(t, err)

		begun := time.Now()
		require.NoError(t, s.Open().Append(t.Context(), head, drivertest.NextRecord(head, nil)))
		require.Equal(t, 7*time.Second, time.Since(begun))
		claim := drivertest.NextClaim(t, claiming.Head(), 2)
		err = claiming.Install(t.Context(), claim, drivertest.ClaimRecord(claim))
		require.Error(t, err)
		require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
		require.Len(t, drivertest.ReadClaims(t, s, 0), 1)
	})
}

func TestAClaimThatIsRenewedOutlivesItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewWith(memory.Config{ClaimBound: 5 * time.Second})
		claiming, err := s.Claim(t.Context())
		require.NoError(t, err)
		for range 10 {
			<-time.After(4 * time.Second)
			require.NoError(t, claiming.Renew(t.Context()))
		}
		claim := drivertest.NextClaim(t, claiming.Head(), 2)
		require.NoError(t, claiming.Install(t.Context(), claim, drivertest.ClaimRecord(claim)))
		require.Error(t, claiming.Renew(t.Context()))
	})
}

func TestAFullStoreTakesNoWriteUntilThereIsRoom(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	version, err := s.Post(t.Context(), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	s.Open().Fill(true)
	rec := drivertest.NextRecord(head, nil)
	require.ErrorIs(t, s.Append(t.Context(), head, rec), driver.ErrFull)
	_, err = s.Post(t.Context(), driver.Note{Key: "k2", Value: []byte("v")})
	require.ErrorIs(t, err, driver.ErrFull)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	claiming, err := s.Claim(drivertest.Context(t))
	require.NoError(t, err)
	claim := drivertest.NextClaim(t, head, 2)
	require.ErrorIs(t, claiming.Install(t.Context(), claim, drivertest.ClaimRecord(claim)), driver.ErrFull)
	require.ErrorIs(t, s.Append(t.Context(), driver.Head{}, rec), driver.ErrConflict, "a conflict is heard")
	_, err = s.Post(t.Context(), driver.Note{Key: "k", Version: version})
	require.NoError(t, err, "a removal makes room")
	s.Fill(false)
	require.NoError(t, s.Append(t.Context(), head, rec))
}

func TestRollbackTakesBackAcknowledgedCommits(t *testing.T) {
	s := memory.New()
	first := drivertest.Install(t, s, 1)
	second := drivertest.Append(t, s, first, []byte("kept"))
	third := drivertest.Append(t, s, drivertest.Append(t, s, drivertest.Install(t, s, 2), nil), nil)
	s.Rollback(third.Revision)
	drivertest.SameHead(t, third, drivertest.ReadHead(t, s))
	s.Rollback(second.Revision)
	drivertest.SameHead(t, second, drivertest.ReadHead(t, s))
	require.Len(t, drivertest.ReadClaims(t, s, 0), 1)
	require.Len(t, drivertest.ReadLog(t, s, 0), 2)
	require.ErrorIs(t, s.Append(t.Context(), third, drivertest.NextRecord(third, nil)), driver.ErrConflict)
	s.Rollback(0)
	require.Equal(t, driver.Head{}, drivertest.ReadHead(t, s))
	drivertest.Install(t, s, 1)
}

func TestRollbackTakesBackASnapshotAndBringsBackWhatItStoodFor(t *testing.T) {
	s, ctx := memory.New(), drivertest.Context(t)
	first := drivertest.Append(t, s, drivertest.Install(t, s, 1), []byte("kept"))
	last := drivertest.Append(t, s, drivertest.Append(t, s, first, nil), nil)
	snapshot := driver.Snapshot{ID: driver.NewID(), Revision: last.Revision, Commit: last.Commit, Token: last.Claim.Token, Parts: 1}
	require.NoError(t, s.Stage(ctx, last.Claim, snapshot.ID, 0, []byte("entries")))
	require.NoError(t, s.Publish(ctx, last.Claim, snapshot))
	_, err := s.Trim(ctx, last.Claim)
	require.NoError(t, err)
	require.ErrorIs(t, s.Log(ctx, 0, func(driver.Record) error { return nil }), driver.ErrCompacted)
	s.Rollback(first.Revision)
	drivertest.SameHead(t, first, drivertest.ReadHead(t, s))
	require.Len(t, drivertest.ReadLog(t, s, 0), 2)
	require.NoError(t, s.Snapshot(ctx, func(driver.Snapshot, []byte) error { return errors.New("there is still a snapshot") }))
}

func TestEveryStepOfTheStoreIsReached(t *testing.T) {
	s := memory.New()
	var reached []step.Point
	ctx := step.With(drivertest.Context(t), func(p step.Point) { reached = append(reached, p) })
	claiming, err := s.Claim(ctx)
	require.NoError(t, err)
	claim := drivertest.NextClaim(t, claiming.Head(), 1)
	require.NoError(t, claiming.Install(ctx, claim, drivertest.ClaimRecord(claim)))
	require.NoError(t, s.Append(ctx, claim.Head(), drivertest.NextRecord(claim.Head(), nil)))
	require.NoError(t, s.Stage(ctx, claim, driver.NewID(), 0, nil))
	require.NoError(t, s.Publish(ctx, claim, driver.Snapshot{ID: driver.NewID(), Revision: 1, Commit: claim.ID, Token: claim.Token}))
	_, err = s.Trim(ctx, claim)
	require.NoError(t, err)
	require.Equal(t, []step.Point{
		step.ClaimBegun, step.ClaimCommitted, step.CommitBegun, step.CommitLanded,
		step.SnapshotStaged, step.SnapshotPublished, step.SnapshotTrimmed,
	}, reached)
}

func TestACallThatBreaksTheContractPanicsAndWritesNothing(t *testing.T) {
	s := memory.New()
	head := drivertest.Install(t, s, 1)
	rec := drivertest.NextRecord(head, nil)
	rec.Revision++
	err := s.Append(t.Context(), head, rec)
	var e *driver.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, exitcodes.Panic, e.Disposition())
	require.Equal(t, driver.NotApplied, e.Outcome)
	drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
}
