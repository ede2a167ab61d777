package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// durable is true, and sees to it that the transaction it stands in waits for
// its commit to be on disk, and that the server says so if it did not wait for a
// standby. A role or a database may be set to synchronous_commit = off, which
// acknowledges what a crash then loses, and to client_min_messages = error, which
// keeps back the warning that [Prepare] listens for.
const durable = `coalesce(case when pg_catalog.current_setting('synchronous_commit') = 'off'
	then pg_catalog.set_config('synchronous_commit', 'on', true) end, 'on') <> ''
	and coalesce(case when pg_catalog.current_setting('client_min_messages') = 'error'
	then pg_catalog.set_config('client_min_messages', 'warning', true) end, 'warning') <> ''`

// appendSQL is the whole commit. It lands on no server process but the one that
// was looked at last, so that a connection which leads elsewhere by now, such as
// to a primary that was replaced, commits nothing. A second sending of it queues
// on the head's row behind a first one that hangs, and is then judged by what
// that one left behind: so its answer is final for both.
const appendSQL = `with moved as (
		update fencepost.head set revision = $3, commit_id = $4::uuid
		where catalog = $1 and commit_id = $2::uuid and revision = $3::bigint - 1
			and pg_catalog.pg_postmaster_start_time() = $8::timestamptz
		returning catalog)
	insert into fencepost.log (catalog, revision, commit_id, generation, epoch, payload)
	select catalog, $3, $4::uuid, $5, $6, $7 from moved where ` + durable

// Append adds rec to the log by one statement, outside of any transaction.
func (s *Store) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	if prior.IsZero() {
		return s.fail("append", fmt.Errorf("%w: only a claim begins a log", driver.ErrConflict), notSent)
	}
	if err := checkRecord(prior, rec); err != nil {
		return s.fail("append", err, notSent)
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return s.fail("append", err, notSent)
	}
	defer s.give(conn)
	step.Reach(ctx, step.CommitBegun)
	if err := ctx.Err(); err != nil {
		return s.fail("append", err, notSent)
	}
	expectCommit(conn.Conn().PgConn())
	if sent, err := s.append(ctx, conn, prior, rec); err != nil {
		s.leave(conn, err)
		return s.fail("append", err, sent)
	}
	if err := checkCommit(conn.Conn().PgConn()); err != nil {
		return s.fail("append", err, statementSent)
	}
	step.Reach(ctx, step.CommitLanded)
	return nil
}

// append sends the commit. Where it changed nothing, either the head is another
// one or the server is: one that was not looked at yet is looked at, and sent
// the commit again.
func (s *Store) append(ctx context.Context, conn *pgxpool.Conn, prior driver.Head, rec driver.Record) (sent, error) {
	args := append([]any{s.catalog, prior.Commit.String()}, recordArgs(rec)...)
	conflict := fmt.Errorf("%w: the head is not at revision %d, commit %v", driver.ErrConflict, prior.Revision, prior.Commit)
	var at time.Time // zero is the start of no server
	if known := s.place.Load(); known != nil {
		at = known.started
	}
	for {
		if !at.IsZero() {
			tag, err := conn.Exec(ctx, appendSQL, s.args(append(args, at)...)...)
			switch {
			case undefined(err):
				return notSent, fmt.Errorf("%w: there is no catalog: %w", driver.ErrConflict, err)
			case err != nil:
				return statementSent, overtaken(err)
			case tag.RowsAffected() > 0:
				return statementSent, nil
			}
		}
		st, err := s.readState(ctx, conn)
		if err != nil {
			return notSent, err
		}
		if st.head.Commit == rec.ID {
			if err := s.logged(ctx, conn, rec); err != nil {
				return statementSent, err
			}
		}
		if st.head.IsZero() || at.Equal(st.started) {
			return notSent, conflict
		}
		at = st.started
	}
}

// logged returns ErrCorrupt if the head has moved to rec and the log lacks it. The
// statement writes both or neither, but for a trigger or a rule that somebody put
// on the log and that swallows what is inserted.
func (s *Store) logged(ctx context.Context, q querier, rec driver.Record) error {
	var there bool
	err := q.QueryRow(ctx, `select exists (select from fencepost.log where catalog = $1 and revision = $2::bigint and commit_id = $3::uuid)`,
		s.args(s.catalog, int64(rec.Revision), rec.ID.String())...).Scan(&there)
	if err != nil || there {
		return err
	}
	err = fmt.Errorf("%w: fencepost.log did not take revision %d, to which the head has moved: remove the trigger or rule", driver.ErrCorrupt, rec.Revision)
	return s.orHidden(ctx, q, err)
}

// overtaken returns err as a conflict where the server rolled a write back since
// another transaction was faster: a database may be set to an isolation that
// answers so instead of looking again.
func overtaken(err error) error {
	if sqlState(err) == "40001" {
		return fmt.Errorf("%w: %w", driver.ErrConflict, err)
	}
	return err
}

// recordArgs returns the columns of a record, from revision to payload.
func recordArgs(rec driver.Record) []any {
	payload := rec.Payload
	if payload == nil {
		payload = []byte{}
	}
	return []any{int64(rec.Revision), rec.ID.String(), int64(rec.Token.Generation), int64(rec.Token.Epoch), payload}
}

func checkRecord(prior driver.Head, rec driver.Record) error {
	if rec.Revision != prior.Revision+1 {
		return fmt.Errorf("%w: revision %d after revision %d", errMisuse, rec.Revision, prior.Revision)
	}
	return checkSize(fmt.Sprintf("the payload of revision %d", rec.Revision), len(rec.Payload), maxPayload)
}
