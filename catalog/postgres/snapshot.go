package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// What one Trim deletes at most: it holds the token's row, for which a claim
// waits.
const (
	trimRecords = 1000
	trimBytes   = 8 << 20 // of records, but one at least
	trimParts   = 16
)

// snapshotSQL is one statement, and so sees one instant.
const snapshotSQL = `select s.revision, s.snapshot, p.n, p.part
	from fencepost.snapshot s left join fencepost.part p on p.catalog = s.catalog and p.id = s.id
	where s.catalog = $1 and ` + hexBytes + ` order by p.n`

// Snapshot calls fn with the published snapshot and its parts, in order.
func (s *Store) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	return s.read(ctx, "snapshot", func(q querier, _ state) error { return s.readSnapshot(ctx, q, fn) })
}

// readSnapshot reads the snapshot. An error of fn is returned as it is, and
// every other one classified.
func (s *Store) readSnapshot(ctx context.Context, q querier, fn func(driver.Snapshot, []byte) error) error {
	rows, err := q.Query(ctx, snapshotSQL, s.args(s.catalog)...)
	if err != nil {
		return s.fail("snapshot", err, notSent)
	}
	defer rows.Close()
	var snapshot driver.Snapshot
	next := 0
	for (next == 0 || next < snapshot.Parts) && rows.Next() {
		var part []byte
		if snapshot, part, err = scanPart(rows, next); err != nil {
			return s.fail("snapshot", err, notSent)
		}
		if err := fn(snapshot, part); err != nil {
			return err
		}
		next++
	}
	rows.Close()
	if err = rows.Err(); err == nil && next < snapshot.Parts {
		err = noPart(snapshot, next)
	}
	if err != nil {
		return s.fail("snapshot", err, notSent)
	}
	return nil
}

// scanPart reads one row, which must be of part n where the snapshot has parts.
func scanPart(rows pgx.Rows, n int) (driver.Snapshot, []byte, error) {
	var revision int64
	var text string
	var number *int32
	var part []byte
	if err := rows.Scan(&revision, &text, &number, &part); err != nil {
		return driver.Snapshot{}, nil, err
	}
	snapshot, err := parseSnapshot(revision, text)
	switch {
	case err != nil:
		return driver.Snapshot{}, nil, err
	case snapshot.Parts == 0:
		return snapshot, nil, nil
	case number == nil || int(*number) != n:
		return driver.Snapshot{}, nil, noPart(snapshot, n)
	}
	return snapshot, part, nil
}

func parseSnapshot(revision int64, text string) (driver.Snapshot, error) {
	s, err := driver.UnmarshalSnapshot([]byte(text))
	if err == nil && s.Revision != uint64(revision) {
		err = fmt.Errorf("%w: fencepost.snapshot has revision %d in the row of %d", driver.ErrCorrupt, s.Revision, revision)
	}
	return s, err
}

func noPart(s driver.Snapshot, n int) error {
	return fmt.Errorf("%w: fencepost.part lacks part %d of the %d of snapshot %v", driver.ErrCorrupt, n, s.Parts, s.ID)
}

// stageSQL waits for a claim under way and then looks at the token's row again
// (READ COMMITTED) or fails (above). A statement that has waited sees the rest
// of the database as it was before: this one asks for nothing else.
const stageSQL = `insert into fencepost.part (catalog, id, n, part)
	select t.catalog, $3::uuid, $4::int, $5::bytea from fencepost.token t
	where t.catalog = $1 and t.claim_id = $2::uuid and ` + durable + ` for share of t
	on conflict (catalog, id, n) do update set part = excluded.part`

// Stage stores a part by one statement, outside of any transaction.
func (s *Store) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	sent, err := s.stage(ctx, by, id, n, part)
	if err != nil {
		return s.fail("stage", err, sent)
	}
	step.Reach(ctx, step.SnapshotStaged)
	return nil
}

