package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpg"
)

func tokenOf(g generation.Generation, e epoch.Epoch) fence.Token {
	return fence.Token{Generation: g, Epoch: e}
}

// orders makes a table of the application's and returns a pool in its database.
func orders(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	testpg.Exec(t, dsn, `create table orders (id int primary key, note text)`)
	return poolOf(t, dsn)
}

func poolOf(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(withoutParam(t, dsn, "catalog"))
	require.NoError(t, err)
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() { // perhaps with a transaction that nobody ends, for which Close waits
			go pool.Close()
			return
		}
		pool.Close()
	})
	return pool
}

func withoutParam(t *testing.T, dsn, name string) string {
	return testpg.With(t, dsn, func(u *url.URL) {
		q := u.Query()
		q.Del(name)
		u.RawQuery = q.Encode()
	})
}

func count(t *testing.T, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, table string,
) (n int) {
	t.Helper()
	require.NoError(t, q.QueryRow(t.Context(), `select count(*) from `+table).Scan(&n))
	return n
}

// A guarded way is one of those by which an application guards a transaction, here
// with one write in it.
type guardedWay func(ctx context.Context, token fence.Token) error

// waysToGuard are those of this package, at every isolation level.
func waysToGuard(t *testing.T, dsn string) map[string]guardedWay {
	pool := poolOf(t, dsn)
	db, err := sql.Open("pgx", withoutParam(t, dsn, "catalog"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	const write = `insert into orders values ((random() * 1e9)::int, 'x')`
	ways := map[string]guardedWay{}
	for level, standard := range map[pgx.TxIsoLevel]sql.IsolationLevel{
		pgx.ReadCommitted: sql.LevelReadCommitted, pgx.RepeatableRead: sql.LevelRepeatableRead, pgx.Serializable: sql.LevelSerializable,
	} {
		ways["Begin, "+string(level)] = func(ctx context.Context, token fence.Token) error {
			tx, err := postgres.Begin(ctx, pool, token, postgres.WithTxOptions(pgx.TxOptions{IsoLevel: level}))
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, write)
			return errors.Join(err, tx.Commit(ctx))
		}
		ways["Exec, "+string(level)] = func(ctx context.Context, token fence.Token) error {
			_, err := postgres.Exec(ctx, pool, token, write, postgres.WithTxOptions(pgx.TxOptions{IsoLevel: level}))
			return err
		}
		ways["Guard behind the write, "+string(level)] = func(ctx context.Context, token fence.Token) error {
			return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, write); err != nil {
					return err
				}
				return postgres.Guard(ctx, tx, token)
			})
		}
		ways["GuardSQL, "+string(level)] = func(ctx context.Context, token fence.Token) error {
			tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: standard})
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback() }()
			if err := postgres.GuardSQL(ctx, tx, token); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, write); err != nil {
				return err
			}
			return tx.Commit()
		}
	}
	return ways
}

func TestAStaleHolderIsRefusedByEveryGuardAndTheHeadSaysHowItEnds(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	blue := holder(t, dsn, 1)
	held := blue.Claim().Token
	pool := orders(t, dsn)
	ways := waysToGuard(t, dsn)
	for name, way := range ways {
		require.NoError(t, way(within(t, soon), held), name)
	}
	require.Equal(t, len(ways), count(t, pool, "orders"))

	green := drivertest.Install(t, open(t, dsn), 2)
	for name, way := range ways {
		err := way(within(t, soon), held)
		var fenced *fence.Error
		require.ErrorAs(t, err, &fenced, name)
		require.Equal(t, [2]fence.Token{held, green.Claim.Token}, [2]fence.Token{fenced.Held, fenced.Current}, name)
		require.Equal(t, "postgres catalog main", fenced.Guard)
		require.Equal(t, green.Claim.Holder.Name, fenced.By.Name)
		require.Equal(t, fenced, postgres.Refusal(err))
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err), "a guard's word is a hint")
	}
	require.Equal(t, len(ways), count(t, pool, "orders"), "nothing stale was written")
	err := blue.Explain(t.Context(), ways["Begin, read committed"](within(t, soon), held))
	require.ErrorIs(t, err, fence.ErrSuperseded)
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
	guards, err := open(t, dsn).Guards(within(t, soon))
	require.NoError(t, err)
	require.EqualValues(t, len(ways)+1, guards.Refused)
}

