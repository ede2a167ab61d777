package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Cleaner = (*Store)(nil)

// Left implements [driver.Cleaner]: scratch places, the newest 1,000.
func (s *Store) Left(ctx context.Context) (left []driver.Leftover, err error) {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return nil, s.fail("left", err, notSent)
	}
	defer s.give(conn)
	exists, err := s.schemaExists(ctx, conn)
	if err == nil && exists {
		left, err = s.places(ctx, conn)
	}
	if err != nil {
		s.leave(conn, err)
		return nil, s.fail("left", err, notSent)
	}
	return left, nil
}

// places lists the scratch places, oldest first.
func (s *Store) places(ctx context.Context, q querier) (left []driver.Leftover, err error) {
	prefix := scratchOf(s.catalog)
	beyond := prefix[:len(prefix)-1] + ";" // which follows on the colon
	rows, err := q.Query(ctx, placesSQL, s.args(prefix, beyond, mostPlaces)...)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range found {
		if l, ok := driver.ScratchLeft(name[len(prefix):]); ok {
			left = append(left, l)
		}
	}
	return left, err
}

// RemoveLeft implements [driver.Cleaner]. It needs more rights than a service: the owner
// of schema fencepost has them.
func (s *Store) RemoveLeft(ctx context.Context, l driver.Leftover) (removed bool, err error) {
	if err := l.CheckScratch(); err != nil {
		return false, s.fail("remove left", fmt.Errorf("%w: %w", errMisuse, err), notSent)
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return false, s.fail("remove left", err, notSent)
	}
	defer s.give(conn)
	err = conn.QueryRow(ctx, discardSQL, s.args([]string{scratchOf(s.catalog) + l.Name})...).Scan(&removed)
	if err != nil {
		s.leave(conn, err)
		return false, s.fail("remove left", err, statementSent)
	}
	return removed, nil
}
