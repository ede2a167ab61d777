// Package leader runs a service's work in the one process that holds its
// catalog's token, and replaces that process, by a standby or by its next
// generation, without a restart.
//
// A process goes through phases, which only move along these lines; every phase
// may also end as Superseded, Fenced, Stopped or Failed:
//
//	                 ┌──── no longer caught up ───┐
//	                 ▼                            │
//	Initializing ─► CatchingUp ───────► ReadyToPromote ───────► Promoting
//	                 ▲ ▲                                         │    │
//	                 │ └──────── another was faster ─────────────┘    ▼
//	                 │                                    ┌───────► Leading ◄──────┐
//	                 │                       nobody claimed           │            │ confirmed
//	                 │                                    │           ├──────► Unconfirmed
//	                 │                                    │           ▼            ▲
//	                 └──── a standby took over ──────── HandingOver ───────────────┘
//
// Holding the token and serving are two facts: HandingOver and Unconfirmed hold
// it, as far as is known, and run no work. A holder that has lost the token, or is
// to stop, is Draining until its work has returned: it does not serve.
//
// # Deploy
//
// A process of a higher generation than the catalog's reads along, rehearses
// its migrations on the real data, and is ready once Config.Prepare says that it
// could serve, and Config.CaughtUp has said for long enough that it has caught up.
// Then it waits, for ever, until its generation is
// promoted: by [Promote], by the command `fencepost promote` or by its own admin
// API. The intent is durable, so that a crash behind it loses nothing, and it is
// a part of the claim's condition, so that of an [Abort] and the claim exactly
// one wins. Before it is ready it reserves the number of its generation, so that
// no other release is given it, and [Promote] takes it for no typing error. Before
// the claim the migrations are rehearsed again if commits have changed what they
// read; if not, the claim installs what they did. A process of a lower generation
// ends, as superseded. If nobody ever claimed, the first process claims at once.
//
// # Handover
//
// Before it claims, a process asks the holder to hand over. The holder acknowledges
// at once, ends its work, joins it, writes an offer to the board and replies with the
// revision up to which it has committed. So work ends before the token is given up,
// never after. The successor asks again everything that made it ready, and claims on
// condition that the offer stands; its progress keeps the handover open. A holder
// that does not acknowledge within AcknowledgeTimeout, or whose work does not end
// within HandoverTimeout, is fenced. If the claim fails or does not come, the holder
// withdraws the offer, and only then goes on under the token that it never lost.
// [Leader.StepDown] takes the same way towards any standby.
//
// # Failover
//
// A process of the generation that leads already is a standby. The holder renews
// its lease every third of Lease by a sign of life on the board, conditional on
// its claim; it believes its token for one Lease from when a renewal was sent.
// A standby claims once it has heard nothing for a Lease and a twentieth, by its
// own clock, from an answer in which it saw the last sign of life, and counts
// only time during which it could read the store. When the lease lapses the work
// is cancelled; when the store answers again and the token is still held, it goes
// on, under the same token.
//
// A process that is proven to have ended is replaced sooner. There are three proofs.
// The heartbeat names the holder's process by boot, host name, pid namespace, pid and
// start time: a process of the same pid namespace is told of its end by the kernel,
// and one that starts afterwards finds at its first look that it is gone. A supervisor
// that has waited for the holder says so to the process that it starts. And standbys
// keep a connection to the holder, on which both prove that they know the claim: a
// holder whose connection is lost, and whose address refuses another one, has ended,
// since it closes that listener last. A loopback address counts within one boot and
// one network of one host.
//
// A token that a tool has raised, as `fencepost fence` does, has no holder, and a
// standby claims at once. Everything else, such as a connection that breaks or a pid
// that can't be seen, proves nothing. A proof is kept over a claim that failed. A
// standby whose claim comes too late goes on waiting: a claim names the claim whose
// silence it judged, and is refused over any other, and if a heartbeat has come since.
//
// The defaults: a Lease of 7.5 s is longer than three elections of an etcd, of
// at most 2 s each, so that neither those nor the restart of a database are taken
// for a loss; a host that vanishes costs as much. A dead process costs some
// milliseconds, a promotion the time to finish what is under way and one claim.
//
// # Members
//
// Every process keeps a note on the board that says who it is and whether it could
// lead: see [Member]. It writes the note when something changes, at most once a second,
// and otherwise once a lease, and removes it when it ends; the holder removes those that
// have not changed for three leases. Each heartbeat says whether the holder serves: see
// [StandingOf]. Nothing rests on either.
//
// # Clocks
//
// No decision reads the wall clock, or a time that stands in the store. The
// lease is measured by the boot-time clock, which goes on while the host is
// suspended: a process that wakes up knows at its first look that its lease is
// over, and its work is cancelled within a thirtieth of Lease. A virtual machine
// that is paused, or resumed from a snapshot, may not see the time that has
// passed, by any clock of its own: it may believe its lease until it hears from
// the store, and like every zombie it can commit nothing.
//
// # What is not decided here
//
// Which writes land: a holder that has not heard yet that it lost the token can
// commit nothing, because package catalog asks the store. Heartbeats, proofs
// of a death and offers only say when to try a claim; a wrong guess costs the other
// process a restart, and never safety. What the process does when [Leader.Run] returns
// is for package exitcodes.
package leader
