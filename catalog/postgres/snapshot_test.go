package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testpg"
)

// at returns a snapshot of the log up to head.
func at(head driver.Head, parts int) driver.Snapshot {
	return driver.Snapshot{ID: driver.NewID(), Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token, Parts: parts}
}

func stage(t *testing.T, s *postgres.Store, head driver.Head, parts ...[]byte) driver.Snapshot {
	t.Helper()
	snapshot := at(head, len(parts))
	for n, part := range parts {
		require.NoError(t, s.Stage(within(t, soon), head.Claim, snapshot.ID, n, part))
	}
	return snapshot
}

func publish(t *testing.T, s *postgres.Store, head driver.Head, parts ...[]byte) driver.Snapshot {
	t.Helper()
	snapshot := stage(t, s, head, parts...)
	require.NoError(t, s.Publish(within(t, soon), head.Claim, snapshot))
	return snapshot
}

// trim calls Trim until there is no more to delete, and returns how often.
func trim(t *testing.T, s *postgres.Store, head driver.Head) (calls int) {
	t.Helper()
	for more := true; more; calls++ {
		var err error
		more, err = s.Trim(within(t, soon), head.Claim)
		require.NoError(t, err)
	}
	return calls
}

func fill(t *testing.T, s *postgres.Store, head driver.Head, n int, payload []byte) driver.Head {
	t.Helper()
	for range n {
		rec := next(head)
		rec.Payload = payload
		require.NoError(t, s.Append(within(t, soon), head, rec))
		head = head.After(rec)
	}
	return head
}

// compacted makes a catalog whose records 1 to 5 are deleted, and 6 to 8 there.
func compacted(t *testing.T, dsn string) (*postgres.Store, driver.Head) {
	t.Helper()
	s := open(t, dsn)
	head := fill(t, s, claim(t, s), 5, nil)
	publish(t, s, head, []byte("zero"), []byte("one"))
	trim(t, s, head)
	return s, fill(t, s, head, 2, nil)
}

func readSnapshot(t *testing.T, s driver.Store) (snapshot driver.Snapshot, parts []string, err error) {
	t.Helper()
	err = s.Snapshot(within(t, soon), func(sn driver.Snapshot, part []byte) error {
		snapshot, parts = sn, append(parts, string(part))
		return nil
	})
	return snapshot, parts, err
}

// compactions returns one call of each step, in order.
func compactions(s *postgres.Store, head driver.Head) []func(context.Context) error {
	snapshot := at(head, 1)
	return []func(context.Context) error{
		func(ctx context.Context) error { return s.Stage(ctx, head.Claim, snapshot.ID, 0, []byte("part")) },
		func(ctx context.Context) error { return s.Publish(ctx, head.Claim, snapshot) },
		func(ctx context.Context) error { _, err := s.Trim(ctx, head.Claim); return err },
	}
}

func TestARecordThatIsMissingForAnyOtherReasonThanACompactionIsCorrupt(t *testing.T) {
	t.Parallel()
	none := func(driver.Record) error { return nil }
	for damage, after := range map[string]uint64{
		"delete from fencepost.log where revision = 6":                                                      5, // the snapshot's own
		"delete from fencepost.log where revision = 7":                                                      5,
		"delete from fencepost.log where revision < 8":                                                      6,
		"update fencepost.snapshot set trimmed = 3":                                                         3,
		"delete from fencepost.snapshot":                                                                    0,
		"update fencepost.log set revision = 12 where revision = 8; update fencepost.head set revision = 7": 5,
	} {
		dsn := testpg.URL(t)
		s, _ := compacted(t, dsn)
		err := s.Log(within(t, soon), 0, none)
		require.ErrorIs(t, err, driver.ErrCompacted)
		fails(t, err, exitcodes.None, driver.NotApplied)
		testpg.Exec(t, dsn, damage)
		err = s.Log(within(t, soon), after, none)
		require.ErrorIs(t, err, driver.ErrCorrupt, damage)
		fails(t, err, exitcodes.Panic, driver.NotApplied)
	}
	dsn := testpg.URL(t)
	s, _ := compacted(t, dsn)
	testpg.Exec(t, dsn, "delete from fencepost.log")
	require.ErrorIs(t, s.Log(within(t, soon), 0, none), driver.ErrCompacted, "that it was deleted is written down")
	require.ErrorIs(t, s.Log(within(t, soon), 5, none), driver.ErrCorrupt)
}

