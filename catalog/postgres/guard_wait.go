package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// guardedSQL tells whether this role can wait for guarded transactions by
	// awaitSQL. If not, the trigger on fencepost.token waits for them.
	guardedSQL = `select exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
		where n.nspname = 'fencepost' and p.proname = 'await_guards'
		and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_function_privilege(p.oid, 'execute'))`
	awaitSQL = `select fencepost.await_guards($1)`

	// guardedBySQL finds the guarded transactions for which backend $1 waits, and what else holds their lock.
	guardedBySQL = `select l.pid, coalesce(a.application_name, ''), coalesce(pg_catalog.host(a.client_addr), 'a local socket'),
		coalesce(a.state, 'in an unknown state'), a.state_change
		from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid
		where ` + blocksSQL

	// terminateSQL ends backend $3 if that still blocks the claim: since it was found, its session may have gone on
	// to something else.
	terminateSQL = `select pg_catalog.pg_terminate_backend(l.pid) from pg_catalog.pg_locks l where l.pid = $3 and ` + blocksSQL

	// blocksSQL is the condition that backend $1 waits for lock l, of a transaction that catalog $2 guards, or of
	// one that has looked at the view: with the rights that a guard takes, and even without those on the view,
	// every role can hold the lock in these modes for as long as it likes.
	blocksSQL = `l.locktype = 'relation' and l.mode in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock') and l.granted
		and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
		and l.relation in (select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
			where n.nspname = 'fencepost' and c.relkind = 'v' and pg_catalog.starts_with(c.relname::text, fencepost.guard_view($2, '')))
		and l.pid = any (pg_catalog.pg_blocking_pids($1))`
)

// guardPoll is the time between two looks at the guarded transactions for which a
// claim waits.
const guardPoll = 100 * time.Millisecond

// endGuarded ends the guarded transactions for which the claim of a backend waits,
// after [Config.GuardTimeout] and until stop is called. Stop waits for a look under
// way.
func (s *Store) endGuarded(pid int) (stop func()) {
	done, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		told := map[int]bool{}
		timer := time.NewTimer(s.config.GuardTimeout)
		defer timer.Stop()
		for {
			select {
			case <-done:
				return
			case <-timer.C:
			}
			if err := s.terminateGuarded(pid, told); err != nil {
				s.log.Warn("the guarded transactions that block a claim could not be looked at", "store", s.name, "err", err)
			}
			timer.Reset(guardPoll)
		}
	}()
	return func() { close(done); <-joined }
}

// terminateGuarded ends the sessions whose guarded transactions block a claim. Told
// are those that were logged.
func (s *Store) terminateGuarded(claim int, told map[int]bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := s.acquire(ctx, s.liveness)
	if err != nil {
		return err
	}
	defer s.give(conn)
	rows, err := conn.Query(ctx, guardedBySQL, s.args(int32(claim), s.catalog)...)
	if err != nil {
		return err
	}
	holders, err := pgx.CollectRows(rows, scanBlocker)
	if err != nil {
		return err
	}
	for _, b := range holders {
		var ended bool
		err := conn.QueryRow(ctx, terminateSQL, s.args(int32(claim), s.catalog, int32(b.pid))...).Scan(&ended)
		switch {
		case told[b.pid]:
		case errors.Is(err, pgx.ErrNoRows): // it has ended by itself
			continue
		case err != nil:
			s.log.Warn("a guarded transaction blocks a claim, and this role may not end it: run `select pg_terminate_backend(pid)` as its owner or a superuser",
				"store", s.name, "pid", b.pid, "session", b.String(), "after", s.config.GuardTimeout, "err", err)
		case ended:
			s.log.Warn("a guarded transaction that blocked a claim was ended", "store", s.name, "pid", b.pid, "session", b.String(), "after", s.config.GuardTimeout)
		}
		told[b.pid] = true
	}
	return nil
}

func scanBlocker(row pgx.CollectableRow) (b blocker, err error) {
	err = row.Scan(&b.pid, &b.application, &b.address, &b.state, &b.since)
	return b, err
}
