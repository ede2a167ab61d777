package sqlite

import (
	"context"
	"database/sql"

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
