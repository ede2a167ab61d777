package postgres_test

import (
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// guarding opens a claimed catalog, and returns what guards tables by it.
func guarding(t *testing.T, dsn string) (s *postgres.Store, install func(tables ...string) error) {
	t.Helper()
	s = open(t, dsn)
	drivertest.Install(t, s, 1)
	return s, func(tables ...string) error {
		return s.InstallGuards(within(t, soon), driver.GuardedTables{Tables: tables})
	}
}

func TestATableOfAnyNameIsGuarded(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	_, install := guarding(t, dsn)
	conn := testpg.Connect(t, dsn)
	for _, name := range []string{`"o'clock"`, `"100%s"`, `"a$do$ $1"`, `"TABLE TRIGGER CATALOG"`, `"a\b"`, `"a""b.c"`, `"a; --"`, `"select"`} {
		testpg.Exec(t, dsn, `create table `+name+` (id int)`)
		require.NoError(t, install(name), name)
		require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `insert into `+name+` values (1)`)), fence.ErrMissing, name)
		require.NoError(t, committed(t, conn, "g1.e1", `insert into `+name+` values (1)`), name)
		require.NoError(t, committed(t, conn, "g1.e1", `truncate `+name), name)
	}
}

func TestWhatIsNoNameOfATableIsRefusedAsSuch(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	_, install := guarding(t, dsn)
	for _, name := range []string{``, `"`, `a b`, `a.b.c`, `a.b.c.d`, `12345`, `-`, `'; drop table x`, `pg_temp.x`, `.`} {
		err := install(name)
		require.ErrorContains(t, err, "not a table that can be guarded", name)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), name)
	}
}

// TestATriggerThatFiresForReplicasOnlyIsNoGuard is enabled by one word that is easily
// mistaken.
func TestATriggerThatFiresForReplicasOnlyIsNoGuard(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, install := guarding(t, dsn)
	conn := testpg.Connect(t, dsn)
	testpg.Exec(t, dsn, `create table orders (id int)`)
	problem := func() string {
		guards, err := s.Guards(within(t, soon))
		require.NoError(t, err)
		require.Len(t, guards.Tables, 1)
		return guards.Tables[0].Problem
	}
	require.NoError(t, install("orders"))
	for trigger, text := range map[string]string{"fencepost_guard": "writes are not guarded", "fencepost_guard_truncate": "TRUNCATE is not guarded", "all": "disabled"} {
		sql := `alter table orders enable replica trigger ` + trigger
		if trigger == "all" {
			sql = `alter table orders enable replica trigger fencepost_guard; alter table orders enable replica trigger fencepost_guard_truncate`
		}
		testpg.Exec(t, dsn, sql)
		require.Contains(t, problem(), text)
		require.NoError(t, install("orders"))
		require.Empty(t, problem())
		require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `insert into orders values (1)`)), fence.ErrMissing)
		require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `truncate orders`)), fence.ErrMissing)
	}
	testpg.Exec(t, dsn, `alter table orders enable always trigger fencepost_guard`, `alter table orders enable always trigger fencepost_guard_truncate`)
	require.Empty(t, problem())
	_, err := conn.Exec(t.Context(), `set session_replication_role = replica`)
	require.NoError(t, err)
	for _, sql := range []string{`insert into orders values (1)`, `truncate orders`} {
		require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", sql)), fence.ErrMissing, "one that fires always holds for such a session too: %s", sql)
	}
}

func TestATruncateIsGuardedBesideAPublicationOfAllTables(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	_, install := guarding(t, dsn)
	testpg.Exec(t, dsn, `create table orders (id int primary key)`, `create publication everything for all tables`)
	require.NoError(t, install("orders"))
	conn := testpg.Connect(t, dsn)
	require.NoError(t, committed(t, conn, "g1.e1", `truncate orders`))
	require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `truncate orders`)), fence.ErrMissing)
	testpg.Exec(t, dsn, `set fencepost.token = 'g1.e1'; truncate orders`)
	require.Zero(t, count(t, conn, "fencepost.guard_mark"), "the check takes its mark away")
}