func TestADamagedSnapshotIsCorrupt(t *testing.T) {
	t.Parallel()
	for _, damage := range []string{
		"delete from fencepost.part where n = 0",
		"delete from fencepost.part where n = 1",
		"delete from fencepost.part",
		"update fencepost.part set n = n + 5",
		"update fencepost.snapshot set revision = 5",
		"update fencepost.snapshot set snapshot = '{}'",
		"update fencepost.snapshot set id = gen_random_uuid()",
	} {
		dsn := testpg.URL(t)
		s, _ := compacted(t, dsn)
		_, parts, err := readSnapshot(t, s)
		require.NoError(t, err)
		require.Equal(t, []string{"zero", "one"}, parts)
		testpg.Exec(t, dsn, damage)
		_, _, err = readSnapshot(t, s)
		require.ErrorIs(t, err, driver.ErrCorrupt, damage)
		fails(t, err, exitcodes.Panic, driver.NotApplied)
	}
}

func TestAMissingHeadBesideASnapshotIsCorruptAndNotAFirstOpen(t *testing.T) {
	t.Parallel()
	for _, left := range []string{"part", "snapshot"} {
		dsn := testpg.URL(t)
		s, _ := compacted(t, dsn)
		for _, table := range []string{"head", "token", "log", "claim", "part", "snapshot"} {
			if table != left {
				testpg.Exec(t, dsn, "delete from fencepost."+table)
			}
		}
		_, err := s.Head(within(t, soon))
		require.ErrorIs(t, err, driver.ErrCorrupt, left)
		_, err = s.Claim(within(t, soon))
		require.ErrorIs(t, err, driver.ErrCorrupt, left)
	}
}

func TestACompactionOfNoCatalogIsRefused(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := driver.Head{Revision: 1, Commit: driver.NewID(), Claim: driver.Claim{ID: driver.NewID(), Token: claim(t, open(t, testpg.URL(t))).Claim.Token}}
	for _, call := range compactions(s, head) {
		err := call(within(t, soon))
		require.ErrorIs(t, err, driver.ErrConflict)
		fails(t, err, exitcodes.None, driver.NotApplied)
	}
	require.Zero(t, schemas(t, dsn))
}

func TestACallAgainstTheContractIsADefect(t *testing.T) {
	t.Parallel()
	s, head := compacted(t, testpg.URL(t))
	for _, err := range []error{
		s.Stage(within(t, soon), head.Claim, driver.NewID(), -1, nil),
		s.Stage(within(t, soon), head.Claim, driver.NewID(), 1<<31, nil),
		s.Publish(within(t, soon), head.Claim, driver.Snapshot{}),
	} {
		require.ErrorContains(t, err, "against its contract")
		fails(t, err, exitcodes.Panic, driver.NotApplied)
	}
}

// A claim waits for a Trim.
func TestATrimIsSmallWhateverThereIsToDelete(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ records, payload, parts, calls int }{
		"records":        {records: 2500, calls: 3},
		"large records":  {records: 12, payload: 4 << 20, calls: 6},
		"a huge record":  {records: 3, payload: 18 << 20, calls: 2},
		"parts":          {records: 1, parts: 33, calls: 3},
		"as many as fit": {records: 999, parts: 16, calls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, testpg.URL(t))
			head := claim(t, s)
			publish(t, s, head, make([][]byte, c.parts)...)
			head = fill(t, s, head, c.records, make([]byte, c.payload))
			publish(t, s, head)
			require.Equal(t, c.calls, trim(t, s, head))
		})
	}
}

