package postgres_test

import (
	"bytes"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// openImpatient opens a store whose claims end guarded transactions soon.
func openImpatient(t *testing.T, dsn string) (*postgres.Store, *journal) {
	t.Helper()
	var log journal
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{GuardTimeout: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, &log
}

func TestAZombieIdleInAGuardedTransactionIsEndedAndTheClaimGoesOn(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, log := openImpatient(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	pool := orders(t, dsn)
	tx, err := postgres.Begin(within(t, soon), pool, token)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `insert into orders values (1, 'stale')`)
	require.NoError(t, err)
	pid := tx.Conn().PgConn().PID()

	claim(t, s) // far below a minute
	require.Error(t, tx.Commit(within(t, soon)))
	require.Zero(t, count(t, pool, "orders"))
	require.Contains(t, log.String(), "a guarded transaction that blocked a claim was ended")
	require.Contains(t, log.String(), "idle in transaction")
	require.Contains(t, log.String(), "pid="+itoa(pid))
}

// TestWhoLooksAtAGuardsViewKeepsNoClaimOut has a role that may only guard hold the
// view's lock in every mode that it can get.
func TestWhoLooksAtAGuardsViewKeepsNoClaimOut(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, log := openImpatient(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	role := "looks_" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role, "grant usage on schema fencepost to "+role)
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role, "drop role "+role) })
	for _, looks := range []string{
		`prepare looks as select * from VIEW`, // PostgreSQL asks for rights when it is run
		`prepare looks as select * from VIEW for update`,
		`prepare looks as insert into VIEW values (true)`,
		`lock table VIEW in row exclusive mode`,
	} {
		conn := testpg.Connect(t, dsn)
		view := `fencepost."main@` + token.String() + `"`
		_, err := conn.Exec(t.Context(), `set role `+role+`; begin; `+strings.Replace(looks, "VIEW", view, 1))
		if strings.Contains(looks, "insert into") {
			require.ErrorContains(t, err, "cannot insert into view")
			continue
		}
		require.NoError(t, err)
		token = claim(t, s).Claim.Token
		require.Error(t, conn.Ping(within(t, soon)), looks)
		require.Contains(t, log.String(), "pid="+itoa(conn.PgConn().PID()))
	}
}

// TestAGrantOnTheCatalogsTablesFailsNoClaim has one land while a claim waits to rename the
// view, of which PostgreSQL says that its tuple was concurrently updated.
func TestAGrantOnTheCatalogsTablesFailsNoClaim(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 1)
	admin := testpg.Connect(t, withParam(t, dsn, "application_name", "admin"))
	grant := func() {
		_, err := admin.Exec(t.Context(), `begin; grant select on all tables in schema fencepost to public`)
		require.NoError(t, err)
	}
	grant()
	require.ErrorContains(t, blocked(t, s), `(application "admin"`)
	_, err := admin.Exec(t.Context(), `rollback`)
	require.NoError(t, err)
	grant()
	claimed := make(chan error, 1)
	go func() {
		_, err := tryClaim(within(t, soon), s)
		claimed <- err
	}()
	waitingAre(t, dsn, 1)
	_, err = admin.Exec(t.Context(), `commit`)
	require.NoError(t, err)
	require.NoError(t, <-claimed)
}

func TestTheServerEndsAGuardedTransactionWhoseClientIsStopped(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	for setting, want := range map[string]string{"0": "10s", "1h": "10s", "11s": "10s", "9s": "9s", "250": "250ms"} {
		conn := testpg.Connect(t, dsn)
		_, err := conn.Exec(t.Context(), "set idle_in_transaction_session_timeout = '"+setting+"'")
		require.NoError(t, err)
		var inside, behind, was string
		for range 2 { // the second time the connection is known
			tx, err := postgres.Begin(within(t, soon), conn, token)
			require.NoError(t, err)
			require.NoError(t, tx.QueryRow(t.Context(), `show idle_in_transaction_session_timeout`).Scan(&inside))
			require.Equal(t, want, inside)
			require.NoError(t, tx.Commit(within(t, soon)))
		}
		require.NoError(t, conn.QueryRow(t.Context(), `show idle_in_transaction_session_timeout`).Scan(&behind))
		_, err = conn.Exec(t.Context(), "set idle_in_transaction_session_timeout = '"+setting+"'")
		require.NoError(t, err)
		require.NoError(t, conn.QueryRow(t.Context(), `show idle_in_transaction_session_timeout`).Scan(&was))
		require.Equal(t, was, behind, "the session is as it was")
	}
}

