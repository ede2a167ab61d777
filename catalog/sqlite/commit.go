package sqlite

import (
	"context"
	"database/sql"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// Append implements [driver.Store]. The commit is one statement, which adds one
// row: the head is at the log's newest row, and the statement's condition is
// that this is prior.
func (s *Store) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	const op = "append"
	if err := s.checkSize(op, len(rec.Payload), MaxPayload); err != nil {
		return err
	}
	if prior.IsZero() {
		return s.wrap(op, driver.ErrConflict, false)
	}
	w, err := s.acquire(ctx)
	if err != nil {
		return s.wrap(op, err, false)
	}
	if err := w.readyAppend(); err != nil {
		s.release(w, false)
		return s.wrap(op, err, false)
	}
	step.Reach(ctx, step.CommitBegun)
	sent, err := w.append(ctx, s.path, prior, rec)
	if err != nil {
		unfit := readOnly(err)
		err = s.wrap(op, err, sent)
		s.release(w, unfit || driver.OutcomeOf(err) == driver.Unknown)
		return err
	}
	s.release(w, false)
	step.Reach(ctx, step.CommitLanded)
	return nil
}

// appendSQL ignores the row where a column has no value because the condition
// does not hold, and where there is a row of that revision.
const appendSQL = `INSERT OR IGNORE INTO log (revision, commit_id, generation, epoch, payload)
	VALUES (?1, CASE WHEN (SELECT (revision, commit_id) = (?6, ?7) FROM log ORDER BY revision DESC LIMIT 1) THEN ?2 END, ?3, ?4, ?5)`

// readyAppend prepares the statement, if there is a log to append to.
func (w *writer) readyAppend() error {
	if w.addLog != nil {
		return nil
	}
	exists, err := checkSchema(unbounded, w.conn)
	if err != nil || !exists {
		return cmpErr(err, driver.ErrConflict)
	}
	w.addLog, err = w.conn.PrepareContext(unbounded, appendSQL)
	return err
}

// append adds the record, and says whether it was sent.
func (w *writer) append(ctx context.Context, path string, prior driver.Head, rec driver.Record) (sent bool, err error) {
	var res sql.Result
	args := append(logValues(rec), int64(prior.Revision), prior.Commit[:])
	err = w.whenFree(ctx, path, w.noClaim, func() (err error) {
		sent = true
		res, err = w.addLog.ExecContext(unbounded, args...)
		return err
	})
	if err != nil {
		return sent, err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return false, cmpErr(err, driver.ErrConflict)
	}
	return true, w.landed()
}

const insertLog = `INSERT INTO log (revision, commit_id, generation, epoch, payload) VALUES (?, ?, ?, ?, ?)`

func logValues(rec driver.Record) []any {
	payload := rec.Payload
	if payload == nil {
		payload = []byte{}
	}
	return []any{int64(rec.Revision), rec.ID[:], int64(rec.Token.Generation), int64(rec.Token.Epoch), payload}
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