// TestATableWithPendingChecksIsTruncatedAndAlteredBehindTheCheck holds a rule of
// PostgreSQL's, and its remedy, to what the page says.
func TestATableWithPendingChecksIsTruncatedAndAlteredBehindTheCheck(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	_, install := guarding(t, dsn)
	testpg.Exec(t, dsn, `create table orders (id int)`)
	require.NoError(t, install("orders"))
	conn := testpg.Connect(t, dsn)
	for _, sql := range []string{`truncate orders`, `alter table orders add column n int not null default 1`, `create index on orders (id)`} {
		const write = `insert into orders values (1); `
		require.ErrorContains(t, committed(t, conn, "g1.e1", write+sql), "pending trigger events", sql)
		require.NoError(t, committed(t, conn, "g1.e1", write+`set constraints all immediate; `+sql), sql)
		require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", write+`set constraints all immediate; `+sql)), fence.ErrMissing, sql)
	}
}

func TestPartitionsThatAreGuardedAlreadyGetTheGuardOfTheirParent(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, install := guarding(t, dsn)
	testpg.Exec(t, dsn, `create table e (id int) partition by range (id)`, `create table e1 partition of e for values from (1) to (2)`,
		`create table e2 partition of e for values from (2) to (9) partition by range (id)`, `create table e2a partition of e2 for values from (2) to (3)`,
		`create table e3 (id int)`)
	for _, tables := range [][]string{{"e1", "e3"}, {"e2a"}, {"e2"}, {"e"}, {"e"}} {
		require.NoError(t, install(tables...), tables)
	}
	require.NoError(t, s.RemoveGuards(within(t, soon), driver.GuardedTables{Tables: []string{"e3"}}), "PostgreSQL would have two triggers of one name")
	testpg.Exec(t, dsn, `alter table e attach partition e3 for values from (20) to (30)`)
	conn := testpg.Connect(t, dsn)
	for _, sql := range []string{`insert into e values (1)`, `insert into e1 values (1)`, `insert into e2a values (2)`, `insert into e values (20)`, `truncate e1`} {
		require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", sql)), fence.ErrMissing, sql)
		require.NoError(t, committed(t, conn, "g1.e1", sql), sql)
	}
	guards, err := s.Guards(within(t, soon))
	require.NoError(t, err)
	require.Len(t, guards.Tables, 5)
	for _, partition := range []string{"e1", "e2", "e2a", "e3"} {
		err := s.RemoveGuards(within(t, soon), driver.GuardedTables{Tables: []string{partition}})
		require.ErrorContains(t, err, "name that one", partition)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
	require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `truncate e1`)), fence.ErrMissing, "nothing was removed")
	testpg.Exec(t, dsn, `create table f (id int) partition by range (id)`, `create table f1 partition of f for values from (1) to (2)`)
	other := open(t, withParam(t, dsn, "catalog", "other"))
	require.NoError(t, other.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{"f1"}}))
	require.ErrorContains(t, install("f"), "catalog other guards it already")
}

func TestTwoInstallationsAtOnceBothSucceed(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	_, install := guarding(t, dsn)
	testpg.Exec(t, dsn, `create table a (id int)`, `create table b (id int)`)
	conn := testpg.Connect(t, dsn)
	_, err := conn.Exec(t.Context(), `begin; insert into a values (1)`)
	require.NoError(t, err)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { assert.NoError(t, install("a", "b")) })
	}
	waitingAre(t, dsn, 2) // both have looked, and found no trigger
	_, err = conn.Exec(t.Context(), `commit`)
	require.NoError(t, err)
	both.Wait()
}

