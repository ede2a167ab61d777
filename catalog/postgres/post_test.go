package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

// held opens a store that has claimed, and so knows where it is.
func held(t *testing.T) (s *Store, dsn string) {
	t.Helper()
	dsn = testpg.URL(t)
	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	drivertest.Install(t, s, 1)
	return s, dsn
}

func TestANoteGoesToNoServerThatWasNotLookedAt(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	known := *s.place.Load()
	known.started = known.started.Add(-time.Second) // as if another process answered now
	s.place.Store(&known)
	_, err := s.Post(drivertest.Context(t), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err, "the right one")

	s.place.Store(&known)
	testpg.Exec(t, dsn, `update fencepost.token set system_id = '1'`)
	for _, n := range []driver.Note{{Key: "other", Value: []byte("v")}, {Key: "none"}} {
		s.place.Store(&known)
		_, err = s.Post(drivertest.Context(t), n)
		require.ErrorIs(t, err, errElsewhere)
		require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	}
	testpg.Exec(t, dsn, `do $$ begin assert (select count(*) from fencepost.board) = 1; end $$`)
}

func TestACommitGoesToNoServerThatWasNotLookedAt(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	head := drivertest.ReadHead(t, s)
	known := *s.place.Load()
	known.started = known.started.Add(-time.Second) // as if another process answered now
	s.place.Store(&known)
	head = drivertest.Append(t, s, head, []byte("the right one"))

	s.place.Store(&known)
	testpg.Exec(t, dsn, `update fencepost.token set system_id = '1'`)
	err := s.Append(drivertest.Context(t), head, drivertest.NextRecord(head, nil))
	require.ErrorIs(t, err, errElsewhere)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	testpg.Exec(t, dsn, `do $$ begin assert (select count(*) from fencepost.log) = 2; end $$`)
}

func TestACommitToASchemaThatWasDroppedIsAConflict(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	head := drivertest.ReadHead(t, s)
	testpg.Exec(t, dsn, `drop schema fencepost cascade`)
	for range 2 { // by a store that has looked at the server, and by one that has not
		err := s.Append(drivertest.Context(t), head, drivertest.NextRecord(head, nil))
		require.ErrorIs(t, err, driver.ErrConflict)
		require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
		s.place.Store(nil)
	}
}

func TestANoteGoesToNoCatalogWhoseClaimWasNotLookedAt(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	_, err := s.Post(drivertest.Context(t), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	// The copy of another system, restored while the server runs.
	testpg.Exec(t, dsn, `update fencepost.token set system_id = '1', claim_id = gen_random_uuid();
		update fencepost.head set claim = replace(claim, (select commit_id::text from fencepost.head), ''), commit_id = (select claim_id from fencepost.token)`)
	_, err = s.Post(drivertest.Context(t), driver.Note{Key: "other", Value: []byte("v")})
	require.Error(t, err)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	testpg.Exec(t, dsn, `do $$ begin assert (select count(*) from fencepost.board) = 1; end $$`)
}

func TestANoteIsPostedAlsoIfAnotherProcessHasClaimedMeanwhile(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	other, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	drivertest.Install(t, other, 2)
	_, err = s.Post(drivertest.Context(t), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
}

func TestABoardThatIsMissingIsNoConflict(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	testpg.Exec(t, dsn, `drop table fencepost.board`)
	for _, n := range []driver.Note{{Key: "k", Value: []byte("v")}, {Key: "k", Value: []byte("v"), Version: 1}, {Key: "k", Version: 1}, {Key: "k"}} {
		_, err := s.Post(drivertest.Context(t), n)
		require.NotErrorIs(t, err, driver.ErrConflict)
		require.Equal(t, "42P01", sqlState(err))
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
	}
}

func TestAClaimWhoseTableIsMissingEndsWithTheServersAnswer(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	testpg.Exec(t, dsn, `drop table fencepost.token`)
	_, err := s.Claim(drivertest.Context(t))
	require.Equal(t, "42P01", sqlState(err))
}
