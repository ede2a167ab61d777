package postgres_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

func schemas(t *testing.T, dsn string) int {
	t.Helper()
	var n int
	require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(),
		`select count(*) from pg_namespace where nspname = 'fencepost'`).Scan(&n))
	return n
}

func TestReadingAnEmptyDatabaseWritesNothing(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	ctx := within(t, soon)
	head, err := s.Head(ctx)
	require.NoError(t, err)
	require.True(t, head.IsZero())
	require.Empty(t, records(t, s))
	require.NoError(t, s.Claims(ctx, 0, func(driver.Claim) error { return errors.New("a claim") }))
	notes, err := s.Notes(ctx, "")
	require.NoError(t, err)
	require.Empty(t, notes)
	c, err := s.Claim(ctx)
	require.NoError(t, err)
	require.True(t, c.Head().IsZero())
	c.Abandon()
	c.Abandon()
	version, err := s.Post(ctx, driver.Note{Key: "k"})
	require.NoError(t, err)
	require.Zero(t, version)
	_, err = s.Post(ctx, driver.Note{Key: "k", Version: 7})
	require.ErrorIs(t, err, driver.ErrConflict)
	require.ErrorIs(t, s.Append(ctx, head, next(head)), driver.ErrConflict)
	require.Zero(t, schemas(t, dsn))
}