func TestCatalogsOfOneDatabaseAreCompactedApart(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	one, head := compacted(t, withParam(t, dsn, "catalog", "one"))
	other := open(t, withParam(t, dsn, "catalog", "other"))
	otherHead := fill(t, other, claim(t, other), 9, nil)
	staged := stage(t, other, otherHead, []byte("other's"))
	publish(t, one, head, []byte("one's"))
	trim(t, one, head)
	require.Len(t, records(t, other), 10)
	require.NoError(t, other.Publish(within(t, soon), otherHead.Claim, staged))
	_, parts, err := readSnapshot(t, one)
	require.NoError(t, err)
	require.Equal(t, []string{"one's"}, parts)
}

func TestACompactionPassesItsPointsOnceItHasLanded(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "exec"} { // exec is what works behind a pooler
		s, head := compacted(t, withParam(t, testpg.URL(t), "default_query_exec_mode", mode))
		var passed []step.Point
		ctx := step.With(within(t, soon), func(p step.Point) { passed = append(passed, p) })
		for _, call := range compactions(s, head) {
			require.NoError(t, call(ctx))
		}
		require.Equal(t, []step.Point{step.SnapshotStaged, step.SnapshotPublished, step.SnapshotTrimmed}, passed)
		_, parts, err := readSnapshot(t, s)
		require.NoError(t, err)
		require.Equal(t, []string{"part"}, parts)
		claim(t, s)
		for _, call := range compactions(s, head) {
			require.ErrorIs(t, call(ctx), driver.ErrConflict)
		}
		require.Len(t, passed, 3)
	}
}

func TestACompactionIsDurableWhereTheDatabaseSaysOtherwise(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	_, head := compacted(t, dsn)
	testpg.Exec(t, dsn, `create table public.seen (setting text)`,
		`create function public.see() returns trigger language plpgsql as $$ begin
			insert into public.seen values (current_setting('synchronous_commit')); return null; end $$`,
		`create constraint trigger see after insert on fencepost.part deferrable initially deferred
			for each row execute function public.see()`,
		`create constraint trigger see after insert or update on fencepost.snapshot deferrable initially deferred
			for each row execute function public.see()`,
		`do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$`)
	for _, call := range compactions(open(t, dsn), head) {
		require.NoError(t, call(within(t, soon)))
	}
	rows, err := testpg.Connect(t, dsn).Query(t.Context(), `select setting from public.seen`)
	require.NoError(t, err)
	seen, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"on", "on", "on"}, seen)
}

func TestACompactionWhoseWaitForTheStandbyIsCancelledIsUnknown(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t)
	dsn := testpg.Database(t, server.URL)
	s, head := compacted(t, dsn)
	testpg.CommitsWaitFor(t, dsn, "*")
	t.Cleanup(func() {
		testpg.Exec(t, dsn, `alter system reset synchronous_standby_names`, `select pg_reload_conf()`)
	})
	conn := testpg.Connect(t, dsn)
	for _, call := range compactions(s, head) {
		done := make(chan error, 1)
		go func() { done <- call(within(t, soon)) }()
		require.Eventually(t, func() bool {
			var n int
			require.NoError(t, conn.QueryRow(t.Context(), `select count(pg_cancel_backend(pid)) from pg_stat_activity
				where datname = current_database() and wait_event = 'SyncRep'`).Scan(&n))
			return n > 0
		}, soon, often)
		fails(t, <-done, exitcodes.Retry, driver.Unknown)
	}
	got, _, err := readSnapshot(t, s)
	require.NoError(t, err)
	require.Equal(t, head.Revision, got.Revision)
}

func TestACompactionWaitsForAClaimUnderWayAndIsThenRefused(t *testing.T) {
	t.Parallel()
	for isolation, dsn := range map[string]string{"read committed": testpg.URL(t), "serializable": serializableByDSN(t)} {
		s, head := compacted(t, dsn)
		for i := range compactions(s, head) {
			calls := compactions(s, head)
			for _, earlier := range calls[:i] {
				require.NoError(t, earlier(within(t, soon)))
			}
			claimer := open(t, dsn)
			c, err := claimer.Claim(within(t, soon))
			require.NoError(t, err)
			done := async(func() error { return calls[i](within(t, soon)) })
			waiting(t, dsn)
			installed, rec := nextClaim(c.Head())
			require.NoError(t, c.Install(within(t, soon), installed, rec))
			err = <-done
			if i == 0 && isolation == "serializable" { // such a statement fails, and its next try is refused
				fails(t, err, exitcodes.Retry, driver.NotApplied)
				err = calls[i](within(t, soon))
			}
			require.ErrorIs(t, err, driver.ErrConflict)
			fails(t, err, exitcodes.None, driver.NotApplied)
			head = installed.Head()
		}
	}
}

func TestACompactionWaitsForAClaimNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, head := compacted(t, dsn)
	c, err := open(t, dsn).Claim(within(t, soon))
	require.NoError(t, err)
	for i, call := range compactions(s, head) {
		ctx, expire := expires(t)
		done := async(func() error { return call(ctx) })
		waitingAre(t, dsn, 1)
		expire()
		err := <-done
		var e *driver.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, exitcodes.Retry, e.Disposition())
		want := driver.NotApplied // no COMMIT was sent
		if i == 0 {
			want = driver.Unknown
		}
		require.Equal(t, want, e.Outcome)
		waitingAre(t, dsn, 0)
	}
	c.Abandon()
	for _, call := range compactions(s, head) {
		require.NoError(t, call(within(t, soon)))
	}
}

func TestAHolderThatStagesWithoutAPauseDoesNotKeepClaimsOut(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	for range 5 {
		s := open(t, dsn)
		head := claim(t, s)
		done := make(chan error, 1)
		begun := make(chan struct{})
		go func() {
			id, n := driver.NewID(), 0
			for {
				err := s.Stage(context.Background(), head.Claim, id, n, []byte("part"))
				if n++; n == 10 {
					close(begun)
				}
				if err != nil {
					done <- err
					return
				}
			}
		}()
		<-begun
		claim(t, open(t, dsn))
		require.ErrorIs(t, <-done, driver.ErrConflict)
	}
}

// See TestAPreparedStatementThatMeetsAPoolerIsTheLastOne.
func TestACompactionBehindAPoolerNeedsNoPreparedStatement(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	config.MaxConns = 1
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{Pool: pool})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	head := fill(t, s, claim(t, s), 3, nil)
	calls := append(compactions(s, head),
		func(ctx context.Context) error {
			return s.Snapshot(ctx, func(driver.Snapshot, []byte) error { return nil })
		},
		func(ctx context.Context) error {
			if err := s.Log(ctx, 0, func(driver.Record) error { return nil }); !errors.Is(err, driver.ErrCompacted) {
				return err
			}
			return nil
		})
	for try := range 3 { // prepares all; learns of the pooler; does without
		for i, call := range calls {
			if try > 0 {
				_, err := pool.Exec(t.Context(), "deallocate all")
				require.NoError(t, err)
			}
			if err := call(within(t, soon)); try == 1 && i == 0 {
				fails(t, err, exitcodes.Retry, driver.NotApplied)
				require.NoError(t, call(within(t, soon)))
			} else {
				require.NoError(t, err, "try %d, call %d", try, i)
			}
		}
		head = fill(t, s, head, 1, nil)
		copy(calls, compactions(s, head))
	}
}

func TestACompactionOnAStandbyLeavesIt(t *testing.T) {
	t.Parallel()
	primary := testpg.NewServer(t)
	_, head := compacted(t, primary.URL)
	standby := primary.Standby(t)
	p, through := newProxy(t, primary.URL)
	s := open(t, through)
	for _, call := range compactions(s, head) {
		p.server.Store(standby.Address())
		testpg.Exec(t, primary.URL, `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fencepost'`)
		require.Eventually(t, func() bool { return call(within(t, soon)) != nil }, soon, often)
		require.Eventually(t, func() bool {
			err := call(within(t, soon))
			fails(t, err, exitcodes.Retry, driver.NotApplied)
			return strings.Contains(err.Error(), "standby, in recovery")
		}, soon, often)
		p.server.Store(primary.Address())
		require.NoError(t, call(within(t, soon)))
	}
}
