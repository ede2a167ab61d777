// Package postgres keeps a catalog in a PostgreSQL database.
//
// A commit is one statement in one round trip: it moves the head row by
// compare-and-set and appends to the log, so that a writer whose head is no
// longer the newest changes nothing. A claim is one transaction that holds the
// head row from the moment it has read it until it commits, so that commits
// queue behind it instead of racing it. Nothing in either needs session state:
// a pooler in transaction mode may stand between: it is noticed when a
// connection is made, nothing is prepared then, and wake-ups come by polling
// alone. A call whose context ends sends the server a cancel request, at which
// PgBouncer before 1.21 may end (its issue 822): use a newer one.
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
//	token           a row for each catalog that only claims write, for guards,
//	                with the server's system identifier and timeline
//	NAME@TOKEN      a view for each catalog, which guarded transactions lock and
//	                claims rename; refused:NAME counts refusals (see guardSQL)
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
// # Which server it believes
//
// A claim stamps its token with the system identifier of the database cluster
// and the timeline on which it was made. A process start of the server is looked
// at once, before anything is read from it or committed there, and so is every
// claim of somebody else:
//
//	in recovery             retry: a standby may be behind
//	a timeline below one    retry: this server was left behind by a fail-over,
//	seen, or the stamp's    and another one took over
//	a timeline above the    goes on, and warns: the server was promoted, or
//	stamp's                 restored to a point in time, and what it had not
//	                        received is lost; the next claim stamps anew
//	another system          halt: a dump restored elsewhere, a logical copy, a
//	                        cluster that pg_upgrade made, or the wrong host
//
// A copy on another system may be older than the tokens that were issued, and
// its original may go on: that only a person can know. So nothing but a claim
// under [driver.Adopting] goes on there, which is what "fencepost restored"
// makes. A commit lands on no server process but the one looked at last, on
// whichever connection it goes out.
//
// A new connection is identified by the round trip that looks for a pooler, and
// refused if its server is in recovery, on a lower timeline than one seen, or of
// another system than the newest claim's; pgx then tries the next host of the DSN.
// A connection to a server that is found to be the wrong one later, or that answers
// that it takes no writes any more (25006), is closed when it is taken out of its
// pool. Connections to other servers stay. Behind a pooler another server may answer
// each statement, so that each of them looks.
//
// If the DSN names several hosts, all of them are looked at in parallel before each
// connection is made and before each claim, for Config.LookTimeout at most: a
// process that was stopped during a fail-over finds the new primary, though the
// old one answers too. The highest timeline that answers is the store. A
// lower one that takes writes is logged as an error. Two primaries on the same
// timeline, or hosts of two systems, keep every claim back.
//
// A process that remembers nothing can't tell what an asynchronous fail-over
// lost: it meets an older token, and hears the warning. Whoever remembers more,
// holder or follower, ends with catalog.ErrLostCommit.
//
// # Wake-ups
//
// A claim is announced by NOTIFY behind its commit, in a statement of its own
// that nobody waits for. One that fails, such as because another user of the
// server has left its queue of notifications full, is logged as a warning;
// watchers then find the claim by polling.
//
// # What it needs
//
// Seven connections for a process, however many catalogs it holds; see [Server].
// PostgreSQL 14 or newer. Beyond one machine, synchronous standbys: a
// fail-over to an asynchronous one loses what it had not received. A commit
// never runs with synchronous_commit off, whatever the database says.
//
// The package does not decide which token wins, does not retry a write and
// does not settle an unknown outcome: package catalog does.
package postgres
