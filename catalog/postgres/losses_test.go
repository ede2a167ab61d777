package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestNoLossIsRecordedAtTheHeadBeforeAClaimThatHasLanded has the record wait for the
// last moment of a claim, which has moved the head by then.
func TestNoLossIsRecordedAtTheHeadBeforeAClaimThatHasLanded(t *testing.T) {
	t.Parallel()
	for _, recorded := range []bool{false, true} {
		dsn := testpg.URL(t)
		s := open(t, dsn)
		head := claim(t, s)
		l, err := s.Losses(within(t, soon))
		require.NoError(t, err)
		l.Text = []byte("before")
		if recorded {
			l.Version, err = s.PutLosses(within(t, soon), l, &head)
			require.NoError(t, err)
		}
		var put <-chan error
		ctx := step.With(within(t, soon), func(p step.Point) {
			if p == step.ClaimHeadWritten {
				put = async(func() error { _, err := s.PutLosses(within(t, soon), l, &head); return err })
				waiting(t, dsn)
			}
		})
		_, err = tryClaim(ctx, open(t, dsn))
		require.NoError(t, err)
		err = <-put
		require.ErrorIs(t, err, driver.ErrConflict)
		require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	}
}
