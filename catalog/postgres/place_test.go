package postgres_test

import (
	"bytes"
	"context"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// dumped copies a catalog's schema and data into another database, as pg_dump
// and pg_restore do.
func dumped(t *testing.T, from, to string) {
	t.Helper()
	testpg.Exec(t, to, postgres.Schema("", ""), `truncate fencepost.schema_version`)
	source, target := testpg.Connect(t, from).PgConn(), testpg.Connect(t, to).PgConn()
	for _, table := range []string{"schema_version", "head", "token", "log", "claim", "board"} {
		var rows bytes.Buffer
		_, err := source.CopyTo(t.Context(), &rows, "copy fencepost."+table+" to stdout")
		require.NoError(t, err)
		_, err = target.CopyFrom(t.Context(), &rows, "copy fencepost."+table+" from stdin")
		require.NoError(t, err)
	}
}

func TestACopyOnAnotherSystemIsRefusedUntilAnOperatorAdoptsIt(t *testing.T) {
	t.Parallel()
	old := testpg.URL(t)
	first := holder(t, old, 1)
	require.NoError(t, set(first, "kept"))
	_, err := open(t, old).Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	fresh := testpg.NewServer(t).URL
	dumped(t, old, fresh)
	running := first.Head()

	s := open(t, fresh)
	_, headErr := s.Head(within(t, soon))
	_, claimErr := s.Claim(within(t, soon))
	_, notesErr := s.Notes(within(t, soon), "")
	_, postErr := s.Post(within(t, soon), driver.Note{Key: "n", Value: []byte("v")})
	logErr := s.Log(within(t, soon), 0, func(driver.Record) error { return nil })
	appendErr := s.Append(within(t, soon), running, next(running))
	_, openErr := catalog.Open(t.Context(), s, catalog.Config{Generation: 2})
	_, followErr := catalog.Follow(t.Context(), s, catalog.Config{Generation: 1})
	_, fenceErr := catalog.Raise(t.Context(), s, catalog.Config{}, catalog.RaiseOptions{Reason: "no floor"})
	for _, err := range []error{headErr, claimErr, notesErr, postErr, logErr, appendErr, openErr, followErr, fenceErr} {
		e := fails(t, err, exitcodes.Halt, driver.NotApplied)
		require.Equal(t, exitcodes.Config, e.ExitCode())
		require.ErrorContains(t, err, "the newest claim was made on another system: g1.e1 on system ")
		require.Contains(t, e.Remedy, "fencepost restored --above")
	}

	claimed, err := catalog.Raise(t.Context(), s, catalog.Config{},
		catalog.RaiseOptions{Reason: "moved", Above: fence.Token{Generation: 4, Epoch: 9}})
	require.NoError(t, err)
	require.Equal(t, "g4.e10", claimed.Token.String())
	head, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, claimed.ID, head.Claim.ID)
	require.Equal(t, "4 1", stampOf(t, fresh))
	next := holder(t, fresh, 5)
	require.Equal(t, "g5.e11", next.Token().String())
	require.NoError(t, set(next, "goes on"))
}

func TestAHolderWhoseNameComesToLeadToACopyCommitsNothingThere(t *testing.T) {
	t.Parallel()
	old := testpg.URL(t)
	p, through := newProxy(t, old)
	s := open(t, through)
	head := claim(t, s)
	fresh := testpg.NewServer(t)
	u, err := url.Parse(old)
	require.NoError(t, err)
	testpg.Exec(t, fresh.URL, "create database "+strings.TrimPrefix(u.Path, "/"))
	copied := testpg.With(t, fresh.URL, func(to *url.URL) { to.Path = u.Path })
	dumped(t, old, copied)
	p.server.Store(fresh.Address())
	testpg.Exec(t, old, `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and application_name = 'fencepost'`)
	require.Eventually(t, func() bool {
		err = s.Append(within(t, soon), head, next(head))
		return driver.OutcomeOf(err) == driver.NotApplied
	}, soon, often)
	require.ErrorContains(t, err, "another system")
	var records int
	require.NoError(t, testpg.Connect(t, copied).QueryRow(t.Context(), `select count(*) from fencepost.log`).Scan(&records))
	require.Equal(t, 1, records)
}

