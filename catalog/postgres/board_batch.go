package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.NoteBatcher = (*Store)(nil)

// notesAfterSQL reads the first $5 notes of prefix $2 behind $4 that have no more than $6
// bytes together, and says how many it has looked at, which is more if there are more.
//
// PostgreSQL may know nothing of a board that has grown a moment ago, and would sort all
// notes of the prefix for each page. So the first notes from one place of the index on
// are read, whatever they are, and then looked at.
const notesAfterSQL = `select key, value, version, looked from (
	select key, value, version, pg_catalog.row_number() over w as n, pg_catalog.count(*) over () as looked,
		pg_catalog.sum(pg_catalog.octet_length(value)) over w as bytes
	from (select catalog, key, value, version from fencepost.board
		where (catalog, key) >= ($1, $7) order by catalog, key limit $5::bigint + 3) as first -- $4 itself and $3 may be among them
	where catalog = $1 and key > $4 and key <> $3 and pg_catalog.starts_with(key, $2) and ` + hexBytes + `
	window w as (order by key rows unbounded preceding)) as cut
	where n <= $5::bigint and (n = 1 or bytes <= $6::bigint) order by key`

// NotesAfter implements [driver.NoteBatcher], by one round trip.
func (s *Store) NotesAfter(ctx context.Context, prefix, after string, n int) (notes []driver.Note, more bool, err error) {
	looked := 0
	board := statement{
		sql:  notesAfterSQL,
		args: []any{s.catalog, prefix, driver.LossesKey, after, n, driver.NotesBatch, max(prefix, after)},
		rows: func(rows pgx.Rows) (err error) {
			notes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (n driver.Note, err error) {
				return n, row.Scan(&n.Key, &n.Value, &n.Version, &looked)
			})
			return err
		},
	}
	err = s.onPool(ctx, func(conn *pgxpool.Conn) error { return s.readBoard(ctx, conn, board) })
	if err != nil {
		return nil, false, s.fail("notes", err, notSent)
	}
	return notes, looked > len(notes), nil
}

// deleteNotes removes what is at its version, and returns a row, whatever that was, if
// the server and the claim are those that were looked at. Each note is looked up by its
// key, for the same reason.
const deleteNotes = `with gone as (delete from fencepost.board
	where ctid = any (array(select (select b.ctid from fencepost.board b where b.catalog = $1 and b.key = n.key and b.version = n.version)
		from rows from (pg_catalog.unnest($6::text[]), pg_catalog.unnest($7::bigint[])) as n(key, version)))
	and version = any ($7::bigint[]) and $2::text is not null and ` + here + ` and ` + durable + ` returning 1)
	select from (values (true)) as v where ` + here

// RemoveNotes implements [driver.NoteBatcher], by one statement.
func (s *Store) RemoveNotes(ctx context.Context, notes []driver.Note) error {
	if len(notes) == 0 {
		return nil
	}
	keys, versions := make([]string, len(notes)), make([]int64, len(notes))
	for i, n := range notes {
		keys[i], versions[i] = n.Key, n.Version
	}
	err := s.change(ctx, "remove notes", posting{note: notes[0], sql: deleteNotes, more: []any{keys, versions}})
	if errors.Is(err, driver.ErrConflict) { // there is no schema, and so no note
		return nil
	}
	return err
}
