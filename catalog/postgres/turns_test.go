package postgres

import (
	"context"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/gather"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestAClaimThatFailsBeforeItBeginsGivesItsTurnBack is about a DSN of one host and
// of two: with two, the hosts are looked at before.
func TestAClaimThatFailsBeforeItBeginsGivesItsTurnBack(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	two := testpg.With(t, dsn, func(u *url.URL) { u.Host += ",localhost:" + u.Port() })
	for _, dsn := range []string{dsn, two} {
		s, err := Open(t.Context(), dsn, Config{MaxConns: 1}) // one turn
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 { // some of them end while they wait for their turn
			_, err := s.Claim(ctx)
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, s.turns)
		}
		drivertest.Install(t, s, 1)
		if s.several {
			refuseAtTheLook(t, s)
		}
	}
}

// refuseAtTheLook has the look at the hosts find that no claim can be made.
func refuseAtTheLook(t *testing.T, s *Store) {
	t.Helper()
	looks := s.looks
	defer func() { s.looks = looks }()
	twins := func(context.Context, struct{}) ([]sight, error) { return nil, errTwins }
	s.looks = gather.New(1, 1, twins, func(context.Context, []struct{}) []gather.Answer[[]sight] { return nil })
	defer s.looks.Close()
	_, err := s.Claim(drivertest.Context(t))
	require.ErrorIs(t, err, errTwins)
	require.Empty(t, s.turns)
}
