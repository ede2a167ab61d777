package postgres

import (
	"slices"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/neterr"
)

// errorTable is the one place that says what an error means. Its order decides
// where an error is several things at once: what is ours, then what the server
// answered, then why there was no answer, from the narrow to the wide.
var errorTable = driver.Table{
	Store: "postgres",
	Families: []driver.Family{
		ours(), toldApart(), sqlstates(), ofPgx(),
		neterr.Certificates(remedies), neterr.Alerts(remedies), neterr.Context(), neterr.System(remedies), neterr.Network(remedies),
		aroundPgx(), neterr.Other(),
	},
}

// Errors returns what this driver knows about errors. Classification goes by
// the same table.
func Errors() driver.Table { return errorTable.Clone() }

var remedies = neterr.Remedies{
	TLS:     "check sslmode, sslrootcert and the certificates of both sides",
	Name:    "check the host's name in the DSN",
	Address: "correct host and port in the DSN, and the rights of this process",
	Start:   "start the server, or correct the socket's folder in the DSN",
}

const familyOfOurs = "driver"

const showRows = "disable row level security on the tables of schema fencepost, or give this role BYPASSRLS"

// ours are the errors of this package, and of package driver as it uses them.
func ours() driver.Family {
	const unknown, refused = driver.Unknown, driver.NotApplied
	is := neterr.Is
	return driver.Family{
		Name: familyOfOurs, Source: "this driver",
		Entries: []driver.Entry{
			is(driver.ErrConflict, "driver.ErrConflict", callers(), refused, "the condition did not hold; the newest head says what follows"),
			is(driver.ErrCompacted, "driver.ErrCompacted", callers(), refused, "the record was deleted, since a snapshot stands for it; that says what follows"),
			is(driver.ErrTooLarge, "driver.ErrTooLarge", callers(), refused, "the caller's value is above the limit, which is looked at before anything is sent"),
			is(driver.ErrCorrupt, "driver.ErrCorrupt", broken("stop every process of this service and restore the catalog, or find out who changed it"), unknown,
				"what was read is nothing that this library wrote"),
			is(driver.ErrBlocked, "driver.ErrBlocked", retry("end what blocks, such as by pg_terminate_backend, or wait for it"), refused,
				"another session holds the locks of a claim, and the text names it"),
			is(errClosed, "closed", callers(), unknown, "the caller closed it"),
			is(errServerClosed, "server closed", callers(), refused, "the caller closed it before it opened a catalog"),
			is(errEnded, "ended", callers(), unknown, "the caller ended the claim"),
			is(errMisuse, "misuse", broken(report), unknown, "a defect above the driver"),
			is(errCut, "cut wait", retry(""), unknown, "PostgreSQL committed here and calls that a success, but the wait for its standby was cut: the commit may be lost with this server"),
			is(errStandby, "standby", retry("let the DSN lead to the primary, such as by target_session_attrs=read-write"), unknown,
				"a server in recovery may show old data; a fail-over ends that"),
			is(errTimeline, "old timeline", retry("shut the old primary down, or let the DSN lead to the new one"), unknown,
				"a fail-over left this server behind, so that what it says is not the newest"),
			is(errElsewhere, "another system", misconfigured("correct the DSN if this is the wrong database; if it was restored, copied or upgraded on purpose, stop every process of the service and run `fencepost restored --above` with the highest token that was ever issued"), unknown,
				"another server than the one that issued the token has another history of tokens"),
			is(errSystems, "several systems", misconfigured(onlyOneCluster), refused, "of two clusters either may have the newest claim, and a claim on the wrong one makes a second writer"),
			is(errTwins, "two primaries", retry(shutTheCopyDown), refused, "neither says which of them has the newest commits; a claim would be unknown to the other one and its writers"),
			is(errMoved, "moved meanwhile", retry(""), unknown, "the server changed between two looks at it; the next look sees one"),
			is(errForeign, "foreign schema", misconfigured("use another database, or rename that schema"), unknown, "somebody else's schema has the name, and nothing of it is touched"),
			is(errHidden, "hidden rows", misconfigured(showRows), unknown, "a row that is hidden is no row that is missing: this role can't tell who claimed, and must not guess"),
			is(errVersion, "schema version", misconfigured("deploy a build that knows it"), unknown, "a build must not guess what another version's tables mean"),
			is(ErrNoGuards, "postgres.ErrNoGuards", misconfigured("run `fencepost guard install`, and let a process claim the catalog"), refused,
				"a database that an older build has made has no guards until they are installed, and a catalog has its lock from its next claim on"),
			is(ErrCopied, "postgres.ErrCopied", misconfigured("correct the DSN if this is the wrong database; if the service is to go on here, stop it and run `fencepost restored`, or `fencepost guard raise` for a register"), refused,
				"the token in a copy may be older than those that were issued, and its original may go on"),
			is(errTable, "no table to guard", misconfigured("name tables of the application's in the catalog's database"), refused, "triggers stand on ordinary and partitioned tables only"),
			is(errUnprepared, "unprepared pool", misconfigured("call postgres.Prepare with its configuration before pgxpool.NewWithConfig"), unknown,
				"without its notices a cut wait for a standby would pass for a success"),
		},
	}
}

// toldApart are answers that mean something else than their code alone.
func toldApart() driver.Family {
	ofOurs := driver.Line("23xxx in schema fencepost", "integrity violation of the catalog's own tables",
		broken("somebody else wrote to schema fencepost"), driver.NotApplied,
		"no value of a caller's can break a constraint of ours while head and log agree: somebody changed them by hand")
	ofOurs.Is = driver.ErrCorrupt
	ofOurs.Match = func(err error) bool {
		pg, ok := answerOf(err)
		return ok && strings.HasPrefix(pg.Code, "23") && pg.SchemaName == "fencepost"
	}
	hidden := driver.Line("42501 of row level security", "rows are hidden from this role", misconfigured(showRows), driver.NotApplied,
		"the driver has row level security refuse what it would hide, so that a missing row is never taken for one that never was")
	hidden.Match = func(err error) bool {
		pg, ok := answerOf(err)
		return ok && pg.Code == "42501" && (pg.Routine == "check_enable_rls" || pg.Routine == "ExecWithCheckOptions")
	}
	stale := driver.Line("0A000 of RevalidateCachedQuery", "cached plan must not change result type", retry(""), driver.NotApplied,
		"a table was altered under a prepared statement; pgx has forgotten the plan, and the next try prepares anew")
	stale.Match = func(err error) bool {
		pg, ok := answerOf(err)
		return ok && pg.Code == "0A000" && pg.Routine == "RevalidateCachedQuery"
	}
	return driver.Family{
		Name: "SQLSTATE and more", Source: "PostgreSQL and PgBouncer, where schema, routine or the moment tell apart what shares a code",
		Note:    severityNote,
		Entries: slices.Concat([]driver.Entry{ofOurs, hidden, stale}, refusals(), door()),
	}
}
