package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/leader"
)

func openRegister(t *testing.T, dsn string) *postgres.Register {
	t.Helper()
	r, err := postgres.OpenRegister(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func TestARegisterOnlyRisesAndItsGuardsRefuseWhatIsLower(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	r := openRegister(t, dsn)
	testpg.Exec(t, dsn, `create table orders (id int primary key, note text)`)
	blue := fence.Holder{Name: "blue"}
	require.NoError(t, r.Prove(within(t, soon), tokenOf(1, 1)))
	require.Zero(t, schemas(t, dsn), "a proof makes nothing")
	require.NoError(t, r.Raise(within(t, soon), tokenOf(1, 1), blue))
	require.NoError(t, r.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{"orders"}}))
	pool, conn := poolOf(t, dsn), testpg.Connect(t, dsn)
	begin := func(token fence.Token) error {
		tx, err := postgres.Begin(within(t, soon), pool, token, postgres.InRegister("main"))
		if err != nil {
			return err
		}
		return tx.Commit(within(t, soon))
	}
	write := func(token fence.Token) error {
		return postgres.Refusal(committed(t, conn, token.String(), `insert into orders values (1, 'x')`))
	}
	require.NoError(t, begin(tokenOf(1, 1)))
	require.NoError(t, write(tokenOf(1, 1)))
	require.NoError(t, r.Raise(within(t, soon), tokenOf(1, 1), blue), "again")
	require.NoError(t, r.Prove(within(t, soon), tokenOf(2, 7)))
	require.NoError(t, begin(tokenOf(1, 1)), "a proof changes nothing")
	require.NoError(t, r.Raise(within(t, soon), tokenOf(2, 7), fence.Holder{Name: "green"}))
	for _, stale := range []fence.Token{tokenOf(1, 1), tokenOf(2, 6), tokenOf(1, 3)} {
		for _, err := range []error{begin(stale), write(stale), r.Raise(within(t, soon), stale, blue), r.Prove(within(t, soon), stale)} {
			var refused *fence.Error
			require.ErrorAs(t, err, &refused, "%v", stale)
			require.Equal(t, tokenOf(2, 7), refused.Current)
			require.Equal(t, "postgres register main", refused.Guard)
			require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
		}
	}
	require.ErrorContains(t, begin(tokenOf(1, 1)), "green")
	require.ErrorIs(t, begin(tokenOf(2, 8)), fence.ErrNeverIssued)
	require.NoError(t, begin(tokenOf(2, 7)))
	guards, err := r.Guards(within(t, soon))
	require.NoError(t, err)
	require.Len(t, guards.Tables, 1)
	require.Positive(t, guards.Refused)
	claim(t, open(t, dsn)) // a catalog of the same name is another thing
	require.NoError(t, begin(tokenOf(2, 7)))
}

func TestARegisterSaysWhichTokenItHolds(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	r := openRegister(t, dsn)
	is := func(want driver.RegisterState) {
		t.Helper()
		state, err := r.State(within(t, soon))
		require.NoError(t, err)
		require.Equal(t, want, state)
	}
	is(driver.RegisterState{})
	require.Zero(t, schemas(t, dsn), "to look makes nothing")
	require.NoError(t, r.InstallGuards(within(t, soon), driver.GuardedTables{}))
	is(driver.RegisterState{})
	require.NoError(t, r.Raise(within(t, soon), tokenOf(2, 7), fence.Holder{Name: "green"}))
	is(driver.RegisterState{Token: tokenOf(2, 7), Holder: fence.Holder{Name: "green"}})
	testpg.Exec(t, dsn, `update fencepost.claim set claim = 'x' where catalog = 'register:main'`)
	is(driver.RegisterState{Token: tokenOf(2, 7)})
}

func TestARegisterThatADumpHasBroughtRefusesEverybodyUntilItIsRaisedThereUnderTheSameTokenToo(t *testing.T) {
	t.Parallel()
	from, to := testpg.URL(t), testpg.URL(t)
	require.NoError(t, openRegister(t, from).Raise(within(t, soon), tokenOf(2, 7), fence.Holder{Name: "green"}))
	claim(t, open(t, from)) // dumped copies a catalog's tables
	dumped(t, from, to)
	r, pool := openRegister(t, to), poolOf(t, to)
	_, err := postgres.Begin(within(t, soon), pool, tokenOf(2, 7), postgres.InRegister("main"))
	require.ErrorIs(t, err, postgres.ErrCopied)
	require.ErrorContains(t, err, "fencepost guard raise")
	state, err := r.State(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, tokenOf(2, 7), state.Token)
	require.Contains(t, state.Problem, "copy")
	require.ErrorIs(t, r.Raise(within(t, soon), tokenOf(2, 6), fence.Holder{}), fence.ErrFenced, "it doesn't fall")
	require.NoError(t, r.Raise(within(t, soon), tokenOf(2, 7), fence.Holder{Name: "green"}))
	tx, err := postgres.Begin(within(t, soon), pool, tokenOf(2, 7), postgres.InRegister("main"))
	require.NoError(t, err)
	require.NoError(t, tx.Commit(within(t, soon)))
	state, err = r.State(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, driver.RegisterState{Token: tokenOf(2, 7), Holder: fence.Holder{Name: "green"}}, state)
}

