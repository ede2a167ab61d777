package postgres_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpg"
)

// guardedTables makes tables of several kinds and guards them.
func guardedTables(t *testing.T, dsn string, s *postgres.Store) {
	t.Helper()
	testpg.Exec(t, dsn, `
		create schema app;
		create table app.orders (id int primary key, note text);
		create table app.lines (id int, order_id int references app.orders on delete cascade on update cascade);
		create table app.events (id int, day int) partition by range (day);
		create table app.events_1 partition of app.events for values from (1) to (2);
		create table app.parent (id int);
		create table app.child () inherits (app.parent);
		create table app.incoming (id int);
		create function app.place(n int) returns void language sql as 'insert into app.orders values (n, ''by a function'')'`)
	require.NoError(t, s.InstallGuards(within(t, soon), driver.GuardedTables{
		Tables: []string{"app.orders", "app.lines", "app.events", "app.parent"},
	}))
	testpg.Exec(t, dsn, `create table app.events_2 partition of app.events for values from (2) to (3);
		create table app.events_3 (id int, day int); alter table app.events attach partition app.events_3 for values from (3) to (4)`,
		`insert into app.incoming select generate_series(100, 199)`)
}

// writes are the ways to write to guarded tables.
func writes() map[string]string {
	return map[string]string{
		"insert":                      `insert into app.orders values (1, 'x')`,
		"insert of many":              `insert into app.orders select generate_series(10, 2000), 'x'`,
		"update":                      `update app.orders set note = 'y' where id = 0`,
		"delete":                      `delete from app.orders where id = 0`,
		"upsert":                      `insert into app.orders values (0, 'z') on conflict (id) do update set note = 'z'`,
		"a write in a CTE":            `with w as (insert into app.orders values (2, 'x') returning id) select * from w`,
		"merge":                       `merge into app.orders o using app.incoming i on o.id = i.id when not matched then insert values (i.id, 'm')`,
		"function":                    `select app.place(3)`,
		"do":                          `do $$ begin perform app.place(4); exception when others then raise; end $$`,
		"truncate":                    `truncate app.orders cascade`,
		"truncate of a child alone":   `truncate only app.lines`,
		"cascade":                     `update app.orders set id = -1 where id = 0`,
		"partition":                   `insert into app.events values (1, 1)`,
		"the partition itself":        `insert into app.events_1 values (1, 1)`,
		"a partition that came later": `insert into app.events_2 values (1, 2)`,
		"an attached one":             `delete from app.events_3; insert into app.events_3 values (1, 3)`,
		"a move between partitions":   `update app.events set day = 2 where day = 1`,
		"truncate of partitions":      `truncate app.events`,
		"truncate of one":             `truncate app.events_1`,
		"child":                       `insert into app.child values (1)`,
		"parent":                      `update app.parent set id = id + 1`,
		"behind a savepoint":          `savepoint a; insert into app.orders values (5, 'gone'); rollback to a; insert into app.orders values (6, 'kept')`,
		"checked at once":             `savepoint a; insert into app.orders values (7, 'gone'); rollback to a; set constraints all immediate; insert into app.orders values (8, 'kept'); set constraints all deferred`,
		"with a flag from elsewhere":  `select set_config('fencepost.due', 'main', true); insert into app.orders values (9, 'x')`,
		"another table first":         `insert into app.incoming values (1); insert into app.orders values (1, 'x')`,
	}
}

