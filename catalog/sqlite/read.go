package sqlite

import (
	"context"
	"database/sql"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Head implements [driver.Store].
func (s *Store) Head(ctx context.Context) (head driver.Head, err error) {
	err = s.query(ctx, "head", func(db *sql.DB) error {
		head, err = selectHead(ctx, db)
		return err
	})
	return head, err
}

// Log implements [driver.Store].
func (s *Store) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return s.query(ctx, "log", func(db *sql.DB) error {
		return selectLog(ctx, db, after, func(rec driver.Record) error {
			after = rec.Revision // where a busy file makes it begin again
			return fn(rec)
		})
	})
}

// Claims implements [driver.Store].
func (s *Store) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	return s.query(ctx, "claims", func(db *sql.DB) error {
		return selectClaims(ctx, db, after, func(c driver.Claim) error {
			after = c.Revision
			return fn(c)
		})
	})
}

// Notes implements [driver.Store].
func (s *Store) Notes(ctx context.Context, prefix string) (notes []driver.Note, err error) {
	err = s.query(ctx, "notes", func(db *sql.DB) error {
		notes = nil
		rows, err := db.QueryContext(ctx, `SELECT key, value, version FROM board WHERE key >= ? ORDER BY key`, prefix)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // reading: its error came before
		for rows.Next() {
			var n driver.Note
			if err := rows.Scan(&n.Key, &n.Value, &n.Version); err != nil {
				return err
			}
			if !strings.HasPrefix(n.Key, prefix) {
				break
			}
			notes = append(notes, n)
		}
		return rows.Err()
	})
	return notes, err
}
