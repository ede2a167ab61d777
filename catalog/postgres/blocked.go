package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/catalog/driver"
)

// patience divides the time that a claim may wait for its locks.
type patience struct {
	ask    time.Duration // after this, ask who stands in the way
	lock   time.Duration // after this, the server gives up, even where the claimer has stopped
	giveUp time.Duration // after this, the claimer gives up, even where the server has stopped
}

// patienceOf returns the patience of a claim under ctx. A context without a
// deadline gets 30 s.
func patienceOf(ctx context.Context) patience {
	left := 30 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline), 4*time.Millisecond)
	}
	margin := min(left/4, time.Second)
	return patience{ask: left - margin, lock: left - margin/2, giveUp: left - margin/4}
}

// orBlocked calls fn, whose statements may wait for locks. If they don't get them
// within the claim's time, the error wraps ErrBlocked and names who holds them.
func (c *claiming) orBlocked(ctx context.Context, wait patience, fn func(context.Context) error) error {
	return c.store.orBlocked(ctx, wait, c.pid, c.guards, fn)
}

// orBlocked does it for whatever backend pid waits for. If it waits for guards, those
// are ended that take too long.
func (s *Store) orBlocked(ctx context.Context, wait patience, pid int, guards bool, fn func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, wait.giveUp)
	defer cancel()
	answer := s.askLater(wait, pid)
	stop := func() {}
	if guards {
		stop = s.endGuarded(pid)
	}
	err := fn(bounded)
	stop()
	blockers, askErr := answer()
	refused := sqlState(err) == "55P03"
	late := err != nil && ctx.Err() == nil && bounded.Err() != nil
	switch {
	case !refused && !late:
		return err
	case len(blockers) > 0:
		return fmt.Errorf("%w by %s: %w", driver.ErrBlocked, strings.Join(blockers, " and by "), err)
	case refused:
		return errors.Join(fmt.Errorf("%w, and who does it can't be told: %w", driver.ErrBlocked, err), askErr)
	default:
		return err
	}
}

// askLater asks who blocks a backend, unless the answer is wanted before it is
// time to ask. The function that it returns waits for the goroutine's end.
func (s *Store) askLater(wait patience, pid int) (answer func() ([]string, error)) {
	type result struct {
		blockers []string
		err      error
	}
	done, out := make(chan struct{}), make(chan result, 1)
	go func() {
		timer := time.NewTimer(wait.ask)
		defer timer.Stop()
		select {
		case <-done:
			out <- result{}
		case <-timer.C:
			ctx, cancel := context.WithTimeout(context.Background(), wait.lock-wait.ask)
			defer cancel()
			blockers, err := s.blockers(ctx, pid)
			out <- result{blockers, err}
		}
	}()
	return func() ([]string, error) {
		close(done)
		r := <-out
		return r.blockers, r.err
	}
}

// blockersSQL follows the chain of waits to those who wait for nobody: another
// claim may itself be blocked by a stopped one. Process 0 stands for a
// prepared transaction.
const blockersSQL = `with recursive chain(pid) as (
		select pg_catalog.unnest(pg_catalog.pg_blocking_pids($1))
		union
		select next from chain, pg_catalog.unnest(pg_catalog.pg_blocking_pids(chain.pid)) as next)
	select chain.pid, coalesce(a.application_name, ''), coalesce(pg_catalog.host(a.client_addr), 'a local socket'),
		coalesce(a.state, 'in an unknown state'), a.state_change
	from chain left join pg_catalog.pg_stat_activity a using (pid)
	where pg_catalog.cardinality(pg_catalog.pg_blocking_pids(chain.pid)) = 0
	order by chain.pid limit 5`

// blockers describes the sessions that backend pid waits for in the end.
func (s *Store) blockers(ctx context.Context, pid int) ([]string, error) {
	conn, err := s.acquire(ctx, s.liveness)
	if err != nil {
		return nil, err
	}
	defer s.give(conn)
	rows, err := conn.Query(ctx, blockersSQL, s.args(int32(pid))...)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, scanBlocker)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, b := range all {
		if b.pid == 0 {
			if b.prepared, err = s.prepared(ctx, conn); err != nil {
				return nil, err
			}
		}
		found = append(found, b.String())
	}
	return found, nil
}

// preparedSQL names the prepared transactions that hold locks on schema fencepost.
// What they hold in pg_locks has no pid, and is found by the lock of their own id.
const preparedSQL = `select distinct p.gid from pg_catalog.pg_prepared_xacts p
	join pg_catalog.pg_locks own on own.locktype = 'transactionid' and own.transactionid = p.transaction and own.pid is null
	join pg_catalog.pg_locks l on l.virtualtransaction = own.virtualtransaction and l.pid is null
	join pg_catalog.pg_class c on c.oid = l.relation
	where c.relnamespace = 'fencepost'::regnamespace::oid and p.database = pg_catalog.current_database() order by 1 limit 5`

func (s *Store) prepared(ctx context.Context, q querier) ([]string, error) {
	rows, err := q.Query(ctx, preparedSQL, s.args()...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

type blocker struct {
	pid                         int
	application, address, state string
	since                       *time.Time
	prepared                    []string // the names of prepared transactions; pid is 0
}

func (b blocker) String() string {
	if b.pid == 0 && len(b.prepared) == 0 {
		return "a prepared transaction (see pg_prepared_xacts)"
	}
	if b.pid == 0 {
		return fmt.Sprintf("the prepared transactions %q, which COMMIT PREPARED or ROLLBACK PREPARED end", b.prepared)
	}
	text := fmt.Sprintf("process %d (application %q, from %s, %s", b.pid, b.application, b.address, b.state)
	if b.since != nil {
		text += " since " + b.since.UTC().Format(time.RFC3339)
	}
	return text + ")"
}

// sqlState returns the SQLSTATE of the server's answer, or "".
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
