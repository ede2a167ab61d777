package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.TableGuarder = (*Store)(nil)

// errTable means that a table can't be guarded.
var errTable = errors.New("not a table that can be guarded")

// The names of the triggers on a guarded table.
const (
	guardTrigger    = "fencepost_guard"
	truncateTrigger = "fencepost_guard_truncate"
)

// guardTableSQL guards a table. The condition of the constraint trigger has a
// transaction queue one check, however many rows it writes: the setting is
// transactional, like the queue. It names catalog and transaction, so that a value
// which a session has set before counts for nothing.
const guardTableSQL = `create constraint trigger ` + guardTrigger + ` after insert or update or delete on TABLE deferrable initially deferred for each row
	when (pg_catalog.current_setting('fencepost.due', true) is distinct from 'CATALOG ' || pg_catalog.pg_current_xact_id()::pg_catalog.text
		and pg_catalog.set_config('fencepost.due', 'CATALOG ' || pg_catalog.pg_current_xact_id()::pg_catalog.text, true) is not null)
	execute function fencepost.guard_commit('CATALOG')`

const (
	guardTruncateSQL = `create trigger ` + truncateTrigger + ` after truncate on TABLE for each statement execute function fencepost.guard_truncate('CATALOG')`
	lockGuardedSQL   = `lock table only TABLE in share row exclusive mode`
	enableGuardSQL   = `alter table TABLE enable trigger TRIGGER`
	dropGuardSQL     = `drop trigger if exists TRIGGER on TABLE`

	// commentGuardSQL returns the statement that says who has installed trigger $1 of table $2.
	commentGuardSQL = `select pg_catalog.format('comment on trigger %I on %s is %L', $1::text, $2::text,
		pg_catalog.concat('installed by ', current_user, ', ', pg_catalog.to_char(pg_catalog.now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))`

	// firesSQL tells whether trigger t fires for what applications write.
	firesSQL = `t.tgenabled::text in ('O', 'A')`

	// argumentSQL is the argument of trigger t, which is the catalog.
	argumentSQL = `pg_catalog.convert_from(pg_catalog.btrim(t.tgargs, pg_catalog.decode('00', 'hex')), 'UTF8')`
)

// tablesOfSQL finds the tables that $1 (names) and $2 (schemas) name, with their
// partitions and children, behind their parents: a partition gets its parent's
// constraint trigger. It runs by the search_path of the role, as names are meant.
const tablesOfSQL = `with recursive named(oid, depth) as (
		select pg_catalog.to_regclass(n)::oid, 0 from pg_catalog.unnest($1::text[]) as n
		union select c.oid, 0 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
			where n.nspname::text operator(pg_catalog.=) any ($2::text[]) and c.relkind in ('r', 'p')
		union select i.inhrelid, named.depth operator(pg_catalog.+) 1 from named join pg_catalog.pg_inherits i on i.inhparent operator(pg_catalog.=) named.oid)
	select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text, n.nspname::text
	from (select oid, pg_catalog.max(depth) as depth from named group by oid) as named
	join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) named.oid join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace order by named.depth, 2`

// missingTablesSQL returns the names and schemas that name nothing. From PostgreSQL 16
// on, to_regclass returns a number as it is, and 0 for a dash.
const missingTablesSQL = `select pg_catalog.concat('table ', n) from pg_catalog.unnest($1::text[]) as n
		where not exists (select from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) pg_catalog.to_regclass(n)::oid)
	union all select pg_catalog.concat('schema ', n) from pg_catalog.unnest($2::text[]) as n where not exists (select from pg_catalog.pg_namespace where nspname::text operator(pg_catalog.=) n)`

type table struct {
	oid                             uint32
	name, kind, persistence, schema string
}

// check refuses what can have no such triggers.
func (t table) check() error {
	switch {
	case t.schema == "fencepost" || t.schema == "pg_catalog" || t.schema == "information_schema":
		return fmt.Errorf("%w: %s is the system's or the catalog's own", errTable, t.name)
	case t.persistence == "t":
		return fmt.Errorf("%w: %s is temporary", errTable, t.name)
	case t.kind == "f":
		return fmt.Errorf("%w: %s is a foreign table: guard it where it is", errTable, t.name)
	case t.kind != "r" && t.kind != "p":
		return fmt.Errorf("%w: %s is of kind %q: guard the tables beneath it", errTable, t.name, t.kind)
	}
	return nil
}

// installLock bounds each wait for the lock of a table: while a trigger waits, so
// do the writers behind it.
const installLock = time.Second

