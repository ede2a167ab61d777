package postgres

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A setting is one that a role or a database may have changed for every session,
// and the value that this driver needs.
type setting struct{ name, value string }

// sessionSettings are those of the driver's own connections. With the settings of
// a role or a database the server could cancel a statement or end a session that
// the driver bounds itself, call another function or operator than PostgreSQL's,
// hide rows without an error, or take seconds over a statement.
//
// Left as they are: default_transaction_read_only, by which an operator or a
// provider stops writing; synchronous_commit and client_min_messages, which a
// commit raises itself;
// idle_in_transaction_session_timeout, which a claim sets for itself (see bounds).
func sessionSettings() []setting {
	return []setting{
		{"search_path", "pg_catalog"},
		{"row_security", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"transaction_timeout", "0"}, // from PostgreSQL 17 on
		{"idle_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"exit_on_error", "off"}, // which would end the session that finds no schema yet
		{"jit", "off"},           // compiling takes longer than a commit may
	}
}

// setOne sets a setting of the session, unless the server doesn't know it.
func setOne(s setting) string {
	return "select pg_catalog.set_config('" + s.name + "', '" + s.value + "', false) where pg_catalog.current_setting('" + s.name + "', true) is not null;"
}

// ownSession has each connection made by config begin with the driver's settings,
// but for those that the DSN names, and without another encoding or format of
// dates. Behind a pooler no more than these two is set, since the session is not
// this process's. The connections of a pool that was handed in are the
// application's and stay as they are; what could stop a claim is set in its
// transaction, too.
func ownSession(config *pgconn.Config) {
	params := config.RuntimeParams
	for name, value := range map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO"} { // which every pooler knows
		if !inDSN(params, name) {
			params[name] = value
		}
	}
	var sql strings.Builder
	for _, s := range sessionSettings() {
		if !inDSN(params, s.name) {
			sql.WriteString(setOne(s))
		}
	}
	before := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		if err := before(ctx, c); err != nil || pooled(c) {
			return err
		}
		_, err := c.Exec(ctx, sql.String()).ReadAll()
		return err
	}
}

// inDSN reports whether the DSN says what a setting is to be.
func inDSN(params map[string]string, setting string) bool {
	for name, value := range params {
		if strings.EqualFold(name, setting) || name == "options" && strings.Contains(value, setting) {
			return true
		}
	}
	return false
}
