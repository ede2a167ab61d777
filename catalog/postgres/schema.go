package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// schemaVersion is the version of the tables that this build writes.
const schemaVersion = 1

// errForeign means that schema fencepost is there, but isn't ours.
var errForeign = errors.New("the database has a schema fencepost that this library did not make")

// errVersion means that the tables are of a version that this build does not
// know.
var errVersion = errors.New("schema fencepost is of an unknown version")

// createSQL creates the schema. Of several transactions that try, one goes on,
// and the others wait for its end.
const createSQL = `create schema fencepost`

// tablesSQL creates all tables, in the server's own format whatever a role's
// default is: others don't lock rows. Head has room for its next versions on the
// same page, so that a commit touches no index. A payload is stored as it is:
// package catalog compresses where that helps.
//
// Log and part are queues: written at one end and deleted at the other. What was
// deleted takes up space until a vacuum has been there, so it comes earlier than
// after a fifth of the table; and it gives no space back to the system, which is
// needed again soon, and for which it would lock the table against commits.
const tablesSQL = `
set local default_table_access_method = heap;
comment on schema fencepost is 'Catalogs of github.com/fencepost/fencepost. Change nothing by hand.';

create table fencepost.schema_version (
	version  integer     not null,
	created  timestamptz not null default now(),
	only_row boolean     primary key default true check (only_row)
);
insert into fencepost.schema_version (version) values (1);

create table fencepost.head (
	catalog   text collate "C" primary key,
	revision  bigint not null check (revision > 0),
	commit_id uuid   not null,
	claim     text   not null
) with (fillfactor = 10);
comment on table fencepost.head is 'Who holds each catalog (claim, as JSON) and its newest commit';

create table fencepost.token (
	catalog    text collate "C" primary key,
	generation bigint not null,
	epoch      bigint not null,
	claim_id   uuid   not null,
	system_id  text   not null,
	timeline   bigint not null
);
comment on table fencepost.token is 'The token of each catalog: moved by claims only, looked at by guards';

create table fencepost.log (
	catalog    text collate "C",
	revision   bigint,
	commit_id  uuid   not null,
	generation bigint not null,
	epoch      bigint not null,
	payload    bytea  not null,
	primary key (catalog, revision)
) with (vacuum_truncate = false, toast.vacuum_truncate = false,
	autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
alter table fencepost.log alter column payload set storage external;
comment on table fencepost.log is 'Every commit that the snapshot does not stand for, and its own';

create table fencepost.snapshot (
	catalog  text collate "C" primary key,
	revision bigint not null check (revision > 0),
	id       uuid   not null,
	snapshot text   not null,
	trimmed  bigint not null
);
comment on table fencepost.snapshot is 'What stands for the beginning of each log (snapshot, as JSON), and up to which revision that was deleted';

create table fencepost.part (
	catalog text collate "C",
	id      uuid,
	n       integer check (n >= 0),
	part    bytea not null,
	primary key (catalog, id, n)
) with (vacuum_truncate = false, toast.vacuum_truncate = false,
	autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
alter table fencepost.part alter column part set storage external;
comment on table fencepost.part is 'The parts of the snapshots; those of an id that fencepost.snapshot does not name are not yet, or no longer, of use';

create table fencepost.claim (
	catalog  text collate "C",
	revision bigint,
	claim    text not null,
	primary key (catalog, revision)
);
comment on table fencepost.claim is 'Every claim, as JSON';

create table fencepost.board (
	catalog text collate "C",
	key     text collate "C",
	value   bytea  not null,
	version bigint not null,
	primary key (catalog, key)
);
comment on table fencepost.board is 'Notes: unfenced, replaced whole';
`

// errAppeared means that another process created the schema or the catalog in
// the meantime. The transaction must begin anew: PostgreSQL may remember, until
// its end, that there was no such schema, and locks are taken in one order.
var errAppeared = errors.New("the schema or the catalog was created in the meantime")

// reserveSchema makes sure that there is no schema and that nobody else creates
// one before tx ends, by creating it. First users of one database may race: one
// of them creates it, and the others then find it there.
func (s *Store) reserveSchema(ctx context.Context, tx pgx.Tx) error {
	exists, err := s.schemaExists(ctx, tx)
	switch {
	case err != nil:
		return err
	case exists:
		return errAppeared
	}
	_, err = tx.Exec(ctx, createSQL)
	if state := sqlState(err); state == "42P06" || state == "23505" { // before, or after a wait
		return fmt.Errorf("%w: %w", errAppeared, err)
	}
	return err
}

// createTables creates the tables in a schema that was reserved, and guards.
func (s *Store) createTables(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, tablesSQL); err != nil {
		return err
	}
	var canGuard bool // PL/pgSQL can be dropped
	if err := tx.QueryRow(ctx, canGuardSQL, s.args()...).Scan(&canGuard); err != nil || !canGuard {
		return err
	}
	_, err := tx.Exec(ctx, guardSQL)
	return err
}

const canGuardSQL = `select exists (select from pg_catalog.pg_language where lanname = 'plpgsql')`

func checkVersion(version int) error {
	if version != schemaVersion {
		return fmt.Errorf("%w: %d, this build knows %d", errVersion, version, schemaVersion)
	}
	return nil
}

// existsSQL reads PostgreSQL's tables and does not use to_regclass, which
// answers from a cache that may be older than the statement.
const existsSQL = `select exists (select from pg_catalog.pg_namespace where nspname = 'fencepost'),
	(select pg_catalog.count(*) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		where n.nspname = 'fencepost' and c.relname in ('schema_version', 'head') and c.relkind = 'r') = 2`

// schemaExists looks for the schema without an error where there is none. It
// returns errForeign where it is somebody else's.
func (s *Store) schemaExists(ctx context.Context, q querier) (bool, error) {
	var schema, ours bool
	err := q.QueryRow(ctx, existsSQL, s.args()...).Scan(&schema, &ours)
	if err == nil && schema && !ours {
		err = errForeign
	}
	return ours, err
}
