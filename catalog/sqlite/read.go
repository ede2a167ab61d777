package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Head implements [driver.Store].
func (s *Store) Head(ctx context.Context) (head driver.Head, err error) {
	err = s.query(ctx, "head", func(db *sql.DB) error {
		head, err = s.readHead(ctx, db)
		return err
	})
	return head, err
}

// headReader is a connection with a statement that reads the head.
type headReader struct {
	conn   *sql.Conn
	stmt   *sql.Stmt
	claims driver.ClaimMemo
}

// readHead reads the head by the connection that is kept for that. Its
// statement is one look at a local file, which waits for no lock, so only the
// waiting for the connection is bounded by ctx. After an error the connection
// is opened anew.
func (s *Store) readHead(ctx context.Context, db *sql.DB) (head driver.Head, err error) {
	var r *headReader
	select {
	case r = <-s.heads:
	case <-ctx.Done():
		return driver.Head{}, ctx.Err()
	}
	defer func() {
		if err != nil && r != nil {
			_ = r.close() // the first error says more
			r = nil
		}
		s.heads <- r
	}()
	if r == nil {
		if r, err = openHeadReader(ctx, db); err != nil {
			return driver.Head{}, err
		}
	}
	head, err = r.read()
	if errors.Is(err, sql.ErrNoRows) {
		return headless(ctx, r.conn)
	}
	return head, err
}

func openHeadReader(ctx context.Context, db *sql.DB) (*headReader, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	stmt, err := conn.PrepareContext(ctx, headSQL)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &headReader{conn: conn, stmt: stmt}, nil
}

func (r *headReader) close() error { return errors.Join(r.stmt.Close(), r.conn.Close()) }

// read returns the head, or sql.ErrNoRows where there is none.
func (r *headReader) read() (driver.Head, error) {
	return scanHead(r.stmt.QueryRowContext(unbounded), r.claims.Unmarshal)
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