func (s *Store) stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) (sent, error) {
	if n < 0 || n > math.MaxInt32 {
		return notSent, fmt.Errorf("%w: part %d", errMisuse, n)
	}
	if err := checkSize(fmt.Sprintf("part %d", n), len(part), driver.MaxPart); err != nil {
		return notSent, err
	}
	if part == nil {
		part = []byte{}
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return notSent, err
	}
	defer s.give(conn)
	if err := ctx.Err(); err != nil {
		return notSent, err
	}
	expectCommit(conn.Conn().PgConn())
	tag, err := conn.Exec(ctx, stageSQL, s.args(s.catalog, by.ID.String(), id.String(), int32(n), part)...)
	s.leave(conn, err)
	switch {
	case undefined(err):
		return notSent, noCatalog(err)
	case err != nil:
		return statementSent, err
	case tag.RowsAffected() == 0:
		return notSent, otherClaim(by)
	}
	return statementSent, checkCommit(conn.Conn().PgConn())
}

func noCatalog(err error) error {
	return fmt.Errorf("%w: there is no catalog: %w", driver.ErrConflict, err)
}

func otherClaim(by driver.Claim) error {
	return fmt.Errorf("%w: the newest claim is not %v of %v", driver.ErrConflict, by.ID, by.Token)
}

// Publish makes a snapshot the newest one, in a transaction.
func (s *Store) Publish(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
	return s.compact(ctx, "publish", step.SnapshotPublished, by, func(tx pgx.Tx) error {
		return s.publish(ctx, tx, snapshot)
	})
}

// Trim deletes what the snapshot stands for, in a transaction.
func (s *Store) Trim(ctx context.Context, by driver.Claim) (more bool, err error) {
	err = s.compact(ctx, "trim", step.SnapshotTrimmed, by, func(tx pgx.Tx) (err error) {
		more, err = s.trim(ctx, tx)
		return err
	})
	return more && err == nil, err
}

// compact makes one write of a compaction: a transaction of several statements,
// each of which sees what was committed before it began.
//
// Were it one statement, a late Trim, whose answer was lost long ago, could
// delete the parts that a Publish has just counted: neither would see the
// other, both would commit, and the snapshot would stand for records that the
// next Trim deletes, without its parts. So the first lock lets one compaction
// at a time through, the second one no claim, and only what comes behind both,
// with a newer look, counts and deletes. A look that is as old as the statement
// that waited for the lock would be worth nothing.
func (s *Store) compact(ctx context.Context, op string, done step.Point, by driver.Claim, fn func(pgx.Tx) error) error {
	sent, err := s.compactIn(ctx, by, fn)
	if undefined(err) {
		err = noCatalog(err)
	}
	if err != nil {
		return s.fail(op, err, sent)
	}
	step.Reach(ctx, done)
	return nil
}

func (s *Store) compactIn(ctx context.Context, by driver.Claim, fn func(pgx.Tx) error) (sent, error) {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return notSent, err
	}
	defer s.give(conn)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return notSent, err
	}
	defer rollback(tx)
	if err := s.lockCompaction(ctx, tx, by); err != nil {
		s.leave(conn, err)
		return notSent, err
	}
	if err := fn(tx); err != nil {
		return notSent, err
	}
	pg := conn.Conn().PgConn()
	expectCommit(pg)
	if err = tx.Commit(ctx); err == nil {
		err = checkCommit(pg)
	}
	return commitSent, err
}

const compactionLockSQL = `select pg_catalog.pg_advisory_xact_lock($1)`

// lockCompaction sets the bounds of a claim's transaction, so that a process
// that stops here blocks claims no longer than one that stops in a claim, and
// takes the two locks.
func (s *Store) lockCompaction(ctx context.Context, tx pgx.Tx, by driver.Claim) error {
	var pid int
	if err := s.alone(ctx, tx, s.bounds(patienceOf(ctx).lock, s.config.ClaimIdle, &pid)); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, compactionLockSQL, s.args(lockKey("compact "+s.catalog))...); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `select from fencepost.token where catalog = $1 and claim_id = $2::uuid for share`,
		s.args(s.catalog, by.ID.String())...)
	if err == nil && tag.RowsAffected() == 0 {
		err = otherClaim(by)
	}
	return err
}

const completeSQL = `select
	exists (select from fencepost.log where catalog = $1 and revision = $2::bigint and commit_id = $3::uuid),
	(select pg_catalog.count(*) from fencepost.part where catalog = $1 and id = $4::uuid and n < $5::bigint)`