func TestTheTimelinesOfTwoSystemsAreNotCompared(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.standby.Detach()
	cl.standby.Promote()
	p, through := newProxy(t, cl.standby.URL)
	s := open(t, through)
	claim(t, s) // on timeline 2
	_, err := s.Head(within(t, soon))
	require.NoError(t, err)
	fresh := testpg.NewServer(t)
	dumped(t, cl.standby.URL, fresh.URL)
	_, err = catalog.Raise(t.Context(), open(t, fresh.URL), catalog.Config{},
		catalog.RaiseOptions{Reason: "moved", Above: fence.Token{Generation: 1, Epoch: 1}})
	require.NoError(t, err)
	p.server.Store(fresh.Address())
	cl.standby.Stop()
	_, err = s.Head(within(t, soon))
	fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.ErrorContains(t, err, "the newest claim was made on another system")
	got, err := open(t, through).Head(within(t, soon))
	require.NoError(t, err, "who comes anew goes on there")
	require.EqualValues(t, 2, got.Claim.Token.Epoch)
}

func TestATimelineBelowTheClaimsIsRefusedByWhoNeverSawItToo(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	testpg.Exec(t, dsn, `update fencepost.token set timeline = 7`)
	_, err := open(t, dsn).Head(within(t, soon))
	e := fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.ErrorContains(t, err, "older timeline than one already seen: 1, and g1.e1 was claimed on 7")
	require.NotEmpty(t, e.Remedy)
	_, err = catalog.Raise(t.Context(), open(t, dsn), catalog.Config{},
		catalog.RaiseOptions{Reason: "pg_resetwal", Above: fence.Token{Generation: 1, Epoch: 1}})
	require.NoError(t, err)
	require.Equal(t, "1 1", stampOf(t, dsn))
}

func TestATokenWithoutARowOfItsOwnIsCorrupt(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	claim(t, open(t, dsn))
	testpg.Exec(t, dsn, `delete from fencepost.token`)
	_, err := open(t, dsn).Head(within(t, soon))
	fails(t, err, exitcodes.Panic, driver.NotApplied)
	require.ErrorIs(t, err, driver.ErrCorrupt)
}

func TestARoleThatMayNotAskForTheSystemIsToldWhatToGrant(t *testing.T) {
	t.Parallel()
	dsn := leastPrivileged(t)
	claim(t, open(t, dsn))
	admin := adminOf(t, dsn)
	testpg.Exec(t, admin, `revoke execute on function pg_control_system() from public`)
	s := open(t, dsn)
	_, err := s.Head(within(t, soon))
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.Contains(t, e.Remedy, "pg_control_system()")
	require.Contains(t, probed(t, s)["rights"].Detail, "EXECUTE on pg_control_system")
}

// Confirm asks for the head alone: what never changes is not asked for again.
func TestAHeadThatIsLookedAtAgainCostsOneStatement(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	var asked statements
	config.ConnConfig.Tracer = &asked
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{Pool: pool})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	claim(t, s)
	heads := func() int64 {
		before := asked.Load()
		for range 3 {
			_, err := s.Head(within(t, soon))
			require.NoError(t, err)
		}
		return asked.Load() - before
	}
	require.EqualValues(t, 3, heads(), "the claim was its own")
	claim(t, open(t, dsn))
	require.EqualValues(t, 3+1, heads(), "once more after a claim of another one")
	require.EqualValues(t, 3, heads())
}

// statements counts those that are sent, without wake-ups, which go out at a time
// of their own.
type statements struct{ atomic.Int64 }

func (n *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if !strings.Contains(data.SQL, "pg_notify") {
		n.Add(1)
	}
	return ctx
}

func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
