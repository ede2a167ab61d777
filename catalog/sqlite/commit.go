package sqlite

import (
	"context"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// Append implements [driver.Store].
func (s *Store) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	if err := s.checkSize("append", len(rec.Payload), MaxPayload); err != nil {
		return err
	}
	err := s.transact(ctx, "append", func(w *writer) error {
		step.Reach(ctx, step.CommitBegun)
		if prior.IsZero() {
			return driver.ErrConflict
		}
		return w.append(ctx, prior, rec)
	})
	if err == nil {
		step.Reach(ctx, step.CommitLanded)
	}
	return err
}

// append moves the head and adds the record.
func (w *writer) append(ctx context.Context, prior driver.Head, rec driver.Record) (err error) {
	if w.moveHead == nil {
		if exists, err := checkSchema(unbounded, w.conn); err != nil || !exists {
			return cmpErr(err, driver.ErrConflict)
		}
		if w.moveHead, err = w.conn.PrepareContext(unbounded, `UPDATE head SET revision = ?, commit_id = ? WHERE commit_id = ? AND revision = ?`); err != nil {
			return err
		}
	}
	if w.addLog == nil {
		if w.addLog, err = w.conn.PrepareContext(unbounded, insertLog); err != nil {
			return err
		}
	}
	res, err := w.moveHead.ExecContext(unbounded, int64(rec.Revision), rec.ID[:], prior.Commit[:], int64(prior.Revision))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return cmpErr(err, driver.ErrConflict)
	}
	step.Reach(ctx, step.CommitHeadWritten)
	if _, err = w.addLog.ExecContext(unbounded, logValues(rec)...); err != nil {
		return err
	}
	step.Reach(ctx, step.CommitLogWritten)
	return nil
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