func TestNoSettingOfARoleForbidsAnInstallationOrMakesAGuardThatLetsPass(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, evil, `create function evil.glue(text, text) returns text language sql as 'select ''glued'''`,
		`create operator evil.|| (function = evil.glue, leftarg = text, rightarg = text)`, `create schema app`, `create table app.orders (id int)`)
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	role := harshRole(t, dsn, harsh)
	for name, s := range map[string]*postgres.Store{"own": open(t, role), "handed in": openOverPool(t, role)} {
		require.NoError(t, s.RemoveGuards(within(t, soon), driver.GuardedTables{Schemas: []string{"app"}}), name)
		require.NoError(t, s.InstallGuards(within(t, soon), driver.GuardedTables{Schemas: []string{"app"}, Tables: []string{"app.orders"}}), name)
		var foreign int
		require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), `select count(*) from pg_depend where classid = 'pg_trigger'::regclass and refclassid = 'pg_operator'::regclass`).Scan(&foreign))
		require.Zero(t, foreign, "the condition of a trigger calls no operator but PostgreSQL's")
		for _, settings := range []string{`set search_path to default`, `set search_path = evil, pg_catalog`} {
			conn := testpg.Connect(t, dsn)
			_, err := conn.Exec(t.Context(), settings)
			require.NoError(t, err)
			require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `insert into app.orders select 1 from pg_catalog.generate_series(1, 2)`)), fence.ErrMissing, name)
			require.NoError(t, committed(t, conn, token.String(), `insert into app.orders values (1)`), name)
		}
	}
}

// TestAnInstallationThatAnotherOneOvertakesAsksForNoFurtherRight has a role install that
// owns nothing, while the owner does.
func TestAnInstallationThatAnotherOneOvertakesAsksForNoFurtherRight(t *testing.T) {
	t.Parallel()
	dsn := leastPrivileged(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 1)
	const older = `comment on function fencepost.guard(text, text) is 'Guards of an older build'`
	owner := testpg.Connect(t, adminOf(t, dsn))
	var installed string
	require.NoError(t, owner.QueryRow(t.Context(), `select obj_description('fencepost.guard(text, text)'::regprocedure)`).Scan(&installed))
	_, err := owner.Exec(t.Context(), older)
	require.NoError(t, err)
	err = s.InstallGuards(within(t, soon), driver.GuardedTables{})
	require.ErrorContains(t, err, "must be owner")
	_, err = owner.Exec(t.Context(), `begin; lock table fencepost.token in access exclusive mode`)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.InstallGuards(within(t, soon), driver.GuardedTables{}) }()
	waitingAre(t, dsn, 1)
	_, err = owner.Exec(t.Context(), `comment on function fencepost.guard(text, text) is '`+installed+`'; commit`)
	require.NoError(t, err)
	require.NoError(t, <-ended)
}

// TestTheCatalogsRoleInstallsGuardsAsAMemberOfTheTablesOwner is about the least rights,
// which neither role has by itself. The role that writes has none in the schema.
func TestTheCatalogsRoleInstallsGuardsAsAMemberOfTheTablesOwner(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	id := driver.NewID().String()
	keeper, owner, writer := "keeper_"+id, "owner_"+id, "writer_"+id
	for _, role := range []string{keeper, owner, writer} {
		testpg.Exec(t, dsn, "create role "+role+" login password 'pw'")
	}
	t.Cleanup(func() {
		all := keeper + ", " + owner + ", " + writer
		testpg.Exec(t, dsn, "drop owned by "+all+" cascade; drop role "+all)
	})
	testpg.Exec(t, dsn, postgres.Schema(keeper, ""), "create table orders (id int)", "alter table orders owner to "+owner, "grant insert on orders to "+writer)
	as := func(role string) string {
		return testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") })
	}
	tables := driver.GuardedTables{Tables: []string{"orders"}}
	s := open(t, as(keeper))
	drivertest.Install(t, s, 1)

	for name, s := range map[string]*postgres.Store{"the catalog's role": s, "the owner": open(t, as(owner))} {
		err := s.InstallGuards(within(t, soon), tables)
		require.ErrorContains(t, err, "membership of the owner of tables", name)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), name)
	}
	testpg.Exec(t, dsn, "grant "+owner+" to "+keeper)
	require.NoError(t, s.InstallGuards(within(t, soon), tables))

	conn := testpg.Connect(t, as(writer))
	require.ErrorIs(t, postgres.Refusal(committed(t, conn, "", `insert into orders values (1)`)), fence.ErrMissing)
	require.NoError(t, committed(t, conn, "g1.e1", `insert into orders values (1)`))
}
