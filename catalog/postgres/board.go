package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
)

// notesOf returns the condition for the notes of prefix $2. It states the range of their
// keys, so that only that part of the index is read, however many others there are:
// the end of the range as $4, if there is one.
func notesOf(prefix string) (where string, args []any) {
	where = `catalog = $1 and key >= $2 and pg_catalog.starts_with(key, $2) and key <> $3 and ` + hexBytes
	if end := endOf(prefix); end != "" {
		return where + " and key < $4", []any{end}
	}
	return where, nil
}

// endOf returns a text that is above every key which begins with prefix, or "" if
// none is known. It changes a letter of ASCII, so that it is text on every server.
func endOf(prefix string) string {
	for i := len(prefix) - 1; i >= 0 && prefix[i] < utf8.RuneSelf; i-- {
		if prefix[i]+1 < utf8.RuneSelf {
			return prefix[:i] + string(rune(prefix[i]+1))
		}
	}
	return ""
}

// Notes returns the notes whose key begins with prefix, ordered by the bytes
// of their keys. It looks at the server and at the board by one round trip.
func (s *Store) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	notes, err := s.notes(ctx, prefix)
	if err != nil {
		return nil, s.fail("notes", err, notSent)
	}
	return notes, nil
}

func (s *Store) notes(ctx context.Context, prefix string) (notes []driver.Note, err error) {
	err = s.onPool(ctx, func(conn *pgxpool.Conn) error {
		notes, err = s.notesBy(ctx, conn, prefix)
		return err
	})
	return notes, err
}

// Lend calls fn with a connection to the server that has the catalog, for statements
// of others beside the catalog, such as work/pgwork.InstallOn. Errors are classified as
// those of a write.
func (s *Store) Lend(ctx context.Context, op string, fn func(*pgx.Conn) error) error {
	if err := s.onPool(ctx, func(conn *pgxpool.Conn) error { return fn(conn.Conn()) }); err != nil {
		return s.fail(op, err, commitSent)
	}
	return nil
}

// onPool calls fn with a connection, which is left if the server is no good.
func (s *Store) onPool(ctx context.Context, fn func(*pgxpool.Conn) error) error {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return err
	}
	defer s.give(conn)
	err = fn(conn)
	s.leave(conn, err)
	return err
}

func (s *Store) notesBy(ctx context.Context, q batcher, prefix string) (notes []driver.Note, err error) {
	where, end := notesOf(prefix)
	board := statement{
		sql:  `select key, value, version from fencepost.board where ` + where + ` order by key`,
		args: append([]any{s.catalog, prefix, driver.LossesKey}, end...),
		rows: func(rows pgx.Rows) (err error) {
			notes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[driver.Note])
			return err
		},
	}
	if err := s.readBoard(ctx, q, board); err != nil {
		return nil, err
	}
	return notes, nil
}

// readBoard looks at the server along with a statement about the board.
func (s *Store) readBoard(ctx context.Context, q batcher, board statement) error {
	st, err := s.readState(ctx, q, board)
	if err == nil && st.exists {
		err = checkVersion(st.version)
	}
	return err
}

// here holds where the server's process, the newest claim and the version of the
// tables are those that were looked at.
const here = `pg_catalog.pg_postmaster_start_time() = $3::timestamptz
	and (select claim_id from fencepost.token where catalog = $1) is not distinct from $4::uuid
	and (select version from fencepost.schema_version) = $5`

// The three ways to change a note, and the one to find that there is none. Each
// returns a row where the note was as it had to be.
const (
	insertNote = `insert into fencepost.board (catalog, key, value, version)
		select $1, $2, $7::bytea, $6::bigint where ` + here + ` and ` + durable + ` on conflict do nothing returning 1`
	updateNote = `update fencepost.board set value = $7::bytea, version = $6
		where catalog = $1 and key = $2 and version = $8 and ` + here + ` and ` + durable + ` returning 1`
	deleteNote = `delete from fencepost.board
		where catalog = $1 and key = $2 and version = $6 and ` + here + ` and ` + durable + ` returning 1`
	missingNote = `select where ` + here + ` and not exists (select from fencepost.board where catalog = $1 and key = $2)`
)

// A posting is one way to change a note, and the version that it makes.
type posting struct {
	note    driver.Note
	sql     string
	more    []any // arguments behind those of here
	version int64
}

func (s *Store) newPosting(n driver.Note) posting {
	p := posting{note: n}
	switch {
	case n.Value == nil && n.Version == 0:
		p.sql = missingNote
	case n.Value == nil:
		p.sql, p.more = deleteNote, []any{n.Version}
	default:
		p.sql, p.version = insertNote, newVersion()
		if p.more = []any{p.version, n.Value}; n.Version != 0 {
			p.sql, p.more = updateNote, append(p.more, n.Version)
		}
	}
	return p
}

