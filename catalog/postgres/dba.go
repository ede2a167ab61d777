package postgres

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// Schema returns the statements that the first use of a database would run, for
// whoever keeps that right to himself: they are to be run once, in one
// transaction, by a role that may create a schema. Where role is not empty,
// they also give that role the least rights that a catalog needs, to all
// catalogs of the database; it must exist, and can't create or drop anything. If
// writer is not empty, that role may guard transactions ([Begin], [Guard]). A role
// that only writes to tables which the database guards needs no rights here.
func Schema(role, writer string) string {
	var b strings.Builder
	b.WriteString("begin;\n")
	b.WriteString(createSQL + ";" + tablesSQL + guardSQL)
	if role != "" {
		b.WriteString("\n" + strings.ReplaceAll(grantSQL, "ROLE", pgx.Identifier{role}.Sanitize()))
	}
	if writer != "" {
		b.WriteString("\ngrant usage on schema fencepost to " + pgx.Identifier{writer}.Sanitize() + ";\n")
	}
	b.WriteString("commit;\n")
	return b.String()
}

// grantSQL is what a holder, a follower and the command need, besides the
// function pg_control_system, which every role may call unless that was revoked.
// The history of claims is only ever added to; from the log and the parts a
// holder deletes what a newer snapshot stands for, and changes no record.
const grantSQL = `grant usage on schema fencepost to ROLE;
grant select on fencepost.schema_version to ROLE;
grant select, insert, update on fencepost.head, fencepost.token, fencepost.snapshot to ROLE;
grant select, insert on fencepost.claim to ROLE;
grant select, insert, delete on fencepost.log to ROLE;
grant select, insert, update, delete on fencepost.part, fencepost.board to ROLE;
grant execute on function fencepost.await_guards(text), fencepost.raise(text, bigint, bigint, text) to ROLE;
`
