// Package postgres keeps a catalog in a PostgreSQL database.
//
// A commit is one statement in one round trip: it moves the head row by
// compare-and-set and appends to the log, so that a writer whose head is no
// longer the newest changes nothing. A claim is one transaction that holds the
// head row from the moment it has read it until it commits, so that commits
// queue behind it instead of racing it. Nothing in either needs session state:
// a pooler in transaction mode may stand between, at the price of polling.
//
// Invariant: whoever writes to fencepost.head has locked its row and found it
// as expected, in the same transaction that writes the log record.
//
// # What is in the database
//
// All is in schema fencepost, which the first write creates:
//
//	schema_version  one row: the version of these tables
//	head            a row for each catalog: revision, commit, claim (JSON)
//	token           a row for each catalog that only claims write, for guards
//	log             the commits, numbered from 1; a snapshot can stand for the first
//	snapshot        a row for each catalog that has one (JSON)
//	part            what is in the snapshots, in parts of 1 MiB at most
//	claim           every claim, in the same JSON, never compacted
//	board           notes
//
// Head, token and schema_version are frozen: every version of this package
// reads them. A build that does not know the schema's version still reads the
// head, and with it that it is superseded, and refuses everything else.
//
// The first write of a database holds a lock on making the schema until its
// transaction ends. So a first claim of one catalog blocks the first claims of
// all others in the same, still empty database for as long as it is under way,
// which ClaimIdle bounds where the claimer has stopped. From then on catalogs do
// not wait for each other.
//
// # What it needs
//
// PostgreSQL 14 or newer. Beyond one machine, synchronous standbys: a
// fail-over to an asynchronous one loses what it had not received. A commit
// never runs with synchronous_commit off, whatever the database says.
//
// The package does not decide which token wins, does not retry a write and
// does not settle an unknown outcome: package catalog does.
package postgres
