package sqlite

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"

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

// headReader is a connection with a statement that reads the head. The
// statement is the driver's own: database/sql would add half to its time.
type headReader struct {
	conn   *sql.Conn
	stmt   headStmt
	files  openFiles
	claims driver.ClaimMemo
}

type headStmt interface {
	sqldriver.Stmt
	sqldriver.StmtQueryContext
}

// readHead reads the head by the connection that is kept for that. Its
// statement is one look at a local file, which waits for no lock, so only the
// waiting for the connection is bounded by ctx. After an error the connection
// is opened anew, unless it is the one that knows which files were opened.
func (s *Store) readHead(ctx context.Context, db *sql.DB) (head driver.Head, err error) {
	var r *headReader
	select {
	case r = <-s.heads:
	case <-ctx.Done():
		return driver.Head{}, ctx.Err()
	}
	defer func() {
		if err != nil && r != nil && !errors.Is(err, errMoved) {
			_ = r.close() // the first error says more
			r = nil
		}
		s.heads <- r
	}()
	if r == nil {
		if r, err = openHeadReader(ctx, db, s.path); err != nil {
			return driver.Head{}, err
		}
	}
	head, err = r.read()
	if moved := r.files.moved(); moved != nil {
		return driver.Head{}, moved // asked after the reading: others may have written elsewhere by then
	}
	if errors.Is(err, sql.ErrNoRows) {
		return headless(ctx, r.conn)
	}
	return head, err
}

func openHeadReader(ctx context.Context, db *sql.DB, path string) (*headReader, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	r := &headReader{conn: conn}
	if err := conn.Raw(func(c any) error { return r.prepare(ctx, c) }); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if r.files, err = namedFiles(path); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

var errDriver = errors.New("the driver of database/sql lacks a method")

func (r *headReader) prepare(ctx context.Context, conn any) error {
	preparer, ok := conn.(sqldriver.ConnPrepareContext)
	if !ok {
		return errDriver
	}
	stmt, err := preparer.PrepareContext(ctx, headSQL)
	if err != nil {
		return err
	}
	if r.stmt, ok = stmt.(headStmt); !ok {
		return errors.Join(errDriver, stmt.Close())
	}
	return nil
}

func (r *headReader) close() error {
	return errors.Join(r.stmt.Close(), r.conn.Close())
}

// read returns the head, or sql.ErrNoRows where there is none.
func (r *headReader) read() (driver.Head, error) {
	rows, err := r.stmt.QueryContext(unbounded, nil)
	if err != nil {
		return driver.Head{}, err
	}
	var row [3]sqldriver.Value
	err = rows.Next(row[:])
	if closed := rows.Close(); err == nil {
		err = closed
	}
	if errors.Is(err, io.EOF) {
		err = sql.ErrNoRows
	}
	if err != nil {
		return driver.Head{}, err
	}
	revision, ok1 := row[0].(int64)
	id, ok2 := row[1].([]byte)
	claim, ok3 := row[2].(string)
	if !ok1 || !ok2 || !ok3 {
		return driver.Head{}, fmt.Errorf("%w: a head of %T, %T and %T", driver.ErrCorrupt, row[0], row[1], row[2])
	}
	return newHead(revision, id, claim, r.claims.Unmarshal)
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
