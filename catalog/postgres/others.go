package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Lister = (*Store)(nil)

// othersSQL finds the catalogs that were claimed, without scratch places, whose names
// have colons.
const othersSQL = `select catalog from fencepost.head
	where catalog <> $1 and pg_catalog.strpos(catalog, ':') = 0 order by catalog limit $2`

// OtherCatalogs implements [driver.Lister]: the catalogs of the same database.
func (s *Store) OtherCatalogs(ctx context.Context) (names []string, more bool, err error) {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return nil, false, s.fail("other catalogs", err, notSent)
	}
	defer s.give(conn)
	exists, err := s.schemaExists(ctx, conn)
	if err == nil && exists {
		names, err = s.others(ctx, conn)
	}
	if err != nil {
		s.leave(conn, err)
		return nil, false, s.fail("other catalogs", err, notSent)
	}
	if more = len(names) > driver.MaxOthers; more {
		names = names[:driver.MaxOthers]
	}
	for i, name := range names {
		names[i] = storeName(s.to, name)
	}
	return names, more, nil
}

func (s *Store) others(ctx context.Context, q querier) ([]string, error) {
	rows, err := q.Query(ctx, othersSQL, s.args(s.catalog, driver.MaxOthers+1)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
