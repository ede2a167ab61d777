package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A querier is a connection or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// A state is what one look at the server tells.
type state struct {
	standby  bool
	timeline uint32    // zero on a standby
	started  time.Time // the server's process was
	exists   bool      // the schema does
	version  int       // of the schema
	head     driver.Head
}

// serverSQL tells standby, timeline and the start of the server's process. The
// timeline is the one of the next write; pg_control_checkpoint would tell an
// old one for a while after a promotion.
const serverSQL = `pg_catalog.pg_is_in_recovery(),
	case when pg_catalog.pg_is_in_recovery() then '' else pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) end,
	pg_catalog.pg_postmaster_start_time()`

// headSQL reads the one row, by its key: PostgreSQL takes four times as long
// for absentSQL, which also answers where there is no such row, and is asked
// only then. Either is one statement, and so sees one instant.
const headSQL = `select ` + serverSQL + `,
	(select version from fencepost.schema_version),
	h.revision, h.commit_id, h.claim, false, false
	from fencepost.head h where h.catalog = $1`

const absentSQL = `select ` + serverSQL + `,
	(select version from fencepost.schema_version),
	h.revision, h.commit_id, h.claim,
	h.catalog is null and (exists (select from fencepost.log l where l.catalog = $1)
		or exists (select from fencepost.snapshot s where s.catalog = $1) or exists (select from fencepost.part p where p.catalog = $1)),
	` + hiddenSQL + `
	from (values ($1::text)) as wanted(catalog) left join fencepost.head h on h.catalog = wanted.catalog`

// Head returns the newest head, by one round trip (two where there is none) on
// a connection that is kept for this, which it shares with who asks for the heads
// of other catalogs at the same time. It writes nothing, and where there is no
// schema yet it returns the zero Head.
func (s *Store) Head(ctx context.Context) (driver.Head, error) {
	ask := s.heads.Ask
	if driver.Adopts(ctx) { // which the others do not
		ask = lookAlone
	}
	st, err := ask(ctx, s)
	if err != nil {
		return driver.Head{}, s.fail("head", err, notSent)
	}
	return st.head, nil
}

// look reads the state on a connection for liveness, and reports whether that
// connection broke while ctx goes on.
func (s *Store) look(ctx context.Context) (st state, broken bool, err error) {
	conn, err := s.acquire(ctx, s.liveness)
	if err != nil {
		return state{}, false, err
	}
	defer s.give(conn)
	st, err = s.readState(ctx, conn)
	broken = s.broke(ctx, conn)
	s.leave(conn, err)
	return st, broken, err
}

// readState reads the state and refuses a server that can't be trusted to have
// the newest. Where there is a schema, the other statements go along with it, by
// the same round trip. It must not be used in a transaction before the schema is
// known to exist.
func (s *Store) readState(ctx context.Context, q batcher, also ...statement) (state, error) {
	const tries = 3 // another one may be creating the schema
	for range tries - 1 {
		st, err := s.readHead(ctx, q, also)
		if err == nil {
			return st, s.admit(ctx, q, st)
		}
		if !undefined(err) {
			return state{}, err
		}
		if st, err = s.readServer(ctx, q); err != nil {
			return state{}, err
		}
		if exists, err := s.schemaExists(ctx, q); err != nil || !exists {
			return st, err
		}
	}
	st, err := s.readHead(ctx, q, also)
	if err != nil {
		return state{}, err
	}
	return st, s.admit(ctx, q, st)
}

func (s *Store) readHead(ctx context.Context, q batcher, also []statement) (state, error) {
	st, err := s.readHeadBy(ctx, q, headSQL, also)
	if errors.Is(err, pgx.ErrNoRows) {
		return s.readHeadBy(ctx, q, absentSQL, also)
	}
	return st, err
}

func (s *Store) readHeadBy(ctx context.Context, q batcher, sql string, also []statement) (st state, err error) {
	head := statement{sql: sql, args: []any{s.catalog}, row: func(row pgx.Row) (err error) {
		st, err = s.scanHead(row)
		return err
	}}
	err = s.together(ctx, q, append([]statement{head}, also...)...)
	return st, err
}

func (s *Store) scanHead(row pgx.Row) (state, error) {
	st := state{exists: true}
	var wal string
	var version *int
	var revision *int64
	var commit *[16]byte
	var claim *string
	var orphaned, hidden bool
	if err := row.Scan(&st.standby, &wal, &st.started, &version, &revision, &commit, &claim, &orphaned, &hidden); err != nil {
		return state{}, err
	}
	if hidden && (revision == nil || version == nil) {
		return state{}, errHidden
	}
	if version != nil {
		st.version = *version
	}
	if orphaned {
		return state{}, fmt.Errorf("%w: there is a log or a snapshot of catalog %q, and fencepost.head has no row", driver.ErrCorrupt, s.catalog)
	}
	if revision != nil && commit != nil && claim != nil {
		var err error
		if st.head, err = s.parseHead(*revision, *commit, *claim); err != nil {
			return state{}, err
		}
	}
	var err error
	st.timeline, err = parseTimeline(st.standby, wal)
	return st, err
}

const serverAloneSQL = `select ` + serverSQL

// readServer reads what doesn't need the schema, and refuses a server that
// can't be trusted.
func (s *Store) readServer(ctx context.Context, q querier) (state, error) {
	return s.scanServer(q.QueryRow(ctx, serverAloneSQL, s.args()...))
}

func (s *Store) scanServer(row pgx.Row) (st state, err error) {
	var wal string
	if err := row.Scan(&st.standby, &wal, &st.started); err != nil {
		return state{}, err
	}
	if st.timeline, err = parseTimeline(st.standby, wal); err != nil {
		return state{}, err
	}
	return st, s.admitServer(st)
}

// parseTimeline takes the timeline out of the name of a WAL file, whose first
// eight hexadecimal digits it is.
func parseTimeline(standby bool, wal string) (uint32, error) {
	const digits = 8
	if standby {
		return 0, nil
	}
	if len(wal) < digits {
		return 0, fmt.Errorf("%w: a WAL file called %q", driver.ErrCorrupt, wal)
	}
	n, err := strconv.ParseUint(wal[:digits], 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: a WAL file called %q", driver.ErrCorrupt, wal)
	}
	return uint32(n), nil
}

func (s *Store) parseHead(revision int64, commit driver.ID, claim string) (driver.Head, error) {
	c, err := s.claimMemo.Unmarshal(claim)
	if err != nil {
		return driver.Head{}, fmt.Errorf("fencepost.head: %w", unreadable(err))
	}
	head := driver.Head{Revision: uint64(max(revision, 0)), Commit: commit, Claim: c}
	if err := head.Check(); err != nil {
		return driver.Head{}, fmt.Errorf("%w: fencepost.head: %w", driver.ErrCorrupt, err)
	}
	return head, nil
}

func parseClaim(text string) (driver.Claim, error) {
	c, err := driver.UnmarshalClaim([]byte(text))
	if err != nil {
		return driver.Claim{}, unreadable(err)
	}
	return c, nil
}

func unreadable(err error) error {
	return fmt.Errorf("%w: a claim is unreadable: %w", driver.ErrCorrupt, err)
}