// TestAClaimThatMayNotEndAGuardedTransactionNamesIt has the claim made by a role that
// may end no session of the writer's.
func TestAClaimThatMayNotEndAGuardedTransactionNamesIt(t *testing.T) {
	t.Parallel()
	dsn := leastPrivileged(t)
	s, log := openImpatient(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	tx, err := postgres.Begin(within(t, soon), testpg.Connect(t, withParam(t, adminOf(t, dsn), "application_name", "orders")), token)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(within(t, soon))) }()
	err = blocked(t, s)
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, "process "+itoa(tx.Conn().PgConn().PID())+` (application "orders"`)
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.Contains(t, log.String(), "this role may not end it: run `select pg_terminate_backend(pid)`")
}

func itoa[N uint32 | int](n N) string { return strings.TrimSpace(slog.IntValue(int(n)).String()) }

func TestAPreparedTransactionThatBlocksAClaimIsNamed(t *testing.T) {
	t.Parallel()
	dsn := testpg.NewServer(t, testpg.Setting("max_prepared_transactions = 2")).URL
	s, _ := openImpatient(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	conn := testpg.Connect(t, dsn)
	tx, err := postgres.Begin(within(t, soon), conn, token)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `prepare transaction 'payment 7'`)
	require.NoError(t, err)
	err = blocked(t, s)
	require.ErrorContains(t, err, `"payment 7"`)
	require.ErrorContains(t, err, "ROLLBACK PREPARED")
	testpg.Exec(t, dsn, `rollback prepared 'payment 7'`)
	claim(t, s)
}

// TestAGuardedTransactionThatWaitsForItsOwnCatalogNeverBlocksAClaimForGood has an
// application wait for a commit of its catalog inside a guarded transaction, while a
// claim waits for that.
func TestAGuardedTransactionThatWaitsForItsOwnCatalogNeverBlocksAClaimForGood(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	blue := holder(t, dsn, 1)
	pool := orders(t, dsn)
	tx, err := postgres.Begin(within(t, soon), pool, blue.Claim().Token)
	require.NoError(t, err)
	green, err := postgres.Open(t.Context(), dsn, postgres.Config{GuardTimeout: time.Hour}) // it ends nobody
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, green.Close()) })
	claimed := make(chan error, 1)
	go func() {
		c, err := catalog.Open(t.Context(), green, catalog.Config{Generation: 2, ClaimTimeout: soon})
		if err == nil {
			err = c.Close()
		}
		claimed <- err
	}()
	waitingAre(t, dsn, 1)
	require.NoError(t, set(blue, "within"), "the claim that waits holds no lock of the head")
	_, err = tx.Exec(t.Context(), `insert into orders values (1, 'x')`)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(within(t, soon)))
	require.NoError(t, <-claimed)
	require.Equal(t, 1, count(t, pool, "orders"), "what was committed before the claim stays")
}

