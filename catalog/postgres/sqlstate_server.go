package postgres

import (
	"slices"

	"github.com/fencepost/fencepost/catalog/driver"
)

func syntax() []driver.Entry {
	return slices.Concat(
		because(": our statements are fixed and tested on every version, so one of us two is broken", states(broken(report), driver.NotApplied,
			coded{"42000", "syntax_error_or_access_rule_violation", "a statement can't be run as it stands"},
			coded{"42601", "syntax_error", "a statement can't be read"},
			coded{"42846", "cannot_coerce", "a type can't become another"},
			coded{"42803", "grouping_error", "a column is neither grouped nor aggregated"},
			coded{"42P20", "windowing_error", "a window stands where none may"},
			coded{"42P19", "invalid_recursion", "a recursion can't end"},
			coded{"42830", "invalid_foreign_key", "a foreign key names no key"},
			coded{"42602", "invalid_name", "a name is not valid"},
			coded{"42622", "name_too_long", "a name is too long"},
			coded{"42939", "reserved_name", "a name is reserved"},
			coded{"42804", "datatype_mismatch", "a value is of another type than its column"},
			coded{"42P18", "indeterminate_datatype", "a parameter has no type"},
			coded{"42P21", "collation_mismatch", "two collations meet"},
			coded{"42P22", "indeterminate_collation", "no collation is given"},
			coded{"42809", "wrong_object_type", "a name belongs to another kind of object"},
			coded{"428C9", "generated_always", "a value was given for a generated column"},
			coded{"42701", "duplicate_column", "a column is named twice"},
			coded{"42P03", "duplicate_cursor", "there is such a cursor already"},
			coded{"42P04", "duplicate_database", "there is such a database already"},
			coded{"42723", "duplicate_function", "there is such a function already"},
			coded{"42P06", "duplicate_schema", "there is such a schema already, although it was looked for before"},
			coded{"42P07", "duplicate_table", "there is such a table already, although its schema was created just before"},
			coded{"42712", "duplicate_alias", "an alias is used twice"},
			coded{"42710", "duplicate_object", "there is such an object already"},
			coded{"42702", "ambiguous_column", "a column's name means two"},
			coded{"42725", "ambiguous_function", "a function's name means two"},
			coded{"42P08", "ambiguous_parameter", "a parameter has two types"},
			coded{"42P09", "ambiguous_alias", "an alias means two"},
			coded{"42P10", "invalid_column_reference", "ON CONFLICT or ORDER BY names no such column or key"},
			coded{"42611", "invalid_column_definition", "a column is defined wrongly"},
			coded{"42P11", "invalid_cursor_definition", "a cursor is defined wrongly"},
			coded{"42P12", "invalid_database_definition", "a database is defined wrongly"},
			coded{"42P13", "invalid_function_definition", "a function is defined wrongly"},
			coded{"42P14", "invalid_prepared_statement_definition", "a prepared statement is defined wrongly"},
			coded{"42P15", "invalid_schema_definition", "a schema is defined wrongly"},
			coded{"42P16", "invalid_table_definition", "a table is defined wrongly"},
			coded{"42P17", "invalid_object_definition", "an object is defined wrongly"})),
		states(misconfigured(grantRights), driver.NotApplied,
			coded{"42501", "insufficient_privilege", "this user lacks a right, and only a grant helps"}),
		because(": the schema is not this library's, not complete, or was made for another version", states(misconfigured(otherSchema), driver.NotApplied,
			coded{"42703", "undefined_column", "a column of ours is not there"},
			coded{"42883", "undefined_function", "a function or operator that we use is not there"},
			coded{"42P01", "undefined_table", "a table of ours is not there"},
			coded{"42P02", "undefined_parameter", "a parameter of ours is not there"},
			coded{"42704", "undefined_object", "a type or object that we use is not there"})),
		states(retry(""), driver.NotApplied,
			coded{"42P05", "duplicate_prepared_statement", "a pooler gave us somebody else's session; the next try prepares nothing"}))
}

func resources() []driver.Entry {
	return slices.Concat(
		states(retry("give the server more resources"), driver.NotApplied,
			coded{"53000", "insufficient_resources", "the server ran short of something, and rolled back"},
			coded{"53200", "out_of_memory", "the server ran short of memory for this statement, and rolled back; other sessions end and free some"}),
		is(driver.ErrFull, states(retry("free or add disk space on the server"), driver.NotApplied,
			coded{"53100", "disk_full", "no room for the write, which was rolled back; it lands once there is some"})),
		states(retry("raise max_connections or close other sessions"), driver.NotApplied,
			coded{"53300", "too_many_connections", "every connection is taken; sessions end"}),
		states(misconfigured("raise the server's limit that the text names"), driver.NotApplied,
			coded{"53400", "configuration_limit_exceeded", "a limit of the server's configuration, which only its owner raises"}),
		states(retry("if the text names wraparound: VACUUM the oldest database, end old transactions, prepared transactions and replication slots"), driver.NotApplied,
			coded{"54000", "program_limit_exceeded", "a limit of PostgreSQL itself; the one that a catalog meets is that no transaction ids are given out any more, to avoid a wraparound"}),
		because(": what was asked for is more than the server ever takes, and only this call asked for it", states(callers(), driver.NotApplied,
			coded{"54001", "statement_too_complex", "a statement is nested too deeply"},
			coded{"54011", "too_many_columns", "a table has too many columns"},
			coded{"54023", "too_many_arguments", "a function has too many arguments"})),
		states(misconfigured(lookAtServer), driver.NotApplied,
			coded{"55000", "object_not_in_prerequisite_state", "the server is not set up for what was asked"},
			coded{"55P02", "cant_change_runtime_param", "the DSN sets what only the server's configuration may"},
			coded{"55P04", "unsafe_new_enum_value_usage", "of an enum that was changed just now; our tables have none"}),
		states(retry(""), driver.NotApplied,
			coded{"55006", "object_in_use", "somebody else uses it for now"},
			coded{"55P03", "lock_not_available", "a lock was not free in time: somebody else holds the head or the claim, and the statement was rolled back"}))
}

