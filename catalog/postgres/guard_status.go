package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
)

// guardedTablesSQL lists what catalog $1 guards. A table that has one of the two
// triggers, or one that is disabled, is listed with its problem.
const guardedTablesSQL = `select pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_userbyid(c.relowner)::text,
	coalesce(pg_catalog.max(pg_catalog.obj_description(t.oid, 'pg_trigger')), ''),
	pg_catalog.bool_or(p.proname = 'guard_commit' and ` + firesSQL + `),
	pg_catalog.bool_or(p.proname = 'guard_truncate' and ` + firesSQL + `)
	from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace f on f.oid = p.pronamespace
	where f.nspname = 'fencepost' and p.proname in ('guard_commit', 'guard_truncate')
	and ` + argumentSQL + ` = $1
	group by 1, 2 order by 1`

// unguardedSQL lists the tables beside guarded ones, in the same schemas, that no
// catalog guards.
const unguardedSQL = `with guards as (select t.tgrelid as oid from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
		join pg_catalog.pg_namespace f on f.oid = p.pronamespace
		where f.nspname = 'fencepost' and p.proname = 'guard_commit' and ` + firesSQL + `)
	select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	where c.relkind in ('r', 'p') and n.nspname <> 'fencepost' and c.oid not in (select oid from guards)
	and c.relnamespace in (select g.relnamespace from guards join pg_catalog.pg_class g on g.oid = guards.oid) order by 1`

// Guards implements [driver.TableGuarder].
func (s *Store) Guards(ctx context.Context) (driver.Guards, error) {
	conn, err := s.acquire(ctx, s.liveness)
	if err != nil {
		return driver.Guards{}, s.fail("guards", err, notSent)
	}
	defer s.give(conn)
	g, err := s.guards(ctx, conn)
	if err != nil {
		return driver.Guards{}, s.fail("guards", err, notSent)
	}
	return g, nil
}

func (s *Store) guards(ctx context.Context, q querier) (g driver.Guards, err error) {
	if g.Installed, err = s.guardsInstalled(ctx, q); err != nil || !g.Installed {
		return g, err
	}
	if g.Refused, err = s.refused(ctx, q); err != nil {
		return g, err
	}
	rows, err := q.Query(ctx, guardedTablesSQL, s.args(s.catalog)...)
	if err != nil {
		return g, err
	}
	if g.Tables, err = pgx.CollectRows(rows, scanGuardedTable); err != nil {
		return g, err
	}
	if rows, err = q.Query(ctx, unguardedSQL, s.args()...); err != nil {
		return g, err
	}
	g.Unguarded, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return g, err
}

func scanGuardedTable(row pgx.CollectableRow) (t driver.GuardedTable, err error) {
	var rows, truncate bool
	err = row.Scan(&t.Name, &t.Owner, &t.Installed, &rows, &truncate)
	const again = ": run fencepost guard install --table again"
	switch {
	case !rows && !truncate:
		t.Problem = "its guards are disabled" + again
	case !rows:
		t.Problem = "writes are not guarded" + again
	case !truncate:
		t.Problem = "TRUNCATE is not guarded" + again
	}
	return t, err
}

// refused reads the counter of the catalog's refusals. Before the first claim there
// is none.
func (s *Store) refused(ctx context.Context, q querier) (n int64, err error) {
	var sequence string
	if err := q.QueryRow(ctx, `select pg_catalog.concat('refused:', fencepost.guard_name($1))`, s.args(s.catalog)...).Scan(&sequence); err != nil {
		return 0, err
	}
	from := pgx.Identifier{"fencepost", sequence}.Sanitize()
	err = q.QueryRow(ctx, `select case when is_called then last_value else 0 end from `+from, s.args()...).Scan(&n)
	if undefined(err) {
		return 0, nil
	}
	return n, err
}
