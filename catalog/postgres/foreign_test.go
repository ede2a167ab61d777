package postgres_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestAClaimTakesNoLockThatEveryUserCanHold walks through the three stages of a
// database. Any user of it may hold any advisory lock for as long as it likes.
func TestAClaimTakesNoLockThatEveryUserCanHold(t *testing.T) {
	dsn := testpg.URL(t)
	s := open(t, dsn)
	look := testpg.Connect(t, dsn)
	for _, stage := range []string{"an empty database", "a catalog that nobody has claimed", "a catalog"} {
		c, err := s.Claim(within(t, soon))
		require.NoError(t, err, stage)
		var advisory, relations int
		require.NoError(t, look.QueryRow(t.Context(), `select count(*) filter (where locktype = 'advisory'), count(*) filter (where locktype = 'relation')
			from pg_locks where pid <> pg_backend_pid() and database = (select oid from pg_database where datname = current_database())`).
			Scan(&advisory, &relations))
		require.Zero(t, advisory, stage)
		require.NotZero(t, relations, stage)
		if stage != "an empty database" {
			installed, rec := nextClaim(c.Head())
			require.NoError(t, c.Install(within(t, soon), installed, rec), stage)
			continue
		}
		c.Abandon()
		_, err = s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
		require.NoError(t, err)
	}
}

func TestAFirstClaimIsBlockedByAnotherFirstClaimAndNamesIt(t *testing.T) {
	for _, made := range []bool{false, true} {
		t.Run(fmt.Sprintf("schema is there: %v", made), func(t *testing.T) {
			dsn := testpg.URL(t)
			s, other := open(t, dsn), open(t, withParam(t, dsn, "application_name", "first"))
			if made {
				_, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
				require.NoError(t, err)
			}
			first, err := other.Claim(within(t, soon))
			require.NoError(t, err)
			err = blocked(t, s)
			require.ErrorIs(t, err, driver.ErrBlocked)
			require.ErrorContains(t, err, `application "first"`)
			fails(t, err, exitcodes.Retry, driver.NotApplied)

			done := make(chan error, 1)
			go func() {
				_, err := tryClaim(within(t, soon), s)
				done <- err
			}()
			waiting(t, dsn)
			installed, rec := nextClaim(first.Head())
			require.NoError(t, first.Install(within(t, soon), installed, rec))
			require.NoError(t, <-done)
			require.EqualValues(t, 2, drivertest.ReadHead(t, s).Claim.Token.Epoch)
			notes, err := s.Notes(within(t, soon), "")
			require.NoError(t, err)
			require.Len(t, notes, map[bool]int{true: 1}[made], "what keeps a first claim's place is seen by nobody")
		})
	}
}

// TestAReaderOfTheTablesKeepsNoClaimOut is about a backup, such as by pg_dump,
// and about a session that looked and forgot to end its transaction.
func TestAReaderOfTheTablesKeepsNoClaimOut(t *testing.T) {
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := claim(t, s)
	reader := testpg.Connect(t, dsn)
	_, err := reader.Exec(t.Context(), `begin isolation level serializable read only; select * from fencepost.head, fencepost.token, fencepost.log;
		lock table fencepost.head, fencepost.log in access share mode`)
	require.NoError(t, err)
	again := claim(t, s)
	require.Equal(t, head.Revision+1, again.Revision)
	require.NoError(t, s.Append(within(t, soon), again, next(again)))
}

// TestAClaimBlockedByALockOnATableNamesWhoHoldsIt is about VACUUM FULL, ALTER
// TABLE, CREATE INDEX and the like, which only the tables' owner may run.
func TestAClaimBlockedByALockOnATableNamesWhoHoldsIt(t *testing.T) {
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	for _, lock := range []string{
		`lock table fencepost.token in access exclusive mode`,
		`create index on fencepost.head (revision)`,
		`create index on fencepost.log (generation)`,
		`alter table fencepost.claim add column note text`,
	} {
		t.Run(lock, func(t *testing.T) {
			ddl := testpg.Connect(t, withParam(t, dsn, "application_name", "ddl"))
			_, err := ddl.Exec(t.Context(), `begin; `+lock)
			require.NoError(t, err)
			err = blocked(t, s)
			require.ErrorIs(t, err, driver.ErrBlocked)
			require.ErrorContains(t, err, fmt.Sprintf(`process %d (application "ddl"`, ddl.PgConn().PID()))
			fails(t, err, exitcodes.Retry, driver.NotApplied)
			_, err = ddl.Exec(t.Context(), `rollback`)
			require.NoError(t, err)
			claim(t, s)
		})
	}
}