// TestAClaimOfABuildThatKnowsNoGuardsWaitsForThemToo plays the statements of such a
// build, which locks the rows of token and head and then moves them.
func TestAClaimOfABuildThatKnowsNoGuardsWaitsForThemToo(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	pool := poolOf(t, dsn)
	for _, role := range []string{"origin", "replica"} {
		tx, err := postgres.Begin(within(t, soon), pool, token)
		require.NoError(t, err)
		old := testpg.Connect(t, dsn)
		ended := make(chan error, 1)
		go func() {
			_, err := old.Exec(t.Context(), `set session_replication_role = `+role+`; begin; select from fencepost.token for update; select from fencepost.head for update;
				update fencepost.token set epoch = epoch; commit`)
			ended <- err
		}()
		waitingAre(t, dsn, 1)
		require.NoError(t, tx.Commit(within(t, soon)))
		require.NoError(t, <-ended, role)
	}
	testpg.Exec(t, dsn, `update fencepost.token set epoch = 2`)
	_, err := postgres.Begin(within(t, soon), pool, token)
	require.Error(t, err, "what moves the token is what counts, whoever it is")
}

// TestAClaimAndOneOfABuildThatKnowsNoGuardsTakeTheirLocksInOneOrder has that build hold
// the token's row when the other begins, and come to the guards last.
func TestAClaimAndOneOfABuildThatKnowsNoGuardsTakeTheirLocksInOneOrder(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	drivertest.Install(t, s, 1)
	old := testpg.Connect(t, dsn)
	_, err := old.Exec(t.Context(), `begin; select from fencepost.token for update; select from fencepost.head for update`)
	require.NoError(t, err)
	claimed := make(chan error, 1)
	go func() {
		_, err := tryClaim(within(t, soon), s)
		claimed <- err
	}()
	waitingAre(t, dsn, 1)
	_, err = old.Exec(t.Context(), `update fencepost.token set epoch = epoch; commit`)
	require.NoError(t, err, "neither waits for the other for good")
	require.NoError(t, <-claimed)
}

func TestAGuardThatRefusesWaitsForNoClaim(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	drivertest.Install(t, open(t, dsn), 1)
	claim := testpg.Connect(t, dsn)
	_, err := claim.Exec(t.Context(), `begin; select from fencepost.token for update`)
	require.NoError(t, err)
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		_, err := postgres.Begin(within(t, soon), testpg.Connect(t, dsn), tokenOf(9, 9), postgres.WithTxOptions(pgx.TxOptions{IsoLevel: level}))
		require.ErrorIs(t, err, fence.ErrNeverIssued)
	}
}

func TestWhileAClaimWaitsNewGuardedTransactionsQueueAndThenSeeIt(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	pool := poolOf(t, dsn)
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		c, err := s.Claim(within(t, soon))
		require.NoError(t, err)
		ended := make(chan error, 1)
		go func() {
			tx, err := postgres.Begin(within(t, soon), pool, token, postgres.WithTxOptions(pgx.TxOptions{IsoLevel: level}))
			if err == nil {
				err = tx.Commit(within(t, soon))
			}
			ended <- err
		}()
		waitingAre(t, dsn, 1)
		next, rec := nextClaim(c.Head())
		require.NoError(t, c.Install(within(t, soon), next, rec))
		err = <-ended
		require.Error(t, err, level)
		if level == pgx.ReadCommitted {
			require.Error(t, postgres.Refusal(err))
		} else {
			require.ErrorContains(t, err, "40001", "the next try has a snapshot that shows the claim")
		}
		token = next.Token
	}
}

// TestARoleThatMayNotWaitForGuardsClaimsAllTheSame has the rights of before there were
// guards: then the trigger waits.
func TestARoleThatMayNotWaitForGuardsClaimsAllTheSame(t *testing.T) {
	t.Parallel()
	dsn := leastPrivileged(t)
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	admin := adminOf(t, dsn)
	testpg.Exec(t, admin, `revoke execute on function fencepost.await_guards(text) from "`+strings.ReplaceAll(u.User.Username(), `"`, `""`)+`"`)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	tx, err := postgres.Begin(within(t, soon), testpg.Connect(t, admin), token)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := tryClaim(within(t, soon), s)
		ended <- err
	}()
	waitingAre(t, dsn, 1)
	require.NoError(t, tx.Commit(within(t, soon)))
	require.NoError(t, <-ended)
}