// interventions rolled the transaction back where they come as an ERROR. A
// shutdown is FATAL, and can come while a commit waits for its standby.
func interventions() []driver.Entry {
	return slices.Concat(states(retry(""), driver.NotApplied,
		coded{"57000", "operator_intervention", "somebody stepped in, and the statement was rolled back"},
		coded{"57014", "query_canceled", "cancelled by a time-out, an administrator or our own deadline, and rolled back"},
		coded{"57P01", "admin_shutdown", "the server shuts down or the session was terminated: FATAL, so that a commit just sent may stand"},
		coded{"57P02", "crash_shutdown", "another session crashed and the server restarts all: FATAL, so that a commit just sent may stand"},
		coded{"57P03", "cannot_connect_now", "the server starts up, shuts down or recovers; it takes connections soon"},
		coded{"57P05", "idle_session_timeout", "the server ended a session that had nothing to do"}),
		states(misconfigured(createIt), driver.NotApplied,
			coded{"57P04", "database_dropped", "the database was dropped under us; making another is not for us to do"}))
}

// servers is about a server in trouble: what it says then of a write proves
// nothing.
func servers() []driver.Entry {
	return slices.Concat(
		states(halt(lookAtServer), driver.Unknown,
			coded{"58000", "system_error", "the server's system failed under it"},
			coded{"58030", "io_error", "the server could not read or write its disk; what it wrote before may stand"},
			coded{"58P01", "undefined_file", "a file of the server's is not there"},
			coded{"58P02", "duplicate_file", "a file of the server's is there already"},
			coded{"XX000", "internal_error", "the server found itself where it should not be; a new session may do better, this one is not to be trusted"}),
		states(misconfigured(lookAtServer), driver.NotApplied,
			coded{"58P03", "file_name_too_long", "a path in the server's configuration is too long, from PostgreSQL 18 on"},
			coded{"F0000", "config_file_error", "the server's configuration can't be read"},
			coded{"F0001", "lock_file_exists", "another server runs on the same data"}),
		is(driver.ErrCorrupt, states(broken("the server's data are corrupt: "+lookAtServer), driver.Unknown,
			coded{"XX001", "data_corrupted", "a page can't be trusted, nor then what was read or written beside it"},
			coded{"XX002", "index_corrupted", "an index can't be trusted, so that a condition may have been judged by a wrong row"})))
}

func foreign() []driver.Entry {
	return because(": the catalog's tables are not local ones, and a foreign table is no place for a fence", states(misconfigured(lookAtServer), driver.NotApplied,
		coded{"HV000", "fdw_error", "a foreign server failed"},
		coded{"HV005", "fdw_column_name_not_found", "a foreign table lacks a column"},
		coded{"HV002", "fdw_dynamic_parameter_value_needed", "a foreign server wants a parameter"},
		coded{"HV010", "fdw_function_sequence_error", "a foreign server was asked out of turn"},
		coded{"HV021", "fdw_inconsistent_descriptor_information", "a foreign table's columns contradict each other"},
		coded{"HV024", "fdw_invalid_attribute_value", "a foreign attribute is not valid"},
		coded{"HV007", "fdw_invalid_column_name", "a foreign column's name is not valid"},
		coded{"HV008", "fdw_invalid_column_number", "a foreign column's number is not valid"},
		coded{"HV004", "fdw_invalid_data_type", "a foreign column's type is not valid"},
		coded{"HV006", "fdw_invalid_data_type_descriptors", "a foreign column's type is described wrongly"},
		coded{"HV091", "fdw_invalid_descriptor_field_identifier", "a foreign field is not known"},
		coded{"HV00B", "fdw_invalid_handle", "a foreign handle is not valid"},
		coded{"HV00C", "fdw_invalid_option_index", "a foreign option's place is not valid"},
		coded{"HV00D", "fdw_invalid_option_name", "a foreign option's name is not valid"},
		coded{"HV090", "fdw_invalid_string_length_or_buffer_length", "a foreign text's length is not valid"},
		coded{"HV00A", "fdw_invalid_string_format", "a foreign text's form is not valid"},
		coded{"HV009", "fdw_invalid_use_of_null_pointer", "a foreign wrapper used nothing as something"},
		coded{"HV014", "fdw_too_many_handles", "a foreign wrapper has too many handles"},
		coded{"HV001", "fdw_out_of_memory", "a foreign wrapper ran short of memory"},
		coded{"HV00P", "fdw_no_schemas", "a foreign server has no schemas"},
		coded{"HV00J", "fdw_option_name_not_found", "a foreign option does not exist"},
		coded{"HV00K", "fdw_reply_handle", "a foreign answer has no handle"},
		coded{"HV00Q", "fdw_schema_not_found", "a foreign schema does not exist"},
		coded{"HV00R", "fdw_table_not_found", "a foreign table does not exist"},
		coded{"HV00L", "fdw_unable_to_create_execution", "a foreign statement could not be begun"},
		coded{"HV00M", "fdw_unable_to_create_reply", "a foreign answer could not be made"},
		coded{"HV00N", "fdw_unable_to_establish_connection", "a foreign server could not be reached"}))
}
