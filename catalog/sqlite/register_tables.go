package sqlite

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

var _ driver.TableGuarder = (*Register)(nil)

// TokenFunction is the function by which a connection gives its token to the tables that
// [Register.InstallGuards] guards. It takes no argument and returns text such as g7.e41.
// Every library of SQLite has a way to define one for a connection, such as
//
//	db.create_function("fencepost_given_token", 0, lambda: token)   # Python
//
// and [GiveToken] for modernc's. A connection without it can't write to such a table.
const TokenFunction = "fencepost_given_token"

// GiveToken defines [TokenFunction] for the connections of modernc.org/sqlite that this
// process opens from then on. The token is asked for by each row that is written to a
// guarded table; a zero one gives none. It can be called once a process.
func GiveToken(token func() fence.Token) error {
	return sqlite.RegisterScalarFunction(TokenFunction, 0, func(*sqlite.FunctionContext, []sqldriver.Value) (sqldriver.Value, error) {
		if t := token(); !t.IsZero() {
			return t.String(), nil
		}
		return nil, nil
	})
}

var errTable = errors.New("not a table that can be guarded")

// A write takes SQLite's lock for writing before its first trigger fires, and keeps it
// until the transaction ends, behind no older snapshot than the newest: so what a trigger
// reads of the register is so until the commit.
const (
	givenStaleSQL = `NOT coalesce(fencepost_given_token() = (SELECT token FROM fencepost_token), 0)`
	guardTableSQL = `CREATE TRIGGER SCHEMA."TRIGGER" BEFORE EVENT ON "TABLE" WHEN ` + givenStaleSQL + `
	BEGIN SELECT CASE
		WHEN coalesce(fencepost_given_token(), '') = '' THEN RAISE(ABORT, 'fencepost TKN02: the connection has given no token')
		WHEN length(fencepost_given_token()) > 41 OR fencepost_given_token() NOT GLOB 'g[0-9]*.e[0-9]*' THEN RAISE(ABORT, 'fencepost TKN03: what the connection has given is no token')
		WHEN EXISTS (SELECT 1 FROM fencepost_token t WHERE (t.generation, t.epoch) > (
			CAST(substr(fencepost_given_token(), 2, instr(fencepost_given_token(), '.') - 2) AS INTEGER),
			CAST(substr(fencepost_given_token(), instr(fencepost_given_token(), '.') + 2) AS INTEGER)))
			THEN RAISE(ABORT, 'fencepost TKN01: a newer token was raised than the one that the connection has given')
		ELSE RAISE(ABORT, 'fencepost TKN04: the token that the connection has given was never issued')
	END; END`
	dropGuardSQL = `DROP TRIGGER SCHEMA."TRIGGER"`
	triggersSQL  = `SELECT tbl_name, name, sql FROM SCHEMA.sqlite_master WHERE type = 'trigger' AND name LIKE 'fencepost\_guard\_%' ESCAPE '\'`
	tablesSQL    = `SELECT name, type FROM pragma_table_list WHERE schema = ? COLLATE NOCASE AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name <> 'fencepost_token' ORDER BY name`
)

// events are what each guarded table has a trigger for.
var events = [...]string{"insert", "update", "delete"}

// guardPrefix begins the name of a trigger, before its event and something that no other
// has: a table that is renamed keeps the names of its triggers.
const guardPrefix = "fencepost_guard_"

// A guardedTable is one that has some of our triggers, by event.
type guardedTable map[string]string // name of the trigger; empty if its text is another