func TestEveryWriteToAGuardedTableNeedsTheNewestTokenAtItsCommit(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	first := drivertest.Install(t, s, 1).Claim.Token
	guardedTables(t, dsn, s)
	conn := testpg.Connect(t, dsn)
	testpg.Exec(t, dsn, `set fencepost.token = 'g1.e1'; insert into app.orders values (0, 'x'); insert into app.lines values (0, 0);
		insert into app.events values (0, 1), (0, 2), (0, 3); insert into app.parent values (0); insert into app.child values (0)`)
	second := drivertest.Install(t, s, 2).Claim.Token

	tokens := map[string]error{
		"": fence.ErrMissing, first.String(): fence.ErrFenced, second.String(): nil, "g2.e3": fence.ErrNeverIssued, "g1.e9": fence.ErrNeverIssued,
		"g2.e2 ": fence.ErrMalformed, "G2.e2": fence.ErrMalformed, "g2.e02": fence.ErrMalformed, "g2.e99999999999999999999": fence.ErrMalformed,
		"g9223372036854775808.e1": fence.ErrMalformed, "é": fence.ErrMalformed, strings.Repeat("g2.e2", 1<<18): fence.ErrMalformed,
		"g2.e2\ng2.e2": fence.ErrMalformed, "g-1.e2": fence.ErrMalformed, "2.2": fence.ErrMalformed, "$1": fence.ErrMalformed, `'; drop table app.orders; --`: fence.ErrMalformed,
	}
	for name, sql := range writes() {
		if name == "merge" && lacksMerge(t, conn) {
			continue
		}
		for token, want := range tokens {
			if len(token) > 41 && name != "insert" && name != "truncate" {
				continue
			}
			err := committed(t, conn, token, sql)
			if want == nil {
				require.NoError(t, err, name)
				continue
			}
			require.ErrorIs(t, postgres.Refusal(err), want, "%s with token %.50q: %v", name, token, err)
		}
	}
	guards, err := s.Guards(within(t, soon))
	require.NoError(t, err)
	require.Greater(t, guards.Refused, int64(200))
}

// lacksMerge tells of PostgreSQL 14.
func lacksMerge(t *testing.T, conn *pgx.Conn) (lacks bool) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), `select current_setting('server_version_num')::int < 150000`).Scan(&lacks))
	return lacks
}

// committed writes under a token, in a transaction that is rolled back behind its
// check: what is deferred runs at once.
func committed(t testing.TB, conn *pgx.Conn, token, sql string) error {
	t.Helper()
	tx, err := conn.Begin(within(t, soon))
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(within(t, soon))) }()
	_, err = tx.Exec(t.Context(), `select pg_catalog.set_config('fencepost.token', $1, true)`, token)
	require.NoError(t, err)
	if _, err = tx.Exec(t.Context(), sql); err != nil {
		return err
	}
	_, err = tx.Exec(t.Context(), `set constraints all immediate`)
	return err
}

func TestACopyAndAStatementByItselfAreGuarded(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 1)
	guardedTables(t, dsn, s)
	for _, token := range []string{"", "g1.e2", "g1.e1"} {
		ok := token == "g1.e1"
		conn := testpg.Connect(t, dsn)
		_, err := conn.Exec(t.Context(), `select set_config('fencepost.token', $1, false)`, token)
		require.NoError(t, err)
		rows := [][]any{{1, "copied"}, {2, "copied"}, {3, "copied"}}
		_, copyErr := conn.CopyFrom(within(t, soon), pgx.Identifier{"app", "orders"}, []string{"id", "note"}, pgx.CopyFromRows(rows))
		_, execErr := conn.Exec(within(t, soon), `insert into app.orders values (4, 'alone')`)
		require.Equal(t, ok, copyErr == nil, "%v", copyErr)
		require.Equal(t, ok, execErr == nil, "%v", execErr)
		if !ok {
			require.Error(t, postgres.Refusal(copyErr))
			require.Error(t, postgres.Refusal(execErr))
		}
	}
	require.Equal(t, 4, count(t, testpg.Connect(t, dsn), "app.orders"))
	require.Zero(t, count(t, testpg.Connect(t, dsn), "fencepost.guard_mark"))
}

