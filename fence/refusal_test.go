package fence_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestAGuardsWordIsAHintAndNeverEndsAProcessForGood(t *testing.T) {
	for _, current := range []fence.Token{token(7, 42), token(8, 42)} {
		hint := &fence.Error{Held: token(7, 41), Current: current, By: someone(), Guard: "postgres catalog main"}
		err := fmt.Errorf("commit: %w", hint)
		require.ErrorIs(t, err, fence.ErrFenced)
		require.NotErrorIs(t, err, fence.ErrSuperseded)
		require.False(t, hint.Superseded())
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
		held, seen := hint.Generations()
		require.LessOrEqual(t, seen, held, "no proof of a newer generation")
		require.ErrorContains(t, err, "refused by postgres catalog main: held g7.e41, the newest is "+current.String())
	}
}

func TestATokenThatWasNeverIssuedFencesNobody(t *testing.T) {
	for _, why := range []error{fence.ErrMissing, fence.ErrMalformed, fence.ErrNeverIssued} {
		err := fmt.Errorf("commit: %w", &fence.TokenError{Guard: "postgres catalog main", Token: strings.Repeat("g", 1000), Err: why})
		require.ErrorIs(t, err, why)
		require.NotErrorIs(t, err, fence.ErrFenced)
		require.NotErrorIs(t, err, fence.ErrSuperseded)
		require.Equal(t, exitcodes.None, exitcodes.Of(err))
		require.Less(t, len(err.Error()), 200, "what a stranger sent is shown in part")
	}
	require.EqualError(t, &fence.TokenError{Guard: "x", Err: fence.ErrMissing}, "refused by x: no token was given")
}
