package leader_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/leader"
)

// back are the moves that lead back.
var back = map[[2]leader.Phase]bool{
	{leader.ReadyToPromote, leader.CatchingUp}: true,
	{leader.Promoting, leader.CatchingUp}:      true,
	{leader.HandingOver, leader.CatchingUp}:    true,
	{leader.HandingOver, leader.Leading}:       true,
	{leader.Unconfirmed, leader.Leading}:       true,
}

// The table is small enough to check whole.
func TestPhasesMoveAlongTheTableOnly(t *testing.T) {
	t.Parallel()
	for from := leader.Initializing; from <= leader.Failed; from++ {
		for to := leader.Initializing; to <= leader.Failed; to++ {
			got, err := from.To(to)
			if err != nil {
				var te *leader.TransitionError
				require.ErrorAs(t, err, &te)
				require.Equal(t, from, got)
				continue
			}
			require.Equal(t, to, got)
			require.False(t, from.Ended(), "%v is an end", from)
			require.True(t, to > from || back[[2]leader.Phase{from, to}], "%v may become %v, which is a step back", from, to)
		}
		if !from.Ended() {
			for _, end := range []leader.Phase{leader.Superseded, leader.Fenced, leader.Stopped, leader.Failed} {
				_, err := from.To(end)
				require.NoError(t, err)
			}
		}
		var read leader.Phase
		text, err := from.MarshalText()
		require.NoError(t, err)
		require.NoError(t, read.UnmarshalText(text))
		require.Equal(t, from, read)
	}
}