const publishSQL = `insert into fencepost.snapshot (catalog, revision, id, snapshot, trimmed)
	values ($1, $2::bigint, $3::uuid, $4, 0) on conflict (catalog)
	do update set revision = excluded.revision, id = excluded.id, snapshot = excluded.snapshot`

func (s *Store) publish(ctx context.Context, tx pgx.Tx, snapshot driver.Snapshot) error {
	text, err := driver.MarshalSnapshot(snapshot)
	if err := errors.Join(snapshot.Check(), err); err != nil {
		return fmt.Errorf("%w: %w", errMisuse, err)
	}
	prior, _, err := s.published(ctx, tx)
	if err != nil {
		return err
	}
	if prior.Revision > snapshot.Revision || prior.Revision == snapshot.Revision && prior != snapshot {
		return fmt.Errorf("%w: there is a snapshot of revision %d already", driver.ErrConflict, prior.Revision)
	}
	var commit bool
	var parts int
	err = tx.QueryRow(ctx, completeSQL, s.args(s.catalog, int64(snapshot.Revision), snapshot.Commit.String(), snapshot.ID.String(),
		int64(snapshot.Parts))...).Scan(&commit, &parts)
	switch {
	case err != nil:
		return err
	case !commit:
		return fmt.Errorf("%w: fencepost.log has no commit %v at revision %d", driver.ErrCorrupt, snapshot.Commit, snapshot.Revision)
	case parts != snapshot.Parts:
		return fmt.Errorf("%w: fencepost.part has %d parts of snapshot %v, and not %d", driver.ErrCorrupt, parts, snapshot.ID, snapshot.Parts)
	}
	_, err = tx.Exec(ctx, publishSQL, s.args(s.catalog, int64(snapshot.Revision), snapshot.ID.String(), string(text))...)
	return err
}

// published returns the snapshot, or the zero Snapshot, and up to which
// revision the log is deleted.
func (s *Store) published(ctx context.Context, q querier) (snapshot driver.Snapshot, trimmed uint64, err error) {
	var revision, upTo int64
	var text string
	err = q.QueryRow(ctx, `select revision, snapshot, trimmed from fencepost.snapshot where catalog = $1`, s.args(s.catalog)...).
		Scan(&revision, &text, &upTo)
	if errors.Is(err, pgx.ErrNoRows) {
		return driver.Snapshot{}, 0, nil
	}
	if err == nil {
		snapshot, err = parseSnapshot(revision, text)
	}
	return snapshot, uint64(max(upTo, 0)), err
}

const trimPartsSQL = `delete from fencepost.part where (catalog, id, n) in (
	select catalog, id, n from fencepost.part where catalog = $1 and id <> $2::uuid limit $3::bigint)`

// trimLogSQL deletes from where the last Trim has stopped: a search for the
// oldest record would pass over all that were deleted and not yet vacuumed. The
// size of a payload that is stored outside of its row is known without it.
const trimLogSQL = `with sized as (
		select revision, pg_catalog.sum(pg_catalog.octet_length(payload)) over (order by revision) - pg_catalog.octet_length(payload) as before
		from fencepost.log where catalog = $1 and revision > $2::bigint and revision <= $3::bigint),
	fits as (select coalesce(pg_catalog.max(revision), $3::bigint) as upto from sized where before < $4::bigint),
	gone as (delete from fencepost.log l using fits
		where l.catalog = $1 and l.revision > $2::bigint and l.revision <= fits.upto)
	update fencepost.snapshot s set trimmed = fits.upto from fits where s.catalog = $1 returning s.trimmed`

func (s *Store) trim(ctx context.Context, tx pgx.Tx) (more bool, err error) {
	snapshot, trimmed, err := s.published(ctx, tx)
	if err != nil {
		return false, err
	}
	tag, err := tx.Exec(ctx, trimPartsSQL, s.args(s.catalog, snapshot.ID.String(), int64(trimParts))...)
	more = tag.RowsAffected() == trimParts
	if err != nil || trimmed+1 >= snapshot.Revision { // the snapshot's own record stays
		return more, err
	}
	end := snapshot.Revision - 1
	var upTo int64
	err = tx.QueryRow(ctx, trimLogSQL, s.args(s.catalog, int64(trimmed), int64(min(end, trimmed+trimRecords)), int64(trimBytes))...).Scan(&upTo)
	return more || uint64(upTo) < end, err
}