// argsAt returns the arguments of a posting that is to land at a place, and
// nowhere else.
func (s *Store) argsAt(p posting, at place) []any {
	var newest *string // null where nobody ever claimed
	if !at.claim.IsZero() {
		text := at.claim.String()
		newest = &text
	}
	return s.args(append([]any{s.catalog, p.note.Key, at.started, newest, schemaVersion}, p.more...)...)
}

// Post replaces a note. The first note of a database creates the schema.
func (s *Store) Post(ctx context.Context, n driver.Note) (int64, error) {
	if err := checkSize(fmt.Sprintf("note %q", n.Key), len(n.Value), maxNote); err != nil {
		return 0, s.fail("post", err, notSent)
	}
	if n.Key == driver.LossesKey {
		return 0, s.fail("post", fmt.Errorf("%w: no note has the key %q", errMisuse, n.Key), notSent)
	}
	p := s.newPosting(n)
	if err := s.change(ctx, "post", p); err != nil {
		return 0, err
	}
	return p.version, nil
}

// change sends a posting on a connection of the pool.
func (s *Store) change(ctx context.Context, op string, p posting) error {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return s.fail(op, err, notSent)
	}
	defer s.give(conn)
	if sent, err := s.post(ctx, conn, p); err != nil {
		s.leave(conn, err)
		return s.fail(op, err, sent)
	}
	return nil
}

// post sends a posting, as append does a commit: where it changed nothing,
// either the note is another one, or the server or its newest claim is, which
// are looked at then.
func (s *Store) post(ctx context.Context, conn *pgxpool.Conn, p posting) (sent, error) {
	var at place // a zero start is that of no server
	if known := s.place.Load(); known != nil {
		at = *known
	}
	var refused error
	for {
		if !at.started.IsZero() {
			sent, err := s.write(ctx, conn, p, at)
			if !errors.Is(err, driver.ErrConflict) && !undefined(err) {
				return sent, err
			}
			refused = err
		}
		st, err := s.readState(ctx, conn)
		if err == nil && st.exists {
			err = checkVersion(st.version)
		}
		if err != nil {
			return notSent, err
		}
		switch {
		case !st.exists && p.sql == missingNote:
			return notSent, nil
		case !st.exists && p.sql == insertNote:
			if sent, err := s.postFirst(ctx, conn, p, place{started: st.started}); !errors.Is(err, errAppeared) {
				return sent, err
			}
		case !st.exists:
			return notSent, noteConflict(p.note)
		case at.started.Equal(st.started) && at.claim == st.head.Claim.ID:
			return notSent, refused
		}
		at.started, at.claim = st.started, st.head.Claim.ID
	}
}

// write sends one statement that must return a row.
func (s *Store) write(ctx context.Context, conn *pgxpool.Conn, p posting, at place) (sent, error) {
	if err := ctx.Err(); err != nil {
		return notSent, err
	}
	expectCommit(conn.Conn().PgConn())
	tag, err := conn.Exec(ctx, p.sql, s.argsAt(p, at)...)
	if err == nil && tag.RowsAffected() == 0 {
		return notSent, noteConflict(p.note)
	}
	if err == nil {
		err = checkCommit(conn.Conn().PgConn())
	}
	return statementSent, overtaken(err)
}

// postFirst creates the schema and writes the note, in one transaction.
func (s *Store) postFirst(ctx context.Context, conn *pgxpool.Conn, p posting, at place) (sent, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return notSent, err
	}
	defer rollback(tx)
	var pid int
	err = s.alone(ctx, tx, s.bounds(patienceOf(ctx).lock, s.config.ClaimIdle, &pid))
	if err == nil {
		err = s.reserveSchema(ctx, tx)
	}
	if err == nil {
		err = s.createTables(ctx, tx)
	}
	if err != nil {
		return notSent, err
	}
	tag, err := tx.Exec(ctx, p.sql, s.argsAt(p, at)...)
	if err == nil && tag.RowsAffected() == 0 {
		err = noteConflict(p.note)
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

const (
	holdNoteSQL   = `select from fencepost.board where catalog = $1 and key = $2 and version = $3 for share`
	keepPlaceSQL  = `insert into fencepost.board (catalog, key, value, version) values ($1, $2, '', $3) on conflict do nothing`
	leavePlaceSQL = `delete from fencepost.board where catalog = $1 and key = $2 and version = $3`
)

// holdNote makes sure that a note is at its version, and stays there until the
// claim has ended. One that must not exist can't be locked; a placeholder, gone
// again before anyone can see it, keeps its place: whoever inserts the same key
// waits for the end of this transaction.
func (s *Store) holdNote(n driver.Note) []statement {
	held := func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return noteConflict(n)
		}
		return nil
	}
	if n.Version != 0 {
		return []statement{{sql: holdNoteSQL, args: []any{s.catalog, n.Key, n.Version}, tag: held}}
	}
	place := []any{s.catalog, n.Key, newVersion()}
	return []statement{{sql: keepPlaceSQL, args: place, tag: held}, {sql: leavePlaceSQL, args: place, tag: held}}
}
