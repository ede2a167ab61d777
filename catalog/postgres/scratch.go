package postgres

import (
	"context"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Scratcher = (*Store)(nil)

// scratchConns is how many stores race in a scratch place, each over a connection
// of the pool.
const scratchConns = 2

// scratchOf returns what the names of a catalog's scratch places begin with. No
// catalog can have such a name, because of the colons.
func scratchOf(catalog string) string { return "check:" + catalog + ":" }

// Scratch opens a catalog of its own in the same tables. Its stores share the
// connections of s.
func (s *Store) Scratch(ctx context.Context) (driver.Scratch, error) {
	if s.root.Err() != nil {
		return driver.Scratch{}, s.fail("scratch", errClosed, notSent)
	}
	place := scratchOf(s.catalog) + driver.NewScratchName()
	var stores []driver.Store
	for range scratchConns {
		store := newStore(ctx, s.links, place)
		store.name, store.release = s.name, func() {}
		stores = append(stores, store)
	}
	return driver.Scratch{Stores: stores, Discard: func(ctx context.Context) error {
		for _, store := range stores {
			_ = store.Close() // always nil
		}
		return s.discard(ctx, place)
	}}, nil
}

// mostPlaces bounds how many scratch places a listing looks at: with the least
// rights, one of each check is there for ever.
const mostPlaces = 1000

// placesSQL finds the newest places, by the indexes: each has notes first, and then a
// head.
const placesSQL = `(select catalog from fencepost.head where catalog > $1 and catalog < $2 order by catalog desc limit $3)
	union (select distinct catalog from fencepost.board where catalog > $1 and catalog < $2 order by catalog desc limit $3)
	order by catalog`

// What a scratch place has written. A role with the least rights may not delete
// the rows of head, token and claim: they stay, and nobody reads them again.
const (
	discardSQL = `with log as (delete from fencepost.log where catalog = any ($1::text[])),
		board as (delete from fencepost.board where catalog = any ($1::text[]) returning 1),
		claim as (delete from fencepost.claim where catalog = any ($1::text[])),
		token as (delete from fencepost.token where catalog = any ($1::text[])),
		head as (delete from fencepost.head where catalog = any ($1::text[]) returning 1)
		select exists (select from board) or exists (select from head)`
	discardAllowedSQL = `with log as (delete from fencepost.log where catalog = any ($1::text[]))
		delete from fencepost.board where catalog = any ($1::text[])`
	mayDiscardSQL = `select pg_catalog.has_table_privilege('fencepost.claim', 'delete') and pg_catalog.has_table_privilege('fencepost.token', 'delete')
		and pg_catalog.has_table_privilege('fencepost.head', 'delete')`
)

// discard removes a scratch place, and those that dead processes left.
func (s *Store) discard(ctx context.Context, place string) error {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return s.fail("discard", err, notSent)
	}
	defer s.give(conn)
	if err := s.discardBy(ctx, conn, place); err != nil {
		return s.fail("discard", err, statementSent)
	}
	return nil
}

func (s *Store) discardBy(ctx context.Context, q querier, place string) error {
	exists, err := s.schemaExists(ctx, q)
	if err != nil || !exists {
		return err
	}
	left, err := s.places(ctx, q)
	if err != nil {
		return err
	}
	places := []string{place}
	for _, l := range left {
		if l.Expired() {
			places = append(places, scratchOf(s.catalog)+l.Name)
		}
	}
	var all bool
	if err := q.QueryRow(ctx, mayDiscardSQL, s.args()...).Scan(&all); err != nil {
		return err
	}
	sql := discardSQL
	if !all {
		sql = discardAllowedSQL
	}
	_, err = q.Exec(ctx, sql, s.args(places)...)
	return err
}
