package postgres

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/catalog/driver"
)

// sqlstates is every code of PostgreSQL 14 to 18. A code that is newer than
// this table goes by its class, its first two characters: the SQL standard has
// the subclass 000 for "nothing more to say", so that entry speaks for it.
//
// Not applied means: as an answer of severity ERROR to the write itself. An
// answer of any other severity leaves the outcome open; see outcome.
func sqlstates() driver.Family {
	return driver.Family{
		Name:   "SQLSTATE",
		Source: "PostgreSQL 14 to 18, errcodes.txt",
		Note:   severityNote,
		Entries: slices.Concat(notErrors(), connections(), unsupported(), calls(), data(), integrity(), transactions(),
			access(), routines(), syntax(), resources(), interventions(), servers(), foreign()),
		Key: func(err error) (string, bool) {
			if pg, ok := answerOf(err); ok {
				return pg.Code, true
			}
			return "", false
		},
		Class: classOf,
	}
}

const severityNote = "The outcome is that of an answer of severity ERROR to the write itself. " +
	"With any other severity, such as FATAL, the session ended over it, and the outcome is unknown."

// answerOf returns the server's answer in err.
func answerOf(err error) (*pgconn.PgError, bool) {
	var pg *pgconn.PgError
	return pg, errors.As(err, &pg) && pg != nil
}

// classOf returns the code that stands for the class of a code.
func classOf(code string) (string, bool) {
	other := func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') }
	if len(code) != 5 || strings.ContainsFunc(code, other) {
		return "", false
	}
	return code[:2] + "000", true
}

// A coded is one code, of several that mean the same.
type coded struct{ code, name, why string }

func states(class driver.Class, after driver.Outcome, rows ...coded) (entries []driver.Entry) {
	for _, r := range rows {
		entries = append(entries, driver.Line(r.code, r.name, class, after, r.why))
	}
	return entries
}

// is says which error of package driver the entries are besides.
func is(err error, entries []driver.Entry) []driver.Entry {
	for i := range entries {
		entries[i].Is = err
	}
	return entries
}

// because puts the same end to the reasons of all entries.
func because(end string, entries []driver.Entry) []driver.Entry {
	for i := range entries {
		entries[i].Why += end
	}
	return entries
}

const (
	otherSchema = "check that schema fencepost is this library's, complete, and of a version that this build knows"
	grantRights = "grant this user its rights: create on the database before the first claim, then all on schema fencepost and its tables; membership of the owner of tables that it is to guard; and execute on function pg_control_system() where that was revoked from public"
	createIt    = "create the database, or correct its name in the DSN"
	credentials = "correct user and password, or the server's pg_hba.conf"
)

func notErrors() []driver.Entry {
	return because(": no error by its class, so that only somebody's trigger can have raised it as one", states(callers(), driver.NotApplied,
		coded{"00000", "successful_completion", "it says that all is well"},
		coded{"01000", "warning", "a warning"},
		coded{"0100C", "dynamic_result_sets_returned", "a warning about a routine's results"},
		coded{"01008", "implicit_zero_bit_padding", "a warning about a bit string"},
		coded{"01003", "null_value_eliminated_in_set_function", "a warning about an aggregate"},
		coded{"01007", "privilege_not_granted", "a warning about a grant"},
		coded{"01006", "privilege_not_revoked", "a warning about a revoke"},
		coded{"01004", "string_data_right_truncation", "a warning about a text that was cut"},
		coded{"01P01", "deprecated_feature", "a warning about an old feature"},
		coded{"02000", "no_data", "it says that no row was found"},
		coded{"02001", "no_additional_dynamic_result_sets_returned", "it says that no result follows"}))
}

// connections are often a pooler's word, which proves nothing of the server.
func connections() []driver.Entry {
	return slices.Concat(states(retry(""), driver.Unknown,
		coded{"08000", "connection_exception", "the connection failed; poolers use the class for troubles of their own, behind which the write may have landed"},
		coded{"08003", "connection_does_not_exist", "the session was gone; whether it took the write along, nobody says"},
		coded{"08006", "connection_failure", "the connection broke, perhaps behind a pooler and after the write"},
		coded{"08001", "sqlclient_unable_to_establish_sqlconnection", "no connection came to be, as seen by a pooler; it comes back with the server"},
		coded{"08004", "sqlserver_rejected_establishment_of_sqlconnection", "a pooler or a full server takes no connection now"},
		coded{"08007", "transaction_resolution_unknown", "it says itself that the outcome is unknown"},
		coded{"08P01", "protocol_violation", "PgBouncer's code for its own failures, such as a lost server or a full queue; they pass. What it says while it lets a connection in has entries of its own"}))
}

func unsupported() []driver.Entry {
	return slices.Concat(states(misconfigured("use PostgreSQL 14 or newer, and no server that only speaks its protocol"), driver.NotApplied,
		coded{"0A000", "feature_not_supported", "an old server, or not really PostgreSQL: it fails the same way at each attempt"}),
		states(misconfigured(credentials), driver.NotApplied,
			coded{"0L000", "invalid_grantor", "the role may not grant: its rights are not what the schema was made with"},
			coded{"0LP01", "invalid_grant_operation", "the role may not grant that: its rights are not what the schema was made with"},
			coded{"0P000", "invalid_role_specification", "the role that was asked for does not exist"}))
}

