package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// What one Trim deletes at most, so that it holds SQLite's lock for writing no
// longer than a large commit does. To free a large value SQLite reads all of
// it, page by page.
const (
	trimRecords = 1000
	trimBytes   = 4 << 20 // of records, but one at least
	trimParts   = 4
)

var (
	errMisuse = errors.New("the driver was called against its contract")
	errTorn   = errors.New("the reading of a snapshot was interrupted")
)

// Snapshot implements [driver.Store].
func (s *Store) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	begun := false
	return s.query(ctx, "snapshot", func(db *sql.DB) error {
		if begun {
			return errTorn // to begin again could mean another snapshot
		}
		return selectSnapshot(ctx, db, func(snapshot driver.Snapshot, part []byte) error {
			begun = true
			return fn(snapshot, part)
		})
	})
}

// snapshotSQL is one statement, hence of one instant. The order is that of the
// parts' index: nothing is sorted, which would keep all of the parts at once.
const snapshotSQL = `SELECT s.revision, s.snapshot, p.n, p.part
	FROM snapshot s LEFT JOIN part p ON p.id = s.id ORDER BY s.one, p.n`

// selectSnapshot reads the published snapshot and its parts, in order.
func selectSnapshot(ctx context.Context, q querier, fn func(driver.Snapshot, []byte) error) error {
	rows, err := q.QueryContext(ctx, snapshotSQL)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // reading: its error came before
	var snapshot driver.Snapshot
	next := 0
	for (next == 0 || next < snapshot.Parts) && rows.Next() {
		var part []byte
		if snapshot, part, err = scanPart(rows, next); err != nil {
			return err
		}
		if err := fn(snapshot, part); err != nil {
			return &callerError{err}
		}
		next++
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if next < snapshot.Parts {
		return noPart(snapshot, next)
	}
	return nil
}

// scanPart reads one row, which must be of part n where the snapshot has parts.
func scanPart(rows *sql.Rows, n int) (driver.Snapshot, []byte, error) {
	var (
		revision int64
		text     string
		number   sql.NullInt64
		part     []byte
	)
	if err := rows.Scan(&revision, &text, &number, &part); err != nil {
		return driver.Snapshot{}, nil, err
	}
	snapshot, err := toSnapshot(revision, text)
	switch {
	case err != nil:
		return driver.Snapshot{}, nil, err
	case snapshot.Parts == 0:
		return snapshot, nil, nil
	case !number.Valid || number.Int64 != int64(n):
		return driver.Snapshot{}, nil, noPart(snapshot, n)
	case part == nil:
		part = []byte{}
	}
	return snapshot, part, nil
}

func toSnapshot(revision int64, text string) (driver.Snapshot, error) {
	s, err := driver.UnmarshalSnapshot([]byte(text))
	if err == nil && s.Revision != uint64(revision) {
		err = fmt.Errorf("%w: the snapshot of revision %d stands in the row of %d", driver.ErrCorrupt, s.Revision, revision)
	}
	return s, err
}

func noPart(s driver.Snapshot, n int) error {
	return fmt.Errorf("%w: part %d of the %d of snapshot %v is not there", driver.ErrCorrupt, n, s.Parts, s.ID)
}

// Stage implements [driver.Store].
func (s *Store) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	if err := s.checkSize("stage", len(part), driver.MaxPart); err != nil {
		return err
	}
	return s.compact(ctx, "stage", step.SnapshotStaged, by, func(w *writer) error { return w.stage(id, n, part) })
}

// Publish implements [driver.Store].
func (s *Store) Publish(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
	return s.compact(ctx, "publish", step.SnapshotPublished, by, func(w *writer) error { return w.publish(snapshot) })
}

// Trim implements [driver.Store].
func (s *Store) Trim(ctx context.Context, by driver.Claim) (more bool, err error) {
	err = s.compact(ctx, "trim", step.SnapshotTrimmed, by, func(w *writer) (err error) {
		more, err = w.trim()
		return err
	})
	return more && err == nil, err
}

// compact makes one write of a compaction, in a transaction of its own that
// looks at the head's claim itself: no claim can come between.
func (s *Store) compact(ctx context.Context, op string, done step.Point, by driver.Claim, fn func(*writer) error) error {
	err := s.transact(ctx, op, func(w *writer) error {
		if err := w.claimedBy(by); err != nil {
			return err
		}
		return fn(w)
	})
	if err == nil {
		step.Reach(ctx, done)
	}
	return err
}

// claimedBy returns ErrConflict where by is not the head's claim.
func (w *writer) claimedBy(by driver.Claim) error {
	exists, err := checkSchema(unbounded, w.conn)
	var head driver.Head
	if err == nil && exists {
		head, err = selectHead(unbounded, w.conn)
	}
	if err != nil {
		return err
	}
	if head.IsZero() || head.Claim.ID != by.ID {
		return fmt.Errorf("%w: the newest claim is %v of %v, and not %v", driver.ErrConflict, head.Claim.ID, head.Claim.Token, by.ID)
	}
	return nil
}