func TestTwentyFirstClaimsOfAnEmptyDatabaseMakeOneChain(t *testing.T) {
	t.Parallel()
	const claimers = 20
	dsn := testpg.URL(t)
	var wg sync.WaitGroup
	errs := make([]error, claimers)
	for i := range claimers {
		s := open(t, dsn)
		wg.Go(func() { _, errs[i] = tryClaim(within(t, soon), s) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	s := open(t, dsn)
	var chain []driver.Claim
	require.NoError(t, s.Claims(within(t, soon), 0, func(c driver.Claim) error {
		chain = append(chain, c)
		return nil
	}))
	require.Len(t, chain, claimers)
	for i, c := range chain {
		require.EqualValues(t, i+1, c.Token.Epoch)
		if i > 0 {
			require.Equal(t, chain[i-1].ID, c.PriorClaim)
		}
	}
	require.Len(t, records(t, s), claimers)
}

func TestFirstPostsAndClaimsOfSeveralCatalogsRaceSafely(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		s := open(t, withParam(t, dsn, "catalog", string(rune('a'+i/2))))
		wg.Go(func() {
			if i%2 == 0 {
				_, errs[i] = tryClaim(within(t, soon), s)
				return
			}
			_, errs[i] = s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, 1, schemas(t, dsn))
}

func TestAForeignSchemaIsLeftAlone(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, `create schema fencepost`, `create table fencepost.posts (wood text)`)
	s := open(t, dsn)
	_, headErr := s.Head(within(t, soon))
	_, claimErr := tryClaim(within(t, soon), s)
	_, postErr := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	for _, err := range []error{headErr, claimErr, postErr} {
		e := fails(t, err, exitcodes.Halt, driver.NotApplied)
		require.Equal(t, exitcodes.Config, e.ExitCode())
		require.Contains(t, e.Remedy, "another database")
	}
}

func TestANewerSchemaStillShowsItsHeadAndRefusesTheRest(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	want := claim(t, s)
	testpg.Exec(t, dsn, `update fencepost.schema_version set version = 2`)
	got, err := s.Head(within(t, soon))
	require.NoError(t, err, "a superseded build must be able to learn that it is")
	require.Equal(t, want, got)
	_, installErr := tryClaim(within(t, soon), s)
	_, notesErr := s.Notes(within(t, soon), "")
	_, postErr := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	nothing := func(driver.Record) error { return nil }
	logErr := s.Log(within(t, soon), 0, nothing)
	lost, lossesErr := s.Losses(within(t, soon))
	_, putErr := s.PutLosses(within(t, soon), driver.Losses{Text: []byte("lost"), Place: lost.Place}, &want)
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	claimsLogErr := c.Log(within(t, soon), 0, nothing)
	c.Abandon()
	for _, err := range []error{installErr, notesErr, postErr, logErr, lossesErr, putErr, claimsLogErr} {
		e := fails(t, err, exitcodes.Halt, driver.NotApplied)
		require.Equal(t, exitcodes.Config, e.ExitCode())
		require.ErrorContains(t, err, "2, this build knows 1")
	}
}

func TestALogThatLacksWhatWasWrittenIsCorrupt(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"no head":             `delete from fencepost.head`,
		"a gap":               `delete from fencepost.log where revision = 2`,
		"a lost end":          `delete from fencepost.log where revision = 3`,
		"an unreadable claim": `update fencepost.head set claim = '{"token":"g1.e1"}'`,
	} {
		t.Run(name, func(t *testing.T) {
			dsn := testpg.URL(t)
			s := open(t, dsn)
			head := claim(t, s)
			for range 2 {
				rec := next(head)
				require.NoError(t, s.Append(within(t, soon), head, rec))
				head = head.After(rec)
			}
			require.Len(t, records(t, s), 3)
			testpg.Exec(t, dsn, damage)
			err := s.Log(within(t, soon), 0, func(driver.Record) error { return nil })
			fails(t, err, exitcodes.Panic, driver.NotApplied)
			require.ErrorIs(t, err, driver.ErrCorrupt)
			if name == "no head" {
				_, err := s.Head(within(t, soon))
				require.ErrorIs(t, err, driver.ErrCorrupt)
				_, err = s.Claim(within(t, soon))
				require.ErrorIs(t, err, driver.ErrCorrupt)
			}
		})
	}
}

func TestAClaimInTheRowOfAnotherRevisionIsCorrupt(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	testpg.Exec(t, dsn, `update fencepost.claim set revision = 2`)
	err := s.Claims(within(t, soon), 0, func(driver.Claim) error { return nil })
	fails(t, err, exitcodes.Panic, driver.NotApplied)
	require.ErrorIs(t, err, driver.ErrCorrupt)
}

func TestACommitIsDurableWhereTheDatabaseSaysOtherwise(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := claim(t, s)
	testpg.Exec(t, dsn, `create table public.seen (setting text)`,
		`create function public.see() returns trigger language plpgsql as $$ begin
			insert into public.seen values (current_setting('synchronous_commit')); return null; end $$`,
		`create constraint trigger see after insert on fencepost.log deferrable initially deferred
			for each row execute function public.see()`,
		`create constraint trigger see after insert or update or delete on fencepost.board deferrable initially deferred
			for each row execute function public.see()`,
		`do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$`)
	s = open(t, dsn)
	require.NoError(t, s.Append(within(t, soon), head, next(head)))
	claim(t, s)
	v, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	v, err = s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("w"), Version: v})
	require.NoError(t, err)
	_, err = s.Post(within(t, soon), driver.Note{Key: "k", Version: v})
	require.NoError(t, err)
	l, err := s.Losses(within(t, soon))
	require.NoError(t, err)
	l.Text = []byte("lost")
	_, err = s.PutLosses(within(t, soon), l, nil)
	require.NoError(t, err)
	conn := testpg.Connect(t, dsn)
	rows, err := conn.Query(t.Context(), `select setting from public.seen`)
	require.NoError(t, err)
	seen, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, seen, 8, "a commit, a claim, which keeps the place of the record of losses and leaves it, three notes and a loss")
	require.NotContains(t, seen, "off")
}

func TestAHeadThatIsNotItsClaimsOwnAtTheClaimsRevisionIsCorrupt(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"another commit at its revision":    `update fencepost.head set commit_id = gen_random_uuid()`,
		"the claim's own commit beyond it":  `update fencepost.head set revision = revision + 1`,
		"a revision before that of a claim": `alter table fencepost.head drop constraint head_revision_check; update fencepost.head set revision = -1`,
	} {
		t.Run(name, func(t *testing.T) {
			dsn := testpg.URL(t)
			s := open(t, dsn)
			claim(t, s)
			testpg.Exec(t, dsn, damage)
			_, err := s.Head(within(t, soon))
			fails(t, err, exitcodes.Panic, driver.NotApplied)
			require.ErrorIs(t, err, driver.ErrCorrupt)
		})
	}
}
