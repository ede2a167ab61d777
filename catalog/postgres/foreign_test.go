package postgres_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestAClaimTakesNoLockThatEveryUserCanHold walks through the three stages of a
// database. Any user of it may hold any advisory lock for as long as it likes.
func TestAClaimTakesNoLockThatEveryUserCanHold(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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

// TestAClaimLocksTheTokenThatAppearsWhileItLooksForIt has the rows of token and
// head appear between the two statements that lock them.
func TestAClaimLocksTheTokenThatAppearsWhileItLooksForIt(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)         // makes the schema
	head := claim(t, s) // from here on its statements are prepared
	first := testpg.Connect(t, dsn)
	_, err := first.Exec(t.Context(), `create table public.token as table fencepost.token; create table public.head as table fencepost.head;
		delete from fencepost.token; delete from fencepost.head`)
	require.NoError(t, err)
	_, err = first.Exec(t.Context(), `begin; lock table fencepost.head in exclusive mode;
		insert into fencepost.token table public.token; insert into fencepost.head table public.head`)
	require.NoError(t, err)
	var c driver.Claiming
	done := make(chan error, 1)
	go func() {
		var err error
		c, err = s.Claim(within(t, soon))
		done <- err
	}()
	waiting(t, dsn)
	_, err = first.Exec(t.Context(), `commit`)
	require.NoError(t, err)
	require.NoError(t, <-done)
	defer c.Abandon()
	drivertest.SameHead(t, head, c.Head())
	for _, table := range []string{"token", "head"} {
		_, err = first.Exec(t.Context(), `select from fencepost.`+table+` for share nowait`)
		require.ErrorContains(t, err, "55P03", table)
	}
}

// TestAReaderOfTheTablesKeepsNoClaimOut is about a backup, such as by pg_dump,
// and about a session that looked and forgot to end its transaction.
func TestAReaderOfTheTablesKeepsNoClaimOut(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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

func TestWhatElseStandsInAClaimsWayIsRetriedAndNamed(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t, testpg.Setting("max_prepared_transactions = 2"), testpg.Setting("max_connections = 20"))
	s := open(t, server.URL)
	admin := testpg.Connect(t, server.URL)
	exec := func(sql string) {
		t.Helper()
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	exec(`create function public.no() returns event_trigger language plpgsql as $$ begin raise 'no tables on this server'; end $$;
		create event trigger no on ddl_command_start execute function public.no()`)
	_, err := tryClaim(within(t, soon), s)
	require.ErrorContains(t, err, "no tables on this server")
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	exec(`drop event trigger no`)
	claim(t, s)
	exec(`create event trigger no on ddl_command_end execute function public.no()`)
	_, err = tryClaim(within(t, soon), s)
	require.ErrorContains(t, err, "no tables on this server", "each claim renames the view that guards lock")
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	exec(`drop event trigger no; create or replace function public.no() returns event_trigger language plpgsql as $$ begin
		if exists (select from pg_event_trigger_ddl_commands() c where c.schema_name is distinct from 'fencepost') then raise 'no tables on this server'; end if;
	end $$; create event trigger no on ddl_command_end execute function public.no()`)
	claim(t, s)
	_, err = admin.Exec(t.Context(), `create table elsewhere ()`)
	require.Error(t, err)
	exec(`drop event trigger no`)

	exec(`begin; select from fencepost.token for share; prepare transaction 'left behind'`)
	err = blocked(t, s)
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, `the prepared transactions ["left behind"]`)
	exec(`rollback prepared 'left behind'`)
	claim(t, s)

	require.NoError(t, s.Close())
	var taken []*pgx.Conn
	for err = nil; err == nil; {
		var conn *pgx.Conn
		if conn, err = pgx.Connect(t.Context(), server.URL); err == nil {
			taken = append(taken, conn)
		}
	}
	late := open(t, server.URL)
	_, err = tryClaim(within(t, soon), late)
	require.ErrorContains(t, err, "53300")
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	for _, conn := range taken {
		require.NoError(t, conn.Close(t.Context()))
	}
	require.Eventually(t, func() bool { _, err = tryClaim(within(t, soon), late); return err == nil }, soon, often, "%v", err)
}
