package catalog

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
)

func lossOver(head driver.ID, e epoch.Epoch, from, to uint64) Loss {
	return Loss{ID: driver.NewID(), From: from, To: to, Token: fence.Token{Generation: 1, Epoch: e}, Head: head}
}

func dismissed(l Loss) Loss {
	l.Ended = &LossEnd{How: LossDismissed, By: "operator"}
	return l
}

func overtaken(l Loss) Loss {
	l.Overtaken = true
	return l
}

func TestTwoFindersOfOneLossMakeItAsLargeAsEachSaw(t *testing.T) {
	t.Parallel()
	head := driver.NewID()
	few, many := lossOver(head, 2, 5, 5), lossOver(head, 3, 4, 9)
	for _, order := range [][]Loss{{few, many}, {many, few}} {
		led, _ := ledger{}.add(order[0])
		led, id := led.add(order[1])
		require.Len(t, led.Losses, 1)
		require.Equal(t, order[0].ID, id)
		require.Equal(t, lossOver(head, 3, 4, 9).Revisions(), led.Losses[0].Revisions())
		require.Equal(t, many.Token, led.Losses[0].Token, "a raise has to be above what anybody saw")
	}
}

// A loss that became part of one which forbids no claim would forbid none either.
func TestALossIsPartOfNoneThatHasEndedOrIsOvertakenOrHasAnotherHead(t *testing.T) {
	t.Parallel()
	head := driver.NewID()
	for what, known := range map[string]Loss{
		"ended":        dismissed(lossOver(head, 1, 3, 3)),
		"overtaken":    overtaken(lossOver(head, 1, 3, 3)),
		"another head": lossOver(driver.NewID(), 1, 3, 3),
	} {
		found := lossOver(head, 2, 7, 8)
		led, id := ledger{Losses: []Loss{known}}.add(found)
		require.Equal(t, []Loss{known, found}, led.Losses, what)
		require.Equal(t, found.ID, id, what)
		require.Contains(t, led.standing(), found, what)
	}
}

func TestALossThatIsSentTwiceDoesNotStandAgainOnceItHasEnded(t *testing.T) {
	t.Parallel()
	l := lossOver(driver.NewID(), 1, 3, 3)
	led, id := ledger{Losses: []Loss{dismissed(l)}}.add(l)
	require.Equal(t, l.ID, id)
	require.Len(t, led.Losses, 1)
	require.Empty(t, led.standing())
}

func TestOfTooManyLossesTheOldestThatForbidNoClaimGo(t *testing.T) {
	t.Parallel()
	standing := lossOver(driver.NewID(), 1, 3, 3)
	led := ledger{Losses: []Loss{standing}}
	for i := range uint64(maxLosses + 4) {
		led.Losses = append(led.Losses, dismissed(lossOver(driver.NewID(), 1, i+4, i+4)))
	}
	text, err := led.text()
	require.NoError(t, err)
	kept, err := readLedger(driver.Losses{Text: text})
	require.NoError(t, err)
	require.Len(t, kept.Losses, maxLosses)
	require.Equal(t, standing, kept.Losses[0])
	require.Equal(t, led.Losses[len(led.Losses)-1].ID, kept.Losses[maxLosses-1].ID)
}

func TestWhatEndsLossesEndsThoseThatAreOpenAndLeavesTheHistory(t *testing.T) {
	t.Parallel()
	past := dismissed(lossOver(driver.NewID(), 1, 3, 3))
	led := ledger{Losses: []Loss{past, overtaken(lossOver(driver.NewID(), 1, 4, 4)), lossOver(driver.NewID(), 1, 5, 5)}}
	by := LossEnd{How: LossRestored, By: "operator"}
	done := led.end(by)
	require.Equal(t, past, done.Losses[0])
	require.Equal(t, &by, done.Losses[1].Ended)
	require.Equal(t, &by, done.Losses[2].Ended)
	require.False(t, done.open())
	require.True(t, led.open(), "it was changed in place")
}

func TestALossIsTheOneThatWasReadAsLongAsNothingWasAddedAndNobodyEndedIt(t *testing.T) {
	t.Parallel()
	l := lossOver(driver.NewID(), 2, 3, 5)
	require.True(t, l.same(l))
	for i, change := range []func(*Loss){
		func(l *Loss) { l.From-- },
		func(l *Loss) { l.To++ },
		func(l *Loss) { l.Token.Epoch++ },
		func(l *Loss) { l.Overtaken = true },
		func(l *Loss) { *l = dismissed(*l) },
	} {
		now := l
		change(&now)
		require.False(t, now.same(l), fmt.Sprint(i))
		require.False(t, l.same(now), fmt.Sprint(i))
	}
}