// InstallGuards implements [driver.TableGuarder]. A partition that is made or
// attached later is guarded like its parent, but for a TRUNCATE of it alone: that
// takes another call.
func (s *Store) InstallGuards(ctx context.Context, tables driver.GuardedTables) error {
	if err := s.ddl(ctx, s.prepareGuards); err != nil {
		return err
	}
	return s.eachTable(ctx, tables, func(ctx context.Context, tx pgx.Tx, t table) error {
		for _, g := range []struct{ trigger, sql string }{{guardTrigger, guardTableSQL}, {truncateTrigger, guardTruncateSQL}} {
			if err := s.installTrigger(ctx, tx, t, g.trigger, g.sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveGuards implements [driver.TableGuarder]. What guards need stays. A partition
// has its parent's guard, and loses it with that or not at all.
func (s *Store) RemoveGuards(ctx context.Context, tables driver.GuardedTables) error {
	return s.eachTable(ctx, tables, func(ctx context.Context, tx pgx.Tx, t table) error {
		if _, err := tx.Exec(ctx, `lock table `+t.name+` in access exclusive mode`); err != nil {
			return err
		}
		for _, trigger := range []string{guardTrigger, truncateTrigger} {
			is, err := s.triggerOf(ctx, tx, t, trigger)
			switch {
			case err != nil || !is.exists:
			case is.cloned:
				err = fmt.Errorf("%w: its guard is that of the table whose partition it is: name that one", errTable)
			default:
				_, err = tx.Exec(ctx, s.on(t, trigger, dropGuardSQL))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// A triggerState is what a table has under the name of one of our triggers.
type triggerState struct {
	exists  bool
	cloned  bool // it comes with the parent's
	enabled bool
	catalog string
	ours    bool // it calls a function of schema fencepost
}

const triggerSQL = `select t.tgparentid <> 0, ` + firesSQL + `,
	` + argumentSQL + `, n.nspname = 'fencepost'
	from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace
	where t.tgrelid = $1 and t.tgname = $2`

func (s *Store) triggerOf(ctx context.Context, q querier, t table, trigger string) (is triggerState, err error) {
	is.exists = true
	err = q.QueryRow(ctx, triggerSQL, s.args(t.oid, trigger)...).Scan(&is.cloned, &is.enabled, &is.catalog, &is.ours)
	if errors.Is(err, pgx.ErrNoRows) {
		return triggerState{}, nil
	}
	return is, err
}

// installTrigger creates a trigger, unless the table has it.
func (s *Store) installTrigger(ctx context.Context, tx pgx.Tx, t table, trigger, create string) error {
	is, err := s.triggerOf(ctx, tx, t, trigger)
	if err == nil && !is.exists { // another installation may be about to create it
		if _, err = tx.Exec(ctx, s.on(t, trigger, lockGuardedSQL)); err == nil {
			is, err = s.triggerOf(ctx, tx, t, trigger)
		}
	}
	if err == nil {
		err = s.checkTrigger(is, trigger)
	}
	switch {
	case err != nil || is.exists && is.enabled:
		return err
	case is.exists:
		_, err := tx.Exec(ctx, s.on(t, trigger, enableGuardSQL))
		return err
	}
	if t.kind == "p" && trigger == guardTrigger {
		if err := s.dropBeneath(ctx, tx, t); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, s.on(t, trigger, create)); err != nil {
		return err
	}
	var comment string
	if err := tx.QueryRow(ctx, commentGuardSQL, s.args(trigger, t.name)...).Scan(&comment); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, comment)
	return err
}

// checkTrigger refuses to replace what is not this catalog's.
func (s *Store) checkTrigger(is triggerState, trigger string) error {
	switch {
	case is.exists && !is.ours:
		return fmt.Errorf("%w: it has a trigger %s that is not ours: rename it", errTable, trigger)
	case is.exists && is.catalog != s.catalog:
		return fmt.Errorf("%w: catalog %s guards it already: remove that guard first", errTable, is.catalog)
	}
	return nil
}

// dropBeneath drops the constraint triggers that partitions of t have of their own:
// they get the parent's, of the same name, in this transaction.
func (s *Store) dropBeneath(ctx context.Context, tx pgx.Tx, t table) error {
	all, err := s.tablesOf(ctx, tx, driver.GuardedTables{Tables: []string{t.name}})
	if err != nil {
		return err
	}
	for _, partition := range all[1:] {
		is, err := s.triggerOf(ctx, tx, partition, guardTrigger)
		if err == nil {
			err = s.checkTrigger(is, guardTrigger)
		}
		if err == nil && is.exists && !is.cloned {
			_, err = tx.Exec(ctx, s.on(partition, guardTrigger, dropGuardSQL))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", partition.name, err)
		}
	}
	return nil
}

// on returns a statement about a trigger of a table.
func (s *Store) on(t table, trigger, sql string) string {
	return strings.NewReplacer("TABLE", t.name, "TRIGGER", trigger, "CATALOG", s.catalog).Replace(sql)
}

// eachTable calls fn for each table in a transaction of its own.
func (s *Store) eachTable(ctx context.Context, named driver.GuardedTables, fn func(context.Context, pgx.Tx, table) error) error {
	var all []table
	err := s.ddl(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		if _, err = tx.Exec(ctx, `set local search_path to default`); err == nil {
			all, err = s.tablesOf(ctx, tx, named)
		}
		return err
	})
	for _, t := range all {
		if err == nil {
			err = t.check()
		}
	}
	if err != nil {
		return s.fail("guard", err, notSent)
	}
	for _, t := range all {
		if err := s.ddl(ctx, func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, tx, t) }); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

// ddl runs fn in a transaction. If a lock is not acquired within installLock, it
// rolls back, so that others are let through, and tries again until ctx ends; if
// somebody else has just made the schema, at once.
func (s *Store) ddl(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
	for {
		err := s.tryDDL(ctx, fn)
		if errors.Is(err, errAppeared) && ctx.Err() == nil {
			continue
		}
		if sqlState(err) != "55P03" || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(installLock / 4):
		case <-ctx.Done():
			return err
		}
	}
}

func (s *Store) tryDDL(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return s.fail("guard", err, notSent)
	}
	defer s.give(conn)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return s.fail("guard", err, notSent)
	}
	defer rollback(tx)
	var pid int
	if err = s.alone(ctx, tx, s.bounds(installLock, s.config.ClaimIdle, &pid)); err == nil {
		_, err = tx.Exec(ctx, `set local search_path = pg_catalog, pg_temp`)
	}
	if err == nil {
		err = fn(ctx, tx)
	}
	if err != nil {
		return s.fail("guard", err, notSent)
	}
	if err := tx.Commit(ctx); err != nil {
		return s.fail("guard", err, commitSent)
	}
	return nil
}

// prepareGuards installs what guards need, unless it is there.
func (s *Store) prepareGuards(ctx context.Context, tx pgx.Tx) error {
	exists, err := s.schemaExists(ctx, tx)
	if err != nil {
		return err
	}
	if !exists {
		if err := s.reserveSchema(ctx, tx); err != nil {
			return err
		}
		return s.createTables(ctx, tx)
	}
	installed, err := s.guardsInstalled(ctx, tx)
	if err != nil || installed {
		return err
	}
	if _, err := tx.Exec(ctx, `lock table fencepost.token in access exclusive mode`); err != nil { // others may install, too
		return err
	}
	if installed, err = s.guardsInstalled(ctx, tx); err != nil || installed {
		return err
	}
	_, err = tx.Exec(ctx, guardSQL)
	return err
}

const guardsInstalledSQL = `select exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
	where n.nspname = 'fencepost' and p.proname = 'guard' and pg_catalog.obj_description(p.oid, 'pg_proc') = '` + guardVersion + `')`

func (s *Store) guardsInstalled(ctx context.Context, q querier) (installed bool, err error) {
	err = q.QueryRow(ctx, guardsInstalledSQL, s.args()...).Scan(&installed)
	return installed, err
}

func (s *Store) tablesOf(ctx context.Context, q querier, named driver.GuardedTables) ([]table, error) {
	args := s.args(slices.Clip(named.Tables), slices.Clip(named.Schemas))
	rows, err := q.Query(ctx, missingTablesSQL, args...)
	if err != nil {
		return nil, err
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	switch sqlState(err) {
	case "42602", "42601", "0A000": // bad syntax, too many names, another database's
		return nil, fmt.Errorf("%w: want a name as in SQL, such as orders or app.\"Order lines\": %w", errTable, err)
	}
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: there is no %s", errTable, strings.Join(missing, " and no "))
	}
	if rows, err = q.Query(ctx, tablesOfSQL, args...); err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (t table, err error) {
		err = row.Scan(&t.oid, &t.name, &t.kind, &t.persistence, &t.schema)
		return t, err
	})
}