// TestARefusalSaysWhatItIsWhateverTheHoldersAreCalled has names that PostgreSQL's JSON
// refuses, and names that look like a claim.
func TestARefusalSaysWhatItIsWhateverTheHoldersAreCalled(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	stale := drivertest.Install(t, s, 1).Claim.Token
	conn := testpg.Connect(t, dsn)
	for _, name := range []string{"é\u2028\\\"'%s", `"token":"g9.e1",`, "a\x00b", `{"token":"g9.e1",`} {
		c, err := s.Claim(within(t, soon))
		require.NoError(t, err)
		next, rec := nextClaim(c.Head())
		next.Holder.Name = name
		require.NoError(t, c.Install(within(t, soon), next, rec))
		_, err = postgres.Begin(within(t, soon), conn, stale)
		var fenced *fence.Error
		require.ErrorAs(t, err, &fenced, name)
		require.Equal(t, next.Token, fenced.Current)
		if strings.Contains(name, "\x00") {
			name = ""
		}
		require.Equal(t, name, fenced.By.Name)
		_, err = postgres.Begin(within(t, soon), conn, tokenOf(9, 1))
		require.ErrorIs(t, err, fence.ErrNeverIssued)
	}
}

func TestWhatNoGuardHasSaidIsNoRefusal(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("another"), fence.Check(tokenOf(1, 1), tokenOf(2, 2), fence.Holder{}), &driver.Error{Err: errors.New("full")}, &pgconn.PgError{Code: "40001"}} {
		require.NoError(t, postgres.Refusal(err), "%v", err)
	}
}

func TestATokenThatNoClaimHasInstalledIsARefusalOfItsOwn(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 3)
	drivertest.Install(t, s, 5)
	orders(t, dsn)
	for name, way := range waysToGuard(t, dsn) {
		for token, want := range map[fence.Token]error{
			{}:                                 fence.ErrMissing,
			tokenOf(5, 3):                      fence.ErrNeverIssued,
			tokenOf(9, 9):                      fence.ErrNeverIssued,
			tokenOf(generation.Max, epoch.Max): fence.ErrNeverIssued,
			tokenOf(4, 1):                      fence.ErrNeverIssued, // lower than the newest, and in nobody's claim
			tokenOf(3, 0):                      fence.ErrNeverIssued,
			{Generation: generation.Max + 1, Epoch: 1}: generation.ErrOverflow,
		} {
			err := way(within(t, soon), token)
			require.ErrorIs(t, err, want, "%s, %v", name, token)
			require.NotErrorIs(t, err, fence.ErrFenced)
			require.Equal(t, exitcodes.None, exitcodes.Of(err))
		}
		err := way(within(t, soon), tokenOf(3, 1))
		require.ErrorIs(t, err, fence.ErrFenced, "the token of an earlier claim")
	}
}

func TestACatalogWithoutAGuardIsSaidToHaveNone(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	pool := orders(t, dsn)
	begin := func(catalog string) error {
		tx, err := postgres.Begin(within(t, soon), pool, tokenOf(1, 1), postgres.InCatalog(catalog))
		if err != nil {
			return err
		}
		return tx.Rollback(within(t, soon))
	}
	err := begin("main")
	require.ErrorIs(t, err, postgres.ErrNoGuards, "there is no schema")
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.ErrorContains(t, err, "fencepost guard install")
	claim(t, open(t, dsn))
	require.NoError(t, begin("main"))
	err = begin("other")
	require.ErrorIs(t, err, postgres.ErrNoGuards, "nobody has claimed it")
	require.ErrorIs(t, postgres.Refusal(err), postgres.ErrNoGuards)
	require.Error(t, begin(`main', 'g1.e1'); drop table orders; --`))
	require.Zero(t, count(t, pool, "orders"))
	testpg.Exec(t, dsn, `drop function fencepost.guard`)
	_, err = postgres.Begin(within(t, soon), testpg.Connect(t, dsn), tokenOf(1, 1))
	require.ErrorIs(t, err, postgres.ErrNoGuards)
	testpg.Exec(t, dsn, `drop schema fencepost cascade`)
	require.ErrorIs(t, begin("main"), postgres.ErrNoGuards, "on a connection that has begun guarded transactions before")
}

func TestEveryCatalogHasAGuardOfItsOwnHoweverLongItsName(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	pool := orders(t, dsn)
	long := strings.Repeat("a", 62)
	for i, name := range []string{"a", "b-c_d", long + "a", long + "b"} {
		s := open(t, withParam(t, dsn, "catalog", name))
		drivertest.Install(t, s, generation.Generation(i+1))
		tx, err := postgres.Begin(within(t, soon), pool, tokenOf(generation.Generation(i+1), 1), postgres.InCatalog(name))
		require.NoError(t, err, name)
		claim(t, open(t, dsn)) // of another catalog: it does not wait for that transaction
		require.NoError(t, tx.Commit(within(t, soon)))
		guards, err := s.Guards(within(t, soon))
		require.NoError(t, err)
		require.Zero(t, guards.Refused)
	}
	one, other := open(t, withParam(t, dsn, "catalog", long+"a")), open(t, withParam(t, dsn, "catalog", long+"b"))
	tx, err := postgres.Begin(within(t, soon), pool, tokenOf(3, 1), postgres.InCatalog(long+"a"))
	require.NoError(t, err)
	drivertest.Install(t, other, 9)
	require.NoError(t, tx.Commit(within(t, soon)), "the claim has neither waited for it nor ended it")
	_, err = postgres.Begin(within(t, soon), pool, tokenOf(4, 1), postgres.InCatalog(long+"b"))
	require.ErrorIs(t, err, fence.ErrFenced)
	guards, err := one.Guards(within(t, soon))
	require.NoError(t, err)
	require.Zero(t, guards.Refused, "refusals are counted apart")
}