func (w *writer) stage(id driver.ID, n int, part []byte) error {
	if n < 0 {
		return fmt.Errorf("%w: part %d", errMisuse, n)
	}
	if part == nil {
		part = []byte{}
	}
	return w.exec(unbounded, `INSERT INTO part (id, n, part) VALUES (?, ?, ?)
		ON CONFLICT (id, n) DO UPDATE SET part = excluded.part`, id[:], n, part)
}

// publish moves the pointer to the snapshot. What it looks at stays as it is
// until the transaction ends.
func (w *writer) publish(s driver.Snapshot) error {
	if err := s.Check(); err != nil {
		return fmt.Errorf("%w: %w", errMisuse, err)
	}
	prior, _, err := w.snapshot()
	if err != nil {
		return err
	}
	if prior.Revision > s.Revision || prior.Revision == s.Revision && prior != s {
		return fmt.Errorf("%w: there is a snapshot of revision %d already", driver.ErrConflict, prior.Revision)
	}
	if err := w.complete(s); err != nil {
		return err
	}
	text, err := driver.MarshalSnapshot(s)
	if err != nil {
		return err
	}
	return w.exec(unbounded, `INSERT INTO snapshot (one, revision, id, snapshot, trimmed) VALUES (1, ?, ?, ?, 0)
		ON CONFLICT (one) DO UPDATE SET revision = excluded.revision, id = excluded.id, snapshot = excluded.snapshot`,
		int64(s.Revision), s.ID[:], string(text))
}

// complete returns ErrCorrupt where the commit of s or one of its parts is not
// there.
func (w *writer) complete(s driver.Snapshot) error {
	var commit bool
	var parts int
	err := w.conn.QueryRowContext(unbounded, `SELECT EXISTS (SELECT 1 FROM log WHERE revision = ? AND commit_id = ?),
		(SELECT count(*) FROM part WHERE id = ? AND n < ?)`, int64(s.Revision), s.Commit[:], s.ID[:], s.Parts).Scan(&commit, &parts)
	switch {
	case err != nil:
		return err
	case !commit:
		return fmt.Errorf("%w: the log has no commit %v at revision %d", driver.ErrCorrupt, s.Commit, s.Revision)
	case parts != s.Parts:
		return fmt.Errorf("%w: of snapshot %v %d parts are there, and not %d", driver.ErrCorrupt, s.ID, parts, s.Parts)
	}
	return nil
}

// snapshot returns the published snapshot, or the zero Snapshot, and up to
// which revision the log is deleted.
func (w *writer) snapshot() (s driver.Snapshot, trimmed int64, err error) {
	var revision int64
	var text string
	err = w.conn.QueryRowContext(unbounded, `SELECT revision, snapshot, trimmed FROM snapshot`).Scan(&revision, &text, &trimmed)
	if errors.Is(err, sql.ErrNoRows) {
		return driver.Snapshot{}, 0, nil
	}
	if err == nil {
		s, err = toSnapshot(revision, text)
	}
	return s, trimmed, err
}

// trim deletes some parts and some records, the oldest first.
func (w *writer) trim() (more bool, err error) {
	s, trimmed, err := w.snapshot()
	if err != nil {
		return false, err
	}
	res, err := w.conn.ExecContext(unbounded,
		`DELETE FROM part WHERE rowid IN (SELECT rowid FROM part WHERE id <> ? LIMIT ?)`, s.ID[:], trimParts)
	if err != nil {
		return false, err
	}
	parts, err := res.RowsAffected()
	if err != nil {
		return false, err
	}
	end := int64(s.Revision) - 1 // the snapshot's own record stays
	if trimmed >= end {
		return parts == trimParts, nil
	}
	upTo, err := w.fits(trimmed, end)
	if err != nil {
		return false, err
	}
	if err := w.exec(unbounded, `DELETE FROM log WHERE revision <= ?`, upTo); err != nil {
		return false, err
	}
	return parts == trimParts || upTo < end, w.exec(unbounded, `UPDATE snapshot SET trimmed = ?`, upTo)
}

// fits returns up to which revision one Trim deletes, of the records above
// after and up to end. It reads sizes only, and no payload.
func (w *writer) fits(after, end int64) (upTo int64, err error) {
	rows, err := w.conn.QueryContext(unbounded, `SELECT revision, length(payload) FROM log
		WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?`, after, end, trimRecords)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }() // reading: its error came before
	upTo = end
	for bytes := 0; bytes < trimBytes && rows.Next(); {
		var size int
		if err := rows.Scan(&upTo, &size); err != nil {
			return 0, err
		}
		bytes += size
	}
	return upTo, rows.Err()
}

// whyMissing says why the log has no record at revision: nil where it has
// nothing that new.
func whyMissing(ctx context.Context, q querier, revision, found uint64) error {
	var trimmed int64
	err := q.QueryRowContext(ctx, `SELECT trimmed FROM snapshot`).Scan(&trimmed)
	switch {
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	case int64(revision) <= trimmed:
		return fmt.Errorf("%w: up to revision %d, and %d is asked for", driver.ErrCompacted, trimmed, revision)
	case found == 0:
		return nil
	}
	return fmt.Errorf("%w: the log has revision %d where %d belongs", driver.ErrCorrupt, found, revision)
}