// InstallGuards implements [driver.TableGuarder] by triggers: a write fails unless the
// connection has given the token that the register holds, by [TokenFunction]. The
// transaction goes on without that statement. A register that is not there yet is made,
// and its guards refuse everybody until it is raised.
//
// Virtual tables take no triggers. The schema is that of the register's file, such as
// main.
func (r *Register) InstallGuards(ctx context.Context, tables driver.GuardedTables) error {
	return r.alter(ctx, tables, func(c *registerCall, table string, has guardedTable) error {
		for _, event := range events {
			trigger, there := has[event]
			if trigger != "" {
				continue
			}
			if there {
				return fmt.Errorf("%w: %s has a guard of another version: run fencepost guard remove --table before", errTable, table)
			}
			text := c.guard.trigger(guardTableSQL, guardPrefix+event+"_"+driver.NewID().String(), event, table)
			if _, err := c.conn.ExecContext(unbounded, text); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveGuards implements [driver.TableGuarder].
func (r *Register) RemoveGuards(ctx context.Context, tables driver.GuardedTables) error {
	return r.alter(ctx, tables, func(c *registerCall, table string, _ guardedTable) error {
		names, err := c.triggers()
		if err != nil {
			return err
		}
		for _, trigger := range names[table] {
			if _, err := c.conn.ExecContext(unbounded, c.guard.trigger(dropGuardSQL, trigger.name, "", table)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Guards implements [driver.TableGuarder]. Refusals are not counted: each is rolled back
// with all that it has written.
func (r *Register) Guards(ctx context.Context) (g driver.Guards, err error) {
	err = r.with(ctx, func(c *registerCall) error {
		return untilFree(ctx, func() error {
			g, err = c.guards()
			return err
		})
	})
	return g, r.fail("guards", err, false)
}

func (c *registerCall) guards() (g driver.Guards, err error) {
	if g.Installed, err = c.guard.registerThere(c.conn); err != nil || !g.Installed {
		return g, err
	}
	g.Refused = driver.NotCounted
	all, err := c.tables()
	if err != nil {
		return g, err
	}
	triggers, err := c.triggers()
	for _, t := range all {
		has := guardOf(triggers[t.name])
		switch {
		case t.kind != "table" && t.kind != "virtual":
		case len(has) == 0:
			g.Unguarded = append(g.Unguarded, t.name)
		default:
			g.Tables = append(g.Tables, driver.GuardedTable{Name: t.name, Problem: has.problem()})
		}
	}
	return g, err
}

// alter calls fn for each table that is named, in one transaction.
func (r *Register) alter(ctx context.Context, tables driver.GuardedTables, fn func(c *registerCall, table string, has guardedTable) error) error {
	committing := false
	err := r.with(ctx, func(c *registerCall) error {
		if err := c.begin(ctx); err != nil {
			return err
		}
		if err := c.guard.prepareRegister(c.conn); err != nil {
			return err
		}
		named, err := c.named(tables)
		if err != nil {
			return err
		}
		triggers, err := c.triggers()
		for _, table := range named {
			if err == nil {
				err = fn(c, table, guardOf(triggers[table]))
			}
		}
		if err != nil {
			return err
		}
		committing = true
		return c.commit(ctx)
	})
	return r.fail("guard", err, committing)
}

// trigger returns a statement about a trigger.
func (g *guard) trigger(text, name, event, table string) string {
	quoted := func(s string) string { return strings.ReplaceAll(s, `"`, `""`) }
	return strings.NewReplacer(`SCHEMA`, `"`+quoted(g.schema)+`"`, `"TRIGGER"`, `"`+quoted(name)+`"`, `EVENT`, event, `"TABLE"`, `"`+quoted(table)+`"`).Replace(text)
}

// A listedTable is one as SQLite lists it: of kind table, virtual, shadow or view.
type listedTable struct{ name, kind string }

func (c *registerCall) tables() (all []listedTable, err error) {
	rows, err := c.conn.QueryContext(unbounded, tablesSQL, c.guard.schema)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // reading: its error came before
	for rows.Next() {
		var t listedTable
		if err := rows.Scan(&t.name, &t.kind); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// named returns the tables that are named, as SQLite spells them.
func (c *registerCall) named(tables driver.GuardedTables) (names []string, err error) {
	all, err := c.tables()
	if err != nil {
		return nil, err
	}
	for _, schema := range tables.Schemas {
		if !strings.EqualFold(schema, c.guard.schema) {
			return nil, fmt.Errorf("%w: there is no schema %.64q: want %s", errTable, schema, c.guard.schema)
		}
		for _, t := range all {
			if t.kind == "table" {
				names = append(names, t.name)
			}
		}
	}
	for _, name := range tables.Tables {
		t, err := find(all, name)
		if err != nil {
			return nil, err
		}
		names = append(names, t)
	}
	return names, nil
}

// find returns the table of a name as in SQL.
func find(all []listedTable, name string) (string, error) {
	plain := name
	if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
		plain = strings.ReplaceAll(name[1:len(name)-1], `""`, `"`)
	}
	for _, t := range all {
		switch {
		case !strings.EqualFold(t.name, plain):
		case t.kind == "table":
			return t.name, nil
		default:
			return "", fmt.Errorf("%w: %.64q is of kind %s, and takes no triggers: guard the transactions that write to it", errTable, name, t.kind)
		}
	}
	return "", fmt.Errorf("%w: there is no table %.64q", errTable, name)
}

// A listedTrigger is one of ours, or one that is named so.
type listedTrigger struct{ name, text string }

// triggers returns our triggers by table.
func (c *registerCall) triggers() (map[string][]listedTrigger, error) {
	rows, err := c.conn.QueryContext(unbounded, c.guard.sql(triggersSQL))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // reading: its error came before
	all := map[string][]listedTrigger{}
	for rows.Next() {
		var table string
		var t listedTrigger
		if err := rows.Scan(&table, &t.name, &t.text); err != nil {
			return nil, err
		}
		all[table] = append(all[table], t)
	}
	return all, rows.Err()
}

// guardOf returns what triggers make of a table.
func guardOf(triggers []listedTrigger) guardedTable {
	has := guardedTable{}
	for _, t := range triggers {
		event, _, _ := strings.Cut(strings.TrimPrefix(t.name, guardPrefix), "_")
		if strings.Contains(t.text, " BEFORE "+event+" ON ") && strings.Contains(t.text, " WHEN "+givenStaleSQL+"\n") {
			has[event] = t.name
		} else if has[event] == "" {
			has[event] = ""
		}
	}
	return has
}

// problem says what a table lets pass.
func (has guardedTable) problem() string {
	for _, event := range events {
		trigger, there := has[event]
		switch {
		case !there:
			return event + "s are not guarded: run fencepost guard install --table again"
		case trigger == "":
			return "its guard was altered, or is of another version: run fencepost guard remove --table, and then install"
		}
	}
	return ""
}

// byTrigger returns the refusal in an error of a guarded table, or nil. SQLite carries
// nothing but a text from a trigger, which is ours; of older versions it is one that has
// no token in it.
func byTrigger(err error) error {
	g := guard{register: true}
	refused := func(why error) error { return &fence.TokenError{Guard: g.String(), Err: why} }
	switch codeOf(err) {
	case lib.SQLITE_ERROR:
		if strings.Contains(err.Error(), "no such function: "+TokenFunction) {
			return refused(fence.ErrMissing)
		}
		return nil
	case lib.SQLITE_CONSTRAINT_TRIGGER:
	default:
		return nil
	}
	_, text, _ := strings.Cut(err.Error(), "fencepost TKN")
	switch text, _, _ = strings.Cut(text, ":"); text {
	case "01":
		return &fence.Error{Guard: g.String()}
	case "02":
		return refused(fence.ErrMissing)
	case "03":
		return refused(fence.ErrMalformed)
	case "04":
		return refused(fence.ErrNeverIssued)
	}
	return nil
}
