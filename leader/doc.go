// Package leader runs a service's work in the one process that holds its
// catalog's token, and replaces that process by its next generation without a
// restart.
//
// A process goes through phases, which only move along these lines; every phase
// may also end as Superseded, Fenced, Stopped or Failed:
//
//	Initializing ─► CatchingUp ─► ReadyToPromote ─► Promoting ─► Leading
//	                    ▲                               │
//	                    └──── another was faster ───────┘
//
// A process of a higher generation than the catalog's reads along and waits, for
// ever, until its generation is promoted: by [Promote], by the command
// `fencepost promote` or by its own admin API. The intent is durable, so that a
// crash behind it loses nothing. Then it claims, in this process. A process of
// the generation that leads already is a standby: it waits until the holder has
// been silent for long enough, by its own clock, and counts only silence during
// which it could read the store. A process of a lower generation ends, as
// superseded. Where nobody ever claimed, the first process does at once.
//
// The work gets a context that ends, with the reason as its cause, as soon as
// the token is known to be lost. It is joined before anything else happens.
//
// # What is not decided here
//
// Which writes land: a holder that has not heard yet that it lost the token can
// commit nothing, because package catalog asks the store. Heartbeats only say
// when to try a claim; a wrong guess costs the other process a restart, and
// never safety. What the process does when [Leader.Run] returns is for package
// exitcodes.
package leader
