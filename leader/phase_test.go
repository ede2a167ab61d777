package leader_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/leader"
)

// The table is small enough to check whole.
func TestPhasesMoveAlongTheTableOnly(t *testing.T) {
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
			back := from == leader.Promoting && to == leader.CatchingUp
			require.True(t, to > from || back, "%v may become %v, which is a step back", from, to)
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
