// Package election decides what a process does in order to lead, and while it
// leads. A [Candidate] and a [Term] are state machines: each takes what its
// process has observed and returns one action. They have no clock, no goroutine
// and no I/O, so that a simulator can play them through any schedule.
//
//	observe ─► Candidate.Next ─► Wait | Examine | Promote | Ask | Claim | Resume
//	                                                                   │
//	observe ─► Term.Next ─► Raise | Work | Join | Offer | Withdraw | … ◄┘
//
// The promise: a process claims only over a vacant token, by promotion, or over
// a holder that has paused for it; and a holder that was asked works again only
// once the successor can no longer claim by what it was offered.
//
// # Failure detector
//
// A token is vacant if its holder has left, has offered it, was seen to have
// ended, or has sent no heartbeat for one lease and a twentieth. Silence is
// measured by this process's own clock, and only between two looks at the board
// that both succeeded. A claim over a silent holder is refused if a heartbeat has come
// since: it may have been under way for long.
//
// # Precedence
//
// A promoted generation claims before lower ones, for as long as a ready process of
// it was heard within the time of such a silence, or the promotion was. Within one
// generation, processes of higher priority come first. A holder that has ended its
// work for a successor in vain is left alone for a while, by that successor.
//
// # What is not decided here
//
// Which claim wins: package catalog asks the store. A wrong decision of this
// package costs another process a restart, and never safety.
package election
