package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
)

const notesSQL = `select key, value, version from fencepost.board
	where catalog = $1 and starts_with(key, $2) order by key`

// Notes returns the notes whose key begins with prefix, ordered by the bytes
// of their keys.
func (s *Store) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	var notes []driver.Note
	err := s.read(ctx, "notes", func(q querier, _ state) error {
		rows, err := q.Query(ctx, notesSQL, s.args(s.catalog, prefix)...)
		if err == nil {
			notes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[driver.Note])
		}
		if err != nil {
			return s.fail("notes", err, notSent)
		}
		return nil
	})
	return notes, err
}

// The three ways to change a note. Each returns a row where it did, and tells
// the watchers in the same transaction.
const (
	insertNote = `with changed as (insert into fencepost.board (catalog, key, value, version)
		select $1, $2, $3::bytea, $4 where ` + durable + ` on conflict do nothing returning 1)
		select pg_notify($5, '') from changed`
	updateNote = `with changed as (update fencepost.board set value = $3::bytea, version = $4
		where catalog = $1 and key = $2 and version = $6 and ` + durable + ` returning 1)
		select pg_notify($5, '') from changed`
	deleteNote = `with changed as (delete from fencepost.board
		where catalog = $1 and key = $2 and version = $4 and ` + durable + ` returning 1)
		select pg_notify($3, '') from changed`
	missingNote = `select where not exists (select from fencepost.board where catalog = $1 and key = $2)`
)

// Post replaces a note. The first note of a database creates the schema.
func (s *Store) Post(ctx context.Context, n driver.Note) (int64, error) {
	if err := checkSize(fmt.Sprintf("note %q", n.Key), len(n.Value), maxNote); err != nil {
		return 0, s.fail("post", err, notSent)
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return 0, s.fail("post", err, notSent)
	}
	defer give(conn)
	st, err := s.readState(ctx, conn)
	if err == nil && st.exists {
		err = checkVersion(st.version)
	}
	if err != nil {
		s.leave(conn, err)
		return 0, s.fail("post", err, notSent)
	}
	version, sent, err := s.post(ctx, conn, n, st.exists)
	if err != nil {
		s.leave(conn, err)
		return 0, s.fail("post", err, sent)
	}
	return version, nil
}

func (s *Store) post(ctx context.Context, conn *pgxpool.Conn, n driver.Note, exists bool) (int64, sent, error) {
	version := newVersion()
	sql, args := insertNote, []any{s.catalog, n.Key, n.Value, version, channel(s.catalog)}
	switch {
	case n.Value == nil && n.Version == 0:
		version, sql, args = 0, missingNote, []any{s.catalog, n.Key}
	case n.Value == nil:
		version, sql, args = 0, deleteNote, []any{s.catalog, n.Key, channel(s.catalog), n.Version}
	case n.Version != 0:
		sql, args = updateNote, append(args, n.Version)
	}
	switch {
	case exists:
		sent, err := s.write(ctx, conn, sql, args, n)
		return version, sent, err
	case sql == insertNote:
		sent, err := s.postFirst(ctx, conn, sql, args, n)
		if errors.Is(err, errAppeared) {
			sent, err = s.write(ctx, conn, sql, args, n)
		}
		return version, sent, err
	case sql == missingNote:
		return 0, notSent, nil
	default:
		return 0, notSent, noteConflict(n)
	}
}

// write sends one statement that must return a row.
func (s *Store) write(ctx context.Context, conn *pgxpool.Conn, sql string, args []any, n driver.Note) (sent, error) {
	if err := ctx.Err(); err != nil {
		return notSent, err
	}
	expectCommit(conn.Conn().PgConn())
	tag, err := conn.Exec(ctx, sql, s.args(args...)...)
	if err == nil && tag.RowsAffected() == 0 {
		return notSent, noteConflict(n)
	}
	if err == nil {
		err = checkCommit(conn.Conn().PgConn())
	}
	return statementSent, overtaken(err)
}

// postFirst creates the schema and writes the note, in one transaction.
func (s *Store) postFirst(ctx context.Context, conn *pgxpool.Conn, sql string, args []any, n driver.Note) (sent, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return notSent, err
	}
	defer rollback(tx)
	err = s.reserveSchema(ctx, tx)
	if err == nil {
		err = createSchema(ctx, tx)
	}
	if err != nil {
		return notSent, err
	}
	tag, err := tx.Exec(ctx, sql, s.args(args...)...)
	if err == nil && tag.RowsAffected() == 0 {
		err = noteConflict(n)
	}
	if err != nil {
		return notSent, err
	}
	expectCommit(conn.Conn().PgConn())
	if err = tx.Commit(ctx); err == nil {
		err = checkCommit(conn.Conn().PgConn())
	}
	return commitSent, err
}

func noteConflict(n driver.Note) error {
	return fmt.Errorf("%w: note %q is not at version %d", driver.ErrConflict, n.Key, n.Version)
}

// newVersion returns a random positive number, so that a note which comes back
// to an earlier value never comes back to its version.
func newVersion() int64 {
	id := driver.NewID()
	return max(int64(binary.BigEndian.Uint64(id[:])>>1), 1)
}

// checkNotes makes sure that each note is at its version, and stays there
// until the claim has ended.
func (c *claiming) checkNotes(ctx context.Context, when []driver.Note) error {
	for _, n := range when {
		held, err := c.holdNote(ctx, n)
		if err != nil {
			return err
		}
		if !held {
			return noteConflict(n)
		}
	}
	return nil
}

// holdNote locks a note. One that must not exist can't be locked; a
// placeholder, gone again before anyone can see it, keeps its place: whoever
// inserts the same key waits for the end of this transaction.
func (c *claiming) holdNote(ctx context.Context, n driver.Note) (bool, error) {
	s := c.store
	if n.Version != 0 {
		tag, err := c.tx.Exec(ctx, `select from fencepost.board where catalog = $1 and key = $2 and version = $3 for share`,
			s.args(s.catalog, n.Key, n.Version)...)
		return tag.RowsAffected() == 1, err
	}
	tag, err := c.tx.Exec(ctx, `insert into fencepost.board (catalog, key, value, version) values ($1, $2, '', $3) on conflict do nothing`,
		s.args(s.catalog, n.Key, newVersion())...)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	return true, c.exec(ctx, `delete from fencepost.board where catalog = $1 and key = $2`, s.catalog, n.Key)
}