// calls are mistakes in a statement's use that our statements don't make.
func calls() []driver.Entry {
	return because(": none of our statements does that, and trying again changes nothing", states(broken(report), driver.NotApplied,
		coded{"03000", "sql_statement_not_yet_complete", "a statement was used before it was whole"},
		coded{"09000", "triggered_action_exception", "a trigger's action failed"},
		coded{"0B000", "invalid_transaction_initiation", "a transaction was begun within another's function"},
		coded{"0F000", "locator_exception", "a locator of a large object was misused"},
		coded{"0F001", "invalid_locator_specification", "a locator of a large object names nothing"},
		coded{"0Z000", "diagnostics_exception", "a routine asked for diagnostics in a wrong way"},
		coded{"0Z002", "stacked_diagnostics_accessed_without_active_handler", "a routine asked for diagnostics outside its handler"},
		coded{"20000", "case_not_found", "a CASE of a routine had no branch for its value"},
		coded{"21000", "cardinality_violation", "a subquery gave more rows than one, or one row was to be changed twice"},
		coded{"24000", "invalid_cursor_state", "a cursor was used that is not open"},
		coded{"27000", "triggered_data_change_violation", "a trigger changed the row that it was called for"},
		coded{"2B000", "dependent_privilege_descriptors_still_exist", "rights were to be removed on which others rest"},
		coded{"2BP01", "dependent_objects_still_exist", "something was to be dropped on which others rest"},
		coded{"34000", "invalid_cursor_name", "a cursor was named that does not exist"},
		coded{"3B000", "savepoint_exception", "a savepoint was misused"},
		coded{"3B001", "invalid_savepoint_specification", "a savepoint was named that does not exist"}))
}

func integrity() []driver.Entry {
	return because(", outside schema fencepost: a table of the application's or of a trigger's refuses this call, and was rolled back with it",
		states(callers(), driver.NotApplied,
			coded{"23000", "integrity_constraint_violation", "a constraint does not hold"},
			coded{"23001", "restrict_violation", "a row is still referred to"},
			coded{"23502", "not_null_violation", "a value is missing"},
			coded{"23503", "foreign_key_violation", "the row that is referred to does not exist"},
			coded{"23505", "unique_violation", "there is such a row already"},
			coded{"23514", "check_violation", "a value is not allowed"},
			coded{"23P01", "exclusion_violation", "a row stands in another's way"}))
}

func transactions() []driver.Entry {
	return slices.Concat(
		because(": our transactions are begun and ended by the driver alone", states(broken(report), driver.NotApplied,
			coded{"25000", "invalid_transaction_state", "the transaction is in a wrong state"},
			coded{"25001", "active_sql_transaction", "a transaction was under way where none may be"},
			coded{"25002", "branch_transaction_already_active", "a branch of the transaction was under way"},
			coded{"25008", "held_cursor_requires_same_isolation_level", "a held cursor wants another isolation"},
			coded{"25003", "inappropriate_access_mode_for_branch_transaction", "a branch has the wrong access mode"},
			coded{"25004", "inappropriate_isolation_level_for_branch_transaction", "a branch has the wrong isolation"},
			coded{"25005", "no_active_sql_transaction_for_branch_transaction", "a branch has no transaction"},
			coded{"25007", "schema_and_data_statement_mixing_not_supported", "schema and data were changed in one transaction, which PostgreSQL allows"},
			coded{"25P01", "no_active_sql_transaction", "no transaction was under way where one must be"},
			coded{"2D000", "invalid_transaction_termination", "a transaction was ended from within a function"})),
		states(retry("let the DSN lead to the primary, and check default_transaction_read_only"), driver.NotApplied,
			coded{"25006", "read_only_sql_transaction", "we reached a standby or a demoted primary; a fail-over ends that, and a server that takes no writes took none"}),
		states(retry(""), driver.NotApplied,
			coded{"25P02", "in_failed_sql_transaction", "an earlier statement failed and the transaction with it: all of it is rolled back"},
			coded{"25P03", "idle_in_transaction_session_timeout", "we stood still within a transaction, such as a stopped process, and the server ended it"},
			coded{"25P04", "transaction_timeout", "the server's limit for a transaction, from PostgreSQL 17 on: it was rolled back"},
			coded{"26000", "invalid_sql_statement_name", "a pooler gave us a session that does not know our prepared statement; the next try prepares none"},
			coded{"40000", "transaction_rollback", "the server says that it rolled back"},
			coded{"40001", "serialization_failure", "rolled back in favour of another transaction; trying again is what the server asks for"},
			coded{"40002", "transaction_integrity_constraint_violation", "rolled back over a constraint that is checked at the end"},
			coded{"40P01", "deadlock_detected", "rolled back to free another transaction from waiting for this one"},
			coded{"72000", "snapshot_too_old", "the server removed what the old snapshot needed, up to PostgreSQL 16; a new one has it"}),
		states(retry(""), driver.Unknown,
			coded{"40003", "statement_completion_unknown", "it says itself that the outcome is unknown"}))
}

func access() []driver.Entry {
	return slices.Concat(
		states(misconfigured(credentials), driver.NotApplied,
			coded{"28000", "invalid_authorization_specification", "pg_hba.conf has no line for this user, host and database, or the certificate names somebody else"},
			coded{"28P01", "invalid_password", "the password is wrong: knocking again can lock the account"}),
		states(misconfigured(createIt), driver.NotApplied,
			coded{"3D000", "invalid_catalog_name", "there is no such database; making one is not for us to do"},
			coded{"3F000", "invalid_schema_name", "there is no such schema, where there was one"}))
}