func TestRegistersThatAreRaisedAtOnceEndAtTheHighest(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	const processes = 12
	var wg sync.WaitGroup
	for i := range processes {
		r := openRegister(t, dsn)
		wg.Go(func() {
			if err := r.Raise(within(t, soon), tokenOf(1, epoch.Epoch(i+1)), fence.Holder{}); i == processes-1 || !errors.Is(err, fence.ErrFenced) {
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	err := openRegister(t, dsn).Prove(within(t, soon), tokenOf(1, processes-1))
	var refused *fence.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, tokenOf(1, processes), refused.Current)
}

func TestAProofKeepsNoWriterWaitingAndARaiseEndsWhoIsStopped(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	r, err := postgres.OpenRegister(t.Context(), dsn, postgres.Config{GuardTimeout: often})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	require.NoError(t, r.Raise(within(t, soon), tokenOf(1, 1), fence.Holder{}))
	tx, err := postgres.Begin(within(t, soon), testpg.Connect(t, dsn), tokenOf(1, 1), postgres.InRegister("main"))
	require.NoError(t, err)
	require.NoError(t, r.Prove(within(t, soon), tokenOf(2, 2)), "it would only have to wait")
	_, err = tx.Exec(t.Context(), `select 1`)
	require.NoError(t, err, "a proof ends nobody")
	require.NoError(t, r.Raise(within(t, soon), tokenOf(2, 2), fence.Holder{}))
	require.Error(t, tx.Commit(within(t, soon)))
}

func TestARegisterThatCantBeRaisedSaysSoBefore(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	require.NoError(t, openRegister(t, dsn).Raise(within(t, soon), tokenOf(1, 1), fence.Holder{}))
	role := "weak_" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role+" login password 'pw'", "grant usage on schema fencepost to "+role)
	t.Cleanup(func() {
		testpg.Exec(t, dsn, "set default_transaction_read_only = off", "drop owned by "+role+"; drop role "+role)
	})
	weak := openRegister(t, testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") }))
	err := weak.Prove(within(t, soon), tokenOf(2, 2))
	require.ErrorContains(t, err, "permission denied")
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	testpg.Exec(t, dsn, "alter database "+strings.Trim(u.Path, "/")+" set default_transaction_read_only = on")
	err = openRegister(t, dsn).Prove(within(t, soon), tokenOf(2, 2))
	require.Error(t, err)
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
}

// TestAServiceWhoseRowsAreElsewhereWritesNothingStale has the catalog in memory and
// the rows in PostgreSQL: a zombie's write is refused by the register.
func TestAServiceWhoseRowsAreElsewhereWritesNothingStale(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, `create table orders (id int primary key, note text)`)
	store := memory.New()
	tokens := make(chan fence.Token, 2)
	lead := func() (stop context.CancelFunc, ended chan error) {
		ctx, stop := context.WithCancel(t.Context())
		l, err := leader.New(store.Open(), leader.Config{
			Catalog: catalog.Config{Generation: 1}, Registers: []fence.Register{openRegister(t, dsn)},
		})
		require.NoError(t, err)
		ended = make(chan error, 1)
		go func() {
			ended <- l.Run(ctx, func(ctx context.Context, term *leader.Term) error {
				tokens <- term.Claim().Token
				<-ctx.Done()
				return context.Cause(ctx)
			})
		}()
		return stop, ended
	}
	stop, ended := lead()
	old := <-tokens
	tx := func(token fence.Token) error {
		return pgx.BeginFunc(within(t, soon), testpg.Connect(t, dsn), func(tx pgx.Tx) error {
			return postgres.Guard(within(t, soon), tx, token, postgres.InRegister("main"))
		})
	}
	require.NoError(t, tx(old))
	stop()
	require.NoError(t, <-ended)
	stop, ended = lead()
	newer := <-tokens
	require.ErrorIs(t, tx(old), fence.ErrFenced)
	require.NoError(t, tx(newer))
	stop()
	require.NoError(t, <-ended)
}
