package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
)

// The record of losses is a row of fencepost.board that no note has the key of.
// A table of its own would be another version of the schema, which older builds
// refuse, and a right that roles of before don't have.

const (
	lossesSQL      = `select value, version from fencepost.board where catalog = $1 and key = $2 and ` + hexBytes
	lossesPlaceSQL = `select ` + systemSQL + `, b.value, b.version from (values ($2::text)) as wanted(key)
		left join fencepost.board b on b.catalog = $1 and b.key = wanted.key
		where ` + hexBytes
	addLossesSQL  = `insert into fencepost.board (catalog, key, value, version) values ($1, $2, $3, $4) on conflict do nothing`
	moveLossesSQL = `update fencepost.board set value = $3, version = $4 where catalog = $1 and key = $2 and version = $5`
)

// Losses returns the record of losses, by one round trip. The place is the system
// identifier and the timeline.
func (s *Store) Losses(ctx context.Context) (driver.Losses, error) {
	l, err := s.losses(ctx)
	if err != nil {
		return driver.Losses{}, s.fail("losses", err, notSent)
	}
	return l, nil
}

func (s *Store) losses(ctx context.Context) (driver.Losses, error) {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return driver.Losses{}, err
	}
	defer s.give(conn)
	l, err := s.lossesBy(ctx, conn)
	s.leave(conn, err)
	return l, err
}

func (s *Store) lossesBy(ctx context.Context, q batcher) (l driver.Losses, err error) {
	var system string
	st, err := s.readState(ctx, q, statement{sql: lossesPlaceSQL, args: []any{s.catalog, driver.LossesKey}, row: func(row pgx.Row) error {
		var version *int64
		if err := row.Scan(&system, &l.Text, &version); err != nil {
			return err
		}
		if version != nil {
			l.Version = *version
		}
		return nil
	}})
	if err == nil && st.exists {
		err = checkVersion(st.version)
		l.Place = placeText(system, st.timeline)
	}
	return l, err
}

func placeText(system string, timeline uint32) string {
	return fmt.Sprintf("system %s, timeline %d", system, timeline)
}

// readLosses reads the record within a claim.
func (s *Store) readLosses(into *driver.Losses) statement {
	return statement{sql: lossesSQL, args: []any{s.catalog, driver.LossesKey}, row: func(row pgx.Row) error {
		*into = driver.Losses{}
		if err := row.Scan(&into.Text, &into.Version); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return nil
	}}
}

// holdLosses keeps the record what it was until the claim has ended, or replaces
// it by next if that is not nil.
func (s *Store) holdLosses(l driver.Losses, next []byte) []statement {
	if next == nil {
		return s.holdNote(driver.Note{Key: driver.LossesKey, Version: l.Version})
	}
	_, move := s.moveLosses(driver.Losses{Text: next, Version: l.Version})
	return []statement{move}
}

// moveLosses replaces the record if it is at l's version. Another transaction that
// does so, or that holds the record, is waited for.
func (s *Store) moveLosses(l driver.Losses) (version int64, _ statement) {
	version = newVersion()
	sql, args := addLossesSQL, []any{s.catalog, driver.LossesKey, l.Text, version}
	if l.Version != 0 {
		sql, args = moveLossesSQL, append(args, l.Version)
	}
	return version, statement{sql: sql, args: args, tag: func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return fmt.Errorf("%w: the record of losses has changed", driver.ErrConflict)
		}
		return nil
	}}
}

// PutLosses replaces the record of losses. It waits for the last moment of a claim
// under way, which holds the record, and for no earlier one.
func (s *Store) PutLosses(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
	const op = "put losses"
	if err := checkSize("the record of losses", len(l.Text), maxNote); err != nil {
		return 0, s.fail(op, err, notSent)
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return 0, s.fail(op, err, notSent)
	}
	defer s.give(conn)
	version, sent, err := s.putLosses(ctx, conn, l, at)
	if err != nil {
		s.leave(conn, err)
		return 0, s.fail(op, err, sent)
	}
	return version, nil
}

func (s *Store) putLosses(ctx context.Context, conn *pgxpool.Conn, l driver.Losses, at *driver.Head) (int64, sent, error) {
	st, err := s.readState(ctx, conn)
	switch {
	case err != nil:
		return 0, notSent, err
	case !st.exists:
		return 0, notSent, fmt.Errorf("%w: there is no catalog in this database yet", driver.ErrConflict)
	}
	if err := checkVersion(st.version); err != nil {
		return 0, notSent, err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return 0, notSent, err
	}
	defer rollback(tx)
	version, move := s.moveLosses(l)
	// The record comes first, on which a claim stands with its last statements:
	// what the next statement sees of the head holds until the end.
	var pid int
	err = s.together(ctx, tx, s.bounds(patienceOf(ctx).lock, s.config.ClaimIdle, &pid), move, s.foundAt(l.Place, at))
	if err != nil {
		return 0, notSent, overtaken(err)
	}
	pg := conn.Conn().PgConn()
	expectCommit(pg)
	if err = tx.Commit(ctx); err == nil {
		err = checkCommit(pg)
	}
	s.notifier.notify(channel(s.catalog)) // the holder looks at it
	return version, commitSent, err
}

// foundAtSQL reads what a loss was found on.
const foundAtSQL = `select ` + systemSQL + `, ` + timelineSQL + `, h.revision, h.commit_id, t.claim_id
	from (values ($1::text)) as wanted(catalog) left join fencepost.head h on h.catalog = wanted.catalog
	left join fencepost.token t on t.catalog = wanted.catalog`

// foundAt requires that the server is the one of place and, unless at is nil, that
// the head is at it.
func (s *Store) foundAt(place string, at *driver.Head) statement {
	return statement{sql: foundAtSQL, args: []any{s.catalog}, row: func(row pgx.Row) error {
		var system string
		var timeline int64
		var revision *int64
		var commit, claim *[16]byte
		if err := row.Scan(&system, &timeline, &revision, &commit, &claim); err != nil {
			return err
		}
		if now := placeText(system, uint32(timeline)); now != place {
			return fmt.Errorf("%w: this is %s, and not %s", driver.ErrConflict, now, place)
		}
		var now driver.Head
		if revision != nil && commit != nil && claim != nil {
			now.Revision, now.Commit, now.Claim.ID = uint64(*revision), *commit, *claim
		}
		if at == nil || now.Revision == at.Revision && now.Commit == at.Commit && now.Claim.ID == at.Claim.ID {
			return nil
		}
		return fmt.Errorf("%w: the head is at revision %d, commit %v, and not at revision %d, commit %v",
			driver.ErrConflict, now.Revision, now.Commit, at.Revision, at.Commit)
	}}
}