func TestAConnectionOnWhichAGuardHasRefusedGoesOn(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	pooled, err := orders(t, dsn).Acquire(t.Context())
	require.NoError(t, err)
	defer pooled.Release()
	for _, b := range []postgres.Beginner{testpg.Connect(t, dsn), pooled} {
		for range 2 {
			_, err := postgres.Begin(within(t, soon), b, tokenOf(9, 9))
			require.ErrorIs(t, err, fence.ErrNeverIssued)
			tx, err := postgres.Begin(within(t, soon), b, token)
			require.NoError(t, err)
			require.Zero(t, count(t, tx, "orders"))
			require.NoError(t, tx.Commit(within(t, soon)))
		}
	}
}

// TestAGuardMakesNoMultixact has two guarded transactions in flight: two lockers of
// one row would share a multixact, which the row would bear.
func TestAGuardMakesNoMultixact(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	pool := poolOf(t, dsn)
	look := testpg.Connect(t, dsn)
	for _, level := range []pgx.TxIsoLevel{pgx.ReadUncommitted, pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		var both []pgx.Tx
		for range 2 {
			tx, err := postgres.Begin(within(t, soon), pool, token, postgres.WithTxOptions(pgx.TxOptions{IsoLevel: level}))
			require.NoError(t, err)
			both = append(both, tx)
		}
		var locked bool
		require.NoError(t, look.QueryRow(t.Context(), `select xmax::text <> '0' from fencepost.token`).Scan(&locked))
		require.False(t, locked, level)
		for _, tx := range both {
			require.NoError(t, tx.Commit(within(t, soon)))
		}
	}
}

func TestAGuardedTransactionWorksBehindAPoolerAndForAReader(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	orders(t, dsn)
	config, err := pgxpool.ParseConfig(testpg.NewPooler(t, dsn, 4).URL)
	require.NoError(t, err)
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	for i := range 3 {
		tx, err := postgres.Begin(within(t, soon), pool, token)
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `insert into orders values ($1, 'x')`, i)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(within(t, soon)))
	}
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		tx, err := postgres.Begin(within(t, soon), pool, token, postgres.WithTxOptions(pgx.TxOptions{IsoLevel: level, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.NotDeferrable}))
		require.NoError(t, err, level)
		require.Equal(t, 3, count(t, tx, "orders"))
		require.NoError(t, tx.Commit(within(t, soon)))
	}
	_, err = postgres.Begin(within(t, soon), pool, token, postgres.WithTxOptions(pgx.TxOptions{BeginQuery: "begin"}))
	require.ErrorContains(t, err, "BeginQuery")
}

// TestAWriterNeedsNoRightButTheSightOfTheSchema has a role write that may do nothing
// else with the catalog.
func TestAWriterNeedsNoRightButTheSightOfTheSchema(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	orders(t, dsn)
	role := "writer_" + driver.NewID().String()
	testpg.Exec(t, dsn, "alter default privileges revoke execute on functions from public") // as many do
	testpg.Exec(t, dsn, "create role "+role+" login password 'pw'", "grant select, insert on orders to "+role, postgres.Schema("", role))
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role+"; drop role "+role) })
	mine := testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") })
	for name, way := range waysToGuard(t, mine) {
		require.NoError(t, way(within(t, soon), token), name)
		require.ErrorIs(t, way(within(t, soon), tokenOf(7, 7)), fence.ErrNeverIssued)
	}
	conn := testpg.Connect(t, mine)
	live := `"main@` + token.String() + `"`
	for _, sql := range []string{
		`select * from fencepost.token`, `select fencepost.await_guards('main')`, `select fencepost.guard_refuse('main', '')`,
		`select * from fencepost.` + live, `begin; lock table fencepost.` + live + ` in share mode`, `rollback; begin; lock table fencepost.` + live + ` in share row exclusive mode`,
		`rollback; select nextval('fencepost."refused:main"')`, `insert into fencepost.guard_mark values ('main')`,
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "permission denied", sql)
	}
}
