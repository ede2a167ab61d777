package fence_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func someone() fence.Holder {
	return fence.Holder{
		Name: "db-2", Address: "10.0.0.2:8443", Build: "4f2a",
		Since: time.Date(2026, 5, 1, 12, 0, 0, 0, time.FixedZone("elsewhere", 7200)),
	}
}

func TestOnlyAHigherTokenFences(t *testing.T) {
	require.NoError(t, fence.Check(token(7, 41), token(7, 41), someone()))
	require.NoError(t, fence.Check(token(7, 41), token(7, 40), someone()))
	require.NoError(t, fence.Check(token(7, 41), token(6, 99), someone()))
	require.Error(t, fence.Check(token(7, 41), token(7, 42), someone()))
	require.Error(t, fence.Check(token(7, 41), token(8, 42), someone()))
}

func TestFencedByEpochHalts(t *testing.T) {
	err := fmt.Errorf("commit: %w", fence.Check(token(7, 41), token(7, 42), someone()))
	require.ErrorIs(t, err, fence.ErrFenced)
	require.NotErrorIs(t, err, fence.ErrSuperseded)
	var fenced *fence.Error
	require.ErrorAs(t, err, &fenced)
	require.False(t, fenced.Superseded())
	require.Equal(t, exitcodes.Halt, fenced.Disposition())
	require.EqualError(t, err, "commit: fenced by epoch: held g7.e41, the store has g7.e42 of "+
		"db-2, at 10.0.0.2:8443, build 4f2a, since 2026-05-01T10:00:00Z: end, and start again as a standby")
}

func TestSupersededEndsGracefully(t *testing.T) {
	err := fmt.Errorf("commit: %w", fence.Check(token(7, 41), token(8, 42), fence.Holder{}))
	require.ErrorIs(t, err, fence.ErrFenced)
	require.ErrorIs(t, err, fence.ErrSuperseded)
	var fenced *fence.Error
	require.ErrorAs(t, err, &fenced)
	require.True(t, fenced.Superseded())
	require.Equal(t, exitcodes.GracefulExit, fenced.Disposition())
	held, current := fenced.Generations()
	require.Equal(t, [2]uint64{7, 8}, [2]uint64{held, current})
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
	require.EqualError(t, err, "commit: superseded: held g7.e41, the store has g8.e42 of an unnamed holder: "+
		"end for good: a newer generation leads")
}

func TestAProcessThatWasSupersededBeforeItsClaimIsNotSaidToHaveHeldAToken(t *testing.T) {
	err := fence.Check(token(7, 0), token(8, 42), fence.Holder{})
	require.EqualError(t, err, "superseded: generation 7 held no token, the store has g8.e42 of an unnamed holder: end for good: a newer generation leads")
}

func TestAFenceMatchesNothingElse(t *testing.T) {
	err := fence.Check(token(7, 41), token(8, 42), someone())
	require.NotErrorIs(t, err, fence.ErrMalformed)
	require.NotErrorIs(t, err, errors.New("superseded"))
}

func TestAHolderIsNamedByWhatIsKnown(t *testing.T) {
	require.Equal(t, "an unnamed holder", fence.Holder{}.String())
	require.Equal(t, "db-2", fence.Holder{Name: "db-2"}.String())
	require.Equal(t, "an unnamed holder, at :80, build x", fence.Holder{Address: ":80", Build: "x"}.String())
}