// TestAClaimBetweenWriteAndCommitRefusesTheCommit also shows that a client which is
// stopped behind a write keeps no claim waiting, and loses no session by it.
func TestAClaimBetweenWriteAndCommitRefusesTheCommit(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	guardedTables(t, dsn, s)
	for name, sql := range map[string]string{"rows": `insert into app.orders values (1, 'stale')`, "truncate": `truncate app.events`} {
		conn := testpg.Connect(t, dsn)
		_, err := conn.Exec(t.Context(), `begin; set local fencepost.token = '`+token.String()+`'; `+sql)
		require.NoError(t, err)
		var locks int
		require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from pg_locks where relation = $1::regclass`, `fencepost."main@`+token.String()+`"`).Scan(&locks))
		require.Zero(t, locks)
		newer := claim(t, s).Claim.Token
		_, err = conn.Exec(t.Context(), `commit`)
		require.ErrorIs(t, postgres.Refusal(err), fence.ErrFenced, name)
		require.NoError(t, conn.Ping(t.Context()))
		token = newer
	}
	require.Zero(t, count(t, testpg.Connect(t, dsn), "app.orders"))
	require.Zero(t, count(t, testpg.Connect(t, dsn), "fencepost.guard_mark"))
}

// TestATransactionThatIsSetToReadOnlyBehindAStaleWriteDoesNotCommit has a snapshot from
// before the claim, by which the token that it bears is the newest.
func TestATransactionThatIsSetToReadOnlyBehindAStaleWriteDoesNotCommit(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	guardedTables(t, dsn, s)
	conn := testpg.Connect(t, dsn)
	for _, level := range []pgx.TxIsoLevel{pgx.ReadUncommitted, pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		for table, guarded := range map[string]bool{"app.orders": true, "app.incoming": false} {
			before := count(t, conn, table)
			tx, err := conn.BeginTx(within(t, soon), pgx.TxOptions{IsoLevel: level})
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), `select pg_catalog.set_config('fencepost.token', $1, true)`, token.String())
			require.NoError(t, err)
			stale := token
			token = claim(t, s).Claim.Token
			_, err = tx.Exec(t.Context(), `insert into `+table+` values (1000); set transaction read only`)
			require.NoError(t, err)
			if !guarded {
				require.Error(t, postgres.Guard(within(t, soon), tx, stale), level)
				require.NoError(t, tx.Rollback(within(t, soon)))
			} else {
				require.Error(t, tx.Commit(within(t, soon)), level)
			}
			require.Equal(t, before, count(t, conn, table))
		}
	}
}

func TestATransactionIsCheckedOnceHoweverManyRowsItWrites(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 1)
	guardedTables(t, dsn, s)
	conn := testpg.Connect(t, dsn)
	_, err := conn.Exec(t.Context(), `set track_functions = 'all'; set fencepost.token = 'g1.e1'; begin;
		insert into app.orders select n, 'x' from generate_series(1, 1000) n; update app.orders set note = 'y'; insert into app.events select 1, 1 from generate_series(1, 100);
		set constraints all immediate`)
	require.NoError(t, err)
	var calls int
	require.NoError(t, conn.QueryRow(t.Context(), `select calls from pg_stat_xact_user_functions where funcname = 'guard'`).Scan(&calls))
	require.Equal(t, 1, calls)
	_, err = conn.Exec(t.Context(), `select set_config('fencepost.due', current_setting('fencepost.due'), false); commit`)
	require.NoError(t, err)
	err = committed(t, conn, "", `insert into app.orders values (0, 'x')`)
	require.ErrorIs(t, postgres.Refusal(err), fence.ErrMissing, "that another transaction was checked counts for nothing")
}

func TestTablesOfTwoCatalogsInOneTransactionAreCheckedForBoth(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, `create table a (n int)`, `create table b (n int)`)
	for i, name := range []string{"a", "b"} {
		s := open(t, withParam(t, dsn, "catalog", name))
		drivertest.Install(t, s, generation.Generation(i+1))
		require.NoError(t, s.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{name}}))
	}
	conn := testpg.Connect(t, dsn)
	require.NoError(t, committed(t, conn, "g1.e1", `insert into a values (1); insert into a values (2)`))
	require.NoError(t, committed(t, conn, "g2.e1", `insert into b values (1)`))
	for _, sql := range []string{`insert into a values (1); insert into b values (2)`, `insert into b values (1); insert into a values (2)`,
		`insert into a values (1); insert into b values (2); insert into a values (1)`, `truncate a, b`} {
		for _, token := range []string{"g1.e1", "g2.e1"} {
			require.ErrorIs(t, postgres.Refusal(committed(t, conn, token, sql)), fence.ErrNeverIssued)
		}
	}
}

func TestTheStatusOfGuardsListsWhatIsGuardedAndWhatIsNot(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	guards, err := s.Guards(within(t, soon))
	require.NoError(t, err)
	require.False(t, guards.Installed, "nothing was made by looking")
	require.Zero(t, schemas(t, dsn))
	guardedTables(t, dsn, s) // before anybody has claimed
	conn := testpg.Connect(t, dsn)
	require.ErrorIs(t, postgres.Refusal(committed(t, conn, "g1.e1", `insert into app.orders values (1, 'x')`)), postgres.ErrNoGuards)
	guards, err = s.Guards(within(t, soon))
	require.NoError(t, err)
	require.True(t, guards.Installed)
	require.Zero(t, guards.Refused)
	drivertest.Install(t, s, 1)
	require.NoError(t, committed(t, conn, "g1.e1", `insert into app.orders values (1, 'x')`))

	problems := map[string]string{}
	names := func() (all []string) {
		guards, err = s.Guards(within(t, soon))
		require.NoError(t, err)
		for _, table := range guards.Tables {
			require.Contains(t, table.Installed+"installed by", "installed by")
			require.Equal(t, "postgres", table.Owner)
			problems[table.Name] = table.Problem
			all = append(all, table.Name)
		}
		return all
	}
	require.Equal(t, []string{"app.child", "app.events", "app.events_1", "app.events_2", "app.events_3", "app.lines", "app.orders", "app.parent"}, names())
	require.Equal(t, []string{"app.incoming"}, guards.Unguarded)
	require.Contains(t, problems["app.events_2"], "TRUNCATE is not guarded")
	require.Empty(t, problems["app.events_1"])
	require.Contains(t, guards.Tables[0].Installed, "installed by postgres, 2")

	testpg.Exec(t, dsn, `alter table app.orders disable trigger fencepost_guard`, `alter table app.lines disable trigger all`)
	names()
	require.Contains(t, problems["app.orders"], "writes are not guarded")
	require.Contains(t, problems["app.lines"], "disabled")
	require.Equal(t, []string{"app.incoming", "app.lines", "app.orders"}, guards.Unguarded)

	require.NoError(t, s.InstallGuards(within(t, soon), driver.GuardedTables{Schemas: []string{"app"}}))
	names()
	require.Empty(t, guards.Unguarded)
	for name, problem := range problems {
		require.Empty(t, problem, name)
	}
	require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `truncate app.events_2`)), fence.ErrMissing)

	require.NoError(t, s.RemoveGuards(within(t, soon), driver.GuardedTables{Tables: []string{"app.orders", "app.events"}}))
	require.Equal(t, []string{"app.child", "app.incoming", "app.lines", "app.parent"}, names())
	require.NoError(t, committed(t, conn, "", `insert into app.orders values (5, 'x'); insert into app.events_2 values (1, 2); truncate app.events`))
	require.NoError(t, s.RemoveGuards(within(t, soon), driver.GuardedTables{Schemas: []string{"app"}}))
	require.Empty(t, names())
}

func TestWhatCantBeGuardedIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 1)
	testpg.Exec(t, dsn, `create table "Order lines" ("n""o" int)`, `create view v as select 1`, `create materialized view m as select 1`, `create sequence q`,
		`create table taken (n int)`, `create function f() returns trigger language plpgsql as 'begin return null; end'`,
		`create trigger fencepost_guard after insert on taken for each row execute function f()`)
	install := func(table string) error {
		return s.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{table}})
	}
	require.NoError(t, install(`public."Order lines"`))
	require.NoError(t, install(`"Order lines"`), "again, by the search_path of the role")
	for table, text := range map[string]string{
		"v": "kind", "m": "kind", "q": "kind", "nope": "there is no table nope", "public.nope": "there is no table public.nope",
		"fencepost.head": "catalog's own", "pg_catalog.pg_class": "catalog's own", "taken": "not ours",
	} {
		err := install(table)
		require.ErrorContains(t, err, text, table)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), table)
	}
	require.ErrorContains(t, s.InstallGuards(within(t, soon), driver.GuardedTables{Schemas: []string{"nope"}}), "there is no schema nope")
	other := open(t, withParam(t, dsn, "catalog", "other"))
	err := other.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{`"Order lines"`}})
	require.ErrorContains(t, err, "catalog main guards it already")
}

// withoutGuards makes of a database one that an older build has made.
func withoutGuards(t *testing.T, dsn string) {
	t.Helper()
	testpg.Exec(t, dsn, `drop trigger guard on fencepost.token`, `drop table if exists fencepost.guard_mark`,
		`do $$ begin execute (select 'drop view if exists ' || coalesce(string_agg(oid::regclass::text, ', '), 'pg_temp.none') from pg_class where relnamespace = 'fencepost'::regnamespace and relkind = 'v'); end $$`, `drop sequence if exists fencepost."refused:main"`,
		`drop function fencepost.guard, fencepost.await_guards, fencepost.guard_claim, fencepost.guard_commit, fencepost.guard_marked,
			fencepost.guard_truncate, fencepost.guard_refuse, fencepost.guard_name, fencepost.guard_view, fencepost.guard_views`, `alter table fencepost.token drop column stamp`)
}

// TestARoleOfAnOlderBuildGetsTheRightToWaitWithTheGuards has them installed by another
// role than the one that claims.
func TestARoleOfAnOlderBuildGetsTheRightToWaitWithTheGuards(t *testing.T) {
	t.Parallel()
	dsn := leastPrivileged(t)
	admin := adminOf(t, dsn)
	withoutGuards(t, admin)
	s, log := openImpatient(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	require.NoError(t, open(t, admin).InstallGuards(within(t, soon), driver.GuardedTables{}))
	guards, err := s.Guards(within(t, soon))
	require.NoError(t, err)
	require.True(t, guards.Installed)
	require.Zero(t, guards.Refused)
	zombie, err := postgres.Begin(within(t, soon), testpg.Connect(t, dsn), token)
	require.NoError(t, err)
	claim(t, s)
	require.Error(t, zombie.Commit(within(t, soon)))
	require.Contains(t, log.String(), "a guarded transaction that blocked a claim was ended")
	_, err = testpg.Connect(t, dsn).Exec(t.Context(), `select nextval('fencepost."refused:main"')`)
	require.ErrorContains(t, err, "permission denied")
}

func TestGuardsThatAreInstalledBehindAnOlderBuildHoldFromThenOn(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	withoutGuards(t, dsn)
	require.NoError(t, open(t, dsn).Close())
	token2 := claim(t, s).Claim.Token // as in an old database
	pool := orders(t, dsn)
	_, err := postgres.Begin(within(t, soon), pool, token2)
	require.ErrorIs(t, err, postgres.ErrNoGuards)
	var wg sync.WaitGroup
	for range 4 { // at once
		other := open(t, dsn)
		wg.Go(func() {
			assert.NoError(t, other.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{"orders"}}))
		})
	}
	wg.Wait()
	tx, err := postgres.Begin(within(t, soon), pool, token2)
	require.NoError(t, err, "the holder goes on under its token")
	require.NoError(t, tx.Commit(within(t, soon)))
	_, err = postgres.Begin(within(t, soon), pool, token)
	require.ErrorIs(t, err, fence.ErrFenced)
	claim(t, s)
	_, err = postgres.Begin(within(t, soon), pool, token2)
	require.ErrorIs(t, err, fence.ErrFenced)
}

// TestACopyOfTheDatabaseRefusesEveryWriterUntilAClaimIsMadeInIt copies the rows as a
// restored dump does, and the whole database as a template does: in that one the row
// of the token is the same, and only claims find out.
func TestACopyOfTheDatabaseRefusesEveryWriterUntilAClaimIsMadeInIt(t *testing.T) {
	t.Parallel()
	from := testpg.URL(t)
	s := open(t, from)
	token := drivertest.Install(t, s, 1).Claim.Token
	testpg.Exec(t, from, `create table orders (id int primary key, note text)`)
	require.NoError(t, s.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{"orders"}}))
	restored, cloned := testpg.URL(t), testpg.URL(t)
	require.NoError(t, s.Close()) // else it can be no template
	u, err := url.Parse(cloned)
	require.NoError(t, err)
	f, err := url.Parse(from)
	require.NoError(t, err)
	target, source := strings.Trim(u.Path, "/"), strings.Trim(f.Path, "/")
	testpg.Exec(t, adminOf(t, testpg.With(t, cloned, func(u *url.URL) { u.Path = "/postgres" })), "drop database "+target, "create database "+target+" template "+source)
	dumped(t, from, restored)
	for name, dsn := range map[string]string{"dump": restored, "template": cloned} {
		t.Run(name, func(t *testing.T) {
			pool := poolOf(t, dsn)
			if name == "dump" {
				_, err := postgres.Begin(within(t, soon), pool, token)
				require.ErrorIs(t, err, postgres.ErrCopied)
				require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
				require.ErrorContains(t, err, "fencepost restored")
				testpg.Exec(t, dsn, `create table orders (id int primary key, note text)`, `create constraint trigger g after insert on orders deferrable initially deferred for each row execute function fencepost.guard_commit('main')`)
				err = committed(t, testpg.Connect(t, dsn), token.String(), `insert into orders values (1, 'x')`)
				require.ErrorIs(t, postgres.Refusal(err), postgres.ErrCopied)
			}
			copied := open(t, dsn)
			_, err := tryClaim(within(t, soon), copied)
			require.ErrorIs(t, err, postgres.ErrCopied, "nor does anybody claim")
			fails(t, err, exitcodes.Halt, driver.NotApplied)
			c, err := copied.Claim(driver.Adopting(within(t, soon)))
			require.NoError(t, err)
			next, rec := nextClaim(c.Head())
			require.NoError(t, c.Install(driver.Adopting(within(t, soon)), next, rec))
			tx, err := postgres.Begin(within(t, soon), pool, next.Token)
			require.NoError(t, err)
			require.NoError(t, tx.Commit(within(t, soon)))
			_, err = postgres.Begin(within(t, soon), pool, token)
			require.ErrorIs(t, err, fence.ErrFenced)
		})
	}
}

func TestAnInstallationWaitsForWritersAndLetsOthersThroughMeanwhile(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 1)
	testpg.Exec(t, dsn, `create table orders (id int)`)
	conn := testpg.Connect(t, dsn)
	_, err := conn.Exec(t.Context(), `begin; insert into orders values (1)`)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{"orders"}}) }()
	waitingAre(t, dsn, 1)
	testpg.Exec(t, dsn, `insert into orders values (2)`) // waits for a second at most, however long conn stays
	_, err = conn.Exec(t.Context(), `commit`)
	require.NoError(t, err)
	require.NoError(t, <-ended)
	require.Error(t, postgres.Refusal(committed(t, conn, "", fmt.Sprintf(`insert into orders values (%d)`, 3))))
}
