package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
)

var (
	_ driver.Prober     = (*Store)(nil)
	_ driver.RiskTeller = (*Store)(nil)
)

// oldest is the oldest major version of the server that the driver is tested
// on.
const oldest = 14

// settings are what a server says of itself.
type settings struct {
	version   int // 160004
	name      string
	recovery  bool
	readOnly  bool
	fsync     string
	fullPages string
	commits   string // synchronous_commit
	standbys  string // synchronous_standby_names
	replicas  int    // that stream from it
	schema    bool
	create    bool // the right to create the schema
	forbidden []string
}

const settingsSQL = `select pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'),
	pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on',
	pg_catalog.current_setting('fsync'), pg_catalog.current_setting('full_page_writes'), pg_catalog.current_setting('synchronous_commit'),
	pg_catalog.current_setting('synchronous_standby_names'), (select pg_catalog.count(*)::int from pg_catalog.pg_stat_replication),
	pg_catalog.to_regnamespace('fencepost') is not null, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create')`

// rightsSQL lists what this role lacks of what a holder needs. Its operators, like
// those of every statement of this package, have operands of exactly their types:
// behind a pooler the search_path is the application's, and an operator that any
// user may have created in schema public for just these types would be preferred.
const rightsSQL = `select t.privilege || ' on fencepost.' || c.relname::text
	from pg_catalog.pg_class c, (values ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) as t(privilege)
	where c.relnamespace = 'fencepost'::regnamespace::oid and c.relkind in ('r', 'p') and c.relname <> 'schema_version'
	and c.relname not like 'guard%'
	and not (c.relname in ('log', 'claim') and t.privilege = 'UPDATE')
	and not (c.relname not in ('log', 'part', 'board') and t.privilege = 'DELETE')
	and not pg_catalog.has_table_privilege(c.oid, t.privilege)
	union all select 'sight of every row of fencepost.' || c.relname::text || ' (row level security)' from pg_catalog.pg_class c
	where c.relnamespace = 'fencepost'::regnamespace::oid and c.relkind = 'r' and pg_catalog.row_security_active(c.oid)
	union all select 'EXECUTE on pg_control_system' where not pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute')
	order by 1`

// Probe implements [driver.Prober]. It reads settings and rights.
func (s *Store) Probe(ctx context.Context) ([]driver.Finding, error) {
	set, err := s.askSettings(ctx, "probe")
	if err != nil {
		return nil, err
	}
	return set.findings(), nil
}

// Risks implements [driver.RiskTeller]. One server without a standby is none: a
// commit is on its disk, which holds the only copy.
func (s *Store) Risks(ctx context.Context) ([]driver.Finding, error) {
	set, err := s.askSettings(ctx, "risks")
	if err != nil {
		return nil, err
	}
	all := []driver.Finding{set.durability(), set.pages(), set.replication()}
	return slices.DeleteFunc(all, func(f driver.Finding) bool { return f.Grade == driver.Fine }), nil
}

func (s *Store) askSettings(ctx context.Context, op string) (settings, error) {
	conn, err := s.acquire(ctx, s.liveness)
	if err != nil {
		return settings{}, s.fail(op, err, notSent)
	}
	defer s.give(conn)
	set, err := s.readSettings(ctx, conn)
	if err != nil {
		return settings{}, s.fail(op, err, notSent)
	}
	return set, nil
}

func (s *Store) readSettings(ctx context.Context, q querier) (settings, error) {
	var set settings
	err := q.QueryRow(ctx, settingsSQL, s.args()...).Scan(&set.version, &set.name, &set.recovery, &set.readOnly,
		&set.fsync, &set.fullPages, &set.commits, &set.standbys, &set.replicas, &set.schema, &set.create)
	if err != nil || !set.schema {
		return set, err
	}
	rows, err := q.Query(ctx, rightsSQL, s.args()...)
	if err != nil {
		return set, err
	}
	set.forbidden, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return set, err
}

func (set settings) findings() []driver.Finding {
	return []driver.Finding{set.server(), set.rights(), set.durability(), set.pages(), set.replication()}
}

func finding(name string, grade driver.Grade, detail, remedy string) driver.Finding {
	return driver.Finding{Name: name, Grade: grade, Detail: detail, Remedy: remedy}
}

func (set settings) server() driver.Finding {
	const name = "server"
	is := "PostgreSQL " + set.name
	switch {
	case set.recovery:
		return finding(name, driver.Failure, is+" is in recovery: a standby takes no writes", "name the primary, or add target_session_attrs=read-write")
	case set.readOnly:
		return finding(name, driver.Failure, is+" gives read-only transactions", "set default_transaction_read_only to off for this role and database")
	case set.version/10000 < oldest:
		return finding(name, driver.Warning, is+" is older than the oldest that is tested, "+strconv.Itoa(oldest), "upgrade the server")
	}
	return finding(name, driver.Fine, is+" takes writes", "")
}

func (set settings) rights() driver.Finding {
	const name = "rights"
	switch {
	case !set.schema && !set.create:
		return finding(name, driver.Failure, "there is no schema fencepost, and this role may not create one", "grant create on the database to this role for the first claim")
	case !set.schema:
		return finding(name, driver.Fine, "there is no schema yet; this role may create it with the first claim", "")
	case len(set.forbidden) > 0:
		return finding(name, driver.Failure, "this role lacks "+strings.Join(set.forbidden, ", "), "grant it to this role, and disable row level security")
	}
	return finding(name, driver.Fine, "this role may read and write the catalog", "")
}

// durability is about a crash of the server. A commit of the driver never runs
// with synchronous_commit off: see durable.
func (set settings) durability() driver.Finding {
	const name = "durability"
	switch {
	case set.fsync != "on":
		return finding(name, driver.Failure, "fsync="+set.fsync+": a crash of the machine loses acknowledged commits, or the database", "set fsync=on")
	case set.commits == "off":
		return finding(name, driver.Warning, "synchronous_commit=off: Fencepost's commits override it, those of your own tables do not", "set synchronous_commit=on for this role or database")
	}
	return finding(name, driver.Fine, "fsync=on, synchronous_commit="+set.commits, "")
}

func (set settings) pages() driver.Finding {
	const name = "torn pages"
	if set.fullPages != "on" {
		return finding(name, driver.Warning, "full_page_writes="+set.fullPages+": a crash can leave torn pages, unless the file system writes whole ones", "set full_page_writes=on")
	}
	return finding(name, driver.Fine, "full_page_writes=on", "")
}

// replication is about a fail-over to another server.
func (set settings) replication() driver.Finding {
	const name = "fail-over"
	switch {
	case set.standbys != "" && (set.commits == "local" || set.commits == "off"):
		return finding(name, driver.Warning, fmt.Sprintf("synchronous_standby_names=%s, and synchronous_commit=%s does not wait for them: a fail-over can lose acknowledged commits",
			set.standbys, set.commits), "set synchronous_commit=on")
	case set.standbys != "":
		return finding(name, driver.Fine, fmt.Sprintf("commits wait for synchronous standbys: %s (%d servers stream)", set.standbys, set.replicas), "")
	case set.replicas > 0:
		return finding(name, driver.Warning, fmt.Sprintf("%d servers stream, and none of them is synchronous: a fail-over can lose acknowledged commits", set.replicas),
			"set synchronous_standby_names, such as 'ANY 1 (*)'")
	}
	return finding(name, driver.Fine, "one server, and no standby streams from it: its disk holds the only copy", "")
}
