package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// Log calls fn with the records above revision after, in order. A gap that no
// Trim has made is corruption.
func (s *Store) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return s.read(ctx, "log", func(conn querier, st state) error {
		return s.readLog(ctx, "log", conn, st.head.Revision, after, fn)
	})
}

// Claims calls fn with the claims above revision after, oldest first.
func (s *Store) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	return s.read(ctx, "claims", func(conn querier, st state) error {
		return s.readClaims(ctx, conn, st.head.Claim.Revision, after, fn)
	})
}

// read looks at the server and, where there is something to read that this
// build can read, calls fn with the same connection.
func (s *Store) read(ctx context.Context, op string, fn func(querier, state) error) error {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return s.fail(op, err, notSent)
	}
	defer s.give(conn)
	st, err := s.readState(ctx, conn)
	if err == nil && st.exists {
		err = checkVersion(st.version)
	}
	if err != nil {
		s.leave(conn, err)
		return s.fail(op, err, notSent)
	}
	if !st.exists {
		return nil
	}
	return fn(conn, st)
}

const logSQL = `select revision, commit_id, generation, epoch, payload
	from fencepost.log where catalog = $1 and revision > $2 and ` + hexBytes + ` order by revision`

// readLog reads the log, which must reach newest. An error of fn is returned
// as it is, and every other one classified.
func (s *Store) readLog(ctx context.Context, op string, q querier, newest, after uint64, fn func(driver.Record) error) error {
	if after >= newest {
		return nil
	}
	rows, err := q.Query(ctx, logSQL, s.args(s.catalog, int64(after))...)
	if err != nil {
		return s.fail(op, err, notSent)
	}
	defer rows.Close()
	last, found := after, uint64(0)
	for rows.Next() {
		rec, err := scanRecord(rows)
		if err != nil {
			return s.fail(op, err, notSent)
		}
		if found = rec.Revision; found != last+1 {
			break
		}
		if err := fn(rec); err != nil {
			return err
		}
		last = rec.Revision
	}
	rows.Close()
	if err = rows.Err(); err == nil && (last < newest || found != last) {
		err = s.whyMissing(ctx, q, last+1, newest)
	}
	if err != nil {
		return s.fail(op, err, notSent)
	}
	return nil
}

// whyMissing says why the log has no record at revision. Whoever did not see
// that record, since it was deleted, sees now that it was.
func (s *Store) whyMissing(ctx context.Context, q querier, revision, newest uint64) error {
	_, trimmed, err := s.published(ctx, q)
	if err != nil {
		return err
	}
	if revision <= trimmed {
		return fmt.Errorf("%w: up to revision %d, and %d is asked for", driver.ErrCompacted, trimmed, revision)
	}
	err = fmt.Errorf("%w: fencepost.log lacks revision %d, the head is at %d", driver.ErrCorrupt, revision, newest)
	return s.orHidden(ctx, q, err)
}

func scanRecord(rows pgx.Rows) (driver.Record, error) {
	var rec driver.Record
	var revision, gen, ep int64
	if err := rows.Scan(&revision, (*[16]byte)(&rec.ID), &gen, &ep, &rec.Payload); err != nil {
		return rec, err
	}
	if revision < 1 || gen < 1 || ep < 1 {
		return rec, fmt.Errorf("%w: fencepost.log has revision %d of generation %d, epoch %d", driver.ErrCorrupt, revision, gen, ep)
	}
	rec.Revision = uint64(revision)
	rec.Token = fence.Token{Generation: generation.Generation(gen), Epoch: epoch.Epoch(ep)}
	return rec, nil
}

const claimsSQL = `select revision, claim from fencepost.claim where catalog = $1 and revision > $2 order by revision`

// readClaims reads the history of claims, which must reach newest.
func (s *Store) readClaims(ctx context.Context, q querier, newest, after uint64, fn func(driver.Claim) error) error {
	if after >= newest {
		return nil
	}
	rows, err := q.Query(ctx, claimsSQL, s.args(s.catalog, int64(after))...)
	if err != nil {
		return s.fail("claims", err, notSent)
	}
	defer rows.Close()
	last := after
	for rows.Next() {
		c, err := scanClaim(rows)
		if err != nil {
			return s.fail("claims", err, notSent)
		}
		if err := fn(c); err != nil {
			return err
		}
		last = c.Revision
	}
	rows.Close()
	if err = rows.Err(); err == nil && last < newest {
		err = fmt.Errorf("%w: fencepost.claim ends at revision %d, the head's claim is %d", driver.ErrCorrupt, last, newest)
		err = s.orHidden(ctx, q, err)
	}
	if err != nil {
		return s.fail("claims", err, notSent)
	}
	return nil
}

func scanClaim(rows pgx.Rows) (driver.Claim, error) {
	var revision int64
	var text string
	if err := rows.Scan(&revision, &text); err != nil {
		return driver.Claim{}, err
	}
	c, err := parseClaim(text)
	if err == nil && int64(c.Revision) != revision {
		err = fmt.Errorf("%w: fencepost.claim has revision %d in the row of %d", driver.ErrCorrupt, c.Revision, revision)
	}
	return c, err
}
