package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
)

// The record of losses is a row of the board that no note has the key of: a
// table of its own would be another version of the schema, which older builds
// refuse.

// Losses implements [driver.Store]. The place is the file.
func (s *Store) Losses(ctx context.Context) (l driver.Losses, err error) {
	err = s.query(ctx, "losses", func(db *sql.DB) error {
		if l, err = selectLosses(ctx, db); err != nil {
			return err
		}
		files, err := namedFiles(s.path)
		if err == nil {
			l.Place = files.place()
		}
		return err
	})
	return l, err
}

func selectLosses(ctx context.Context, q querier) (l driver.Losses, err error) {
	err = q.QueryRowContext(ctx, `SELECT value, version FROM board WHERE key = ?`, driver.LossesKey).Scan(&l.Text, &l.Version)
	if errors.Is(err, sql.ErrNoRows) {
		return driver.Losses{}, nil
	}
	return l, err
}

// place names the database file, whatever its name is.
func (files openFiles) place() string {
	f := files[0]
	return fmt.Sprintf("file %d on device %x", f.ino, f.dev)
}

// PutLosses implements [driver.Store]. It waits for a claim under way to end.
func (s *Store) PutLosses(ctx context.Context, l driver.Losses, at *driver.Head) (version int64, err error) {
	const op = "put losses"
	if err := s.checkSize(op, len(l.Text), MaxNote); err != nil {
		return 0, err
	}
	if db, err := s.reader(); err != nil || db == nil { // and no file is made
		return 0, s.wrap(op, cmpErr(err, driver.ErrConflict), false)
	}
	err = s.transact(ctx, op, func(w *writer) error {
		if place := w.files.place(); place != l.Place {
			return fmt.Errorf("%w: this is %s, and not %s", driver.ErrConflict, place, l.Place)
		}
		now, err := w.losses()
		if err != nil {
			return err
		}
		if now.Version != l.Version {
			return fmt.Errorf("%w: the record of losses has changed", driver.ErrConflict)
		}
		if err := w.headAt(at); err != nil {
			return err
		}
		version, err = w.setLosses(l.Text)
		return err
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

func (w *writer) losses() (driver.Losses, error) { return selectLosses(unbounded, w.conn) }

func (w *writer) setLosses(text []byte) (version int64, err error) {
	return w.putNote(driver.LossesKey, text)
}

// headAt returns ErrConflict if the head is not at want; nil is anywhere.
func (w *writer) headAt(want *driver.Head) error {
	if want == nil {
		return nil
	}
	head, err := selectHead(unbounded, w.conn)
	if err != nil {
		return err
	}
	if head.Revision != want.Revision || head.Commit != want.Commit || head.Claim.ID != want.Claim.ID {
		return fmt.Errorf("%w: the head is at revision %d, commit %v, and not at revision %d, commit %v",
			driver.ErrConflict, head.Revision, head.Commit, want.Revision, want.Commit)
	}
	return nil
}
