package postgres

import (
	"github.com/fencepost/fencepost/catalog/driver"
)

// A verdict is what an SQLSTATE means to a catalog.
type verdict struct {
	class driver.Class

	// doubtful: even as an answer of severity ERROR it does not prove that a
	// write was rolled back, because a pooler may have made it up, or because
	// the server was in trouble when it gave it.
	doubtful bool

	is error // the sentinel of package driver that the error is, or nil
}

// lookUp returns the verdict on a code: its own, or its class's, which is its
// first two characters. A code of an unknown class is a reason to panic.
func lookUp(code string) verdict {
	if v, ok := byCode(code); ok {
		return v
	}
	if len(code) == 5 {
		if v, ok := byClass(code[:2]); ok {
			return v
		}
	}
	return verdict{class: broken(report), doubtful: true}
}

const (
	otherSchema = "check that schema fencepost is this library's, complete, and of a version that this build knows"
	grantRights = "grant this user its rights: create on the database before the first claim, then all on schema fencepost and its tables; and execute on function pg_control_system() where that was revoked from public"
)

// byCode has the codes that mean something else than their class.
func byCode(code string) (verdict, bool) {
	switch code {
	case "08007", "40003": // transaction_resolution_unknown, statement_completion_unknown
		return verdict{class: retry(""), doubtful: true}, true
	case "25006": // read_only_sql_transaction: a standby, or a database made read-only
		return verdict{class: retry("let the DSN lead to the primary, and check default_transaction_read_only")}, true
	case "25P02", "25P03", "25P04": // aborted by an earlier error; by one of the server's time-outs
		return verdict{class: retry("")}, true
	case "26000", "42P05": // a pooler gave us another session: the next try does without prepared statements
		return verdict{class: retry("")}, true
	case "42501": // insufficient_privilege
		return verdict{class: misconfigured(grantRights)}, true
	case "42P01", "42703", "42704", "42883", "42P02": // a table, column, type or function that isn't there
		return verdict{class: misconfigured(otherSchema)}, true
	case "53100": // disk_full
		return verdict{class: retry("free or add disk space on the server"), is: driver.ErrFull}, true
	case "53300": // too_many_connections
		return verdict{class: retry("raise max_connections or close other sessions")}, true
	case "53400": // configuration_limit_exceeded
		return verdict{class: misconfigured("raise the server's limit that the text names")}, true
	case "55006", "55P03": // object_in_use, lock_not_available
		return verdict{class: retry("")}, true
	case "57P04": // database_dropped
		return verdict{class: misconfigured("create the database, or correct its name in the DSN")}, true
	case "58P03": // file_name_too_long, PostgreSQL 18
		return verdict{class: misconfigured(lookAtServer)}, true
	case "P0004": // assert_failure
		return verdict{class: broken(report)}, true
	case "XX001", "XX002": // data_corrupted, index_corrupted
		return verdict{class: broken("the server's data are corrupt: " + lookAtServer), doubtful: true, is: driver.ErrCorrupt}, true
	default:
		return verdict{}, false
	}
}

// byClass has a verdict for every class of PostgreSQL 14 to 18.
func byClass(class string) (verdict, bool) {
	switch class {
	case "00", "01", "02": // success, warning, no data: never errors
		return verdict{class: callers()}, true
	case "08": // connection exception: often a pooler's word
		return verdict{class: retry(""), doubtful: true}, true
	case "0A": // feature not supported: an old server, or not really PostgreSQL
		return verdict{class: misconfigured("use PostgreSQL 14 or newer")}, true
	case "0L", "0P", "28": // grantor, role, authorization
		return verdict{class: misconfigured("correct user and password, or the server's pg_hba.conf")}, true
	case "3D", "3F": // no such database, no such schema
		return verdict{class: misconfigured("create the database, or correct its name in the DSN")}, true
	case "10", "22", "38", "39", "44", "54", "P0": // what a caller's data, or somebody's trigger, can cause
		return verdict{class: callers()}, true
	case "23": // a constraint of our own tables
		return verdict{class: broken("somebody else wrote to schema fencepost"), is: driver.ErrCorrupt}, true
	case "40", "72": // rolled back: deadlock, serialization, snapshot too old
		return verdict{class: retry("")}, true
	case "53": // insufficient resources
		return verdict{class: retry("give the server more resources")}, true
	case "55": // not in the required state
		return verdict{class: misconfigured(lookAtServer)}, true
	case "57": // operator intervention: cancelled, shut down, starting up, idle too long
		return verdict{class: retry("")}, true
	case "58", "XX": // the server's system or the server itself is in trouble
		return verdict{class: halt(lookAtServer), doubtful: true}, true
	case "F0", "HV": // the server's configuration files, foreign data wrappers
		return verdict{class: misconfigured(lookAtServer)}, true
	case "03", "09", "0B", "0F", "0Z", "20", "21", "24", "25", "26", "27", "2B", "2D", "2F", "34", "3B", "42":
		return verdict{class: broken(report)}, true // our statements never cause these
	default:
		return verdict{}, false
	}
}
