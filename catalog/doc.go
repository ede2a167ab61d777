// Package catalog keeps the metadata of a service that must never have two
// writers, in a log that only the holder of the newest token can append to.
//
// [Open] installs a token, (generation, epoch), in the same atomic commit as
// the migrations that the build needs. Every later commit is conditional on the
// head being exactly the one that this process last saw. Whoever holds a lower
// token than the store's can commit nothing from then on, and is told why: a
// higher generation superseded it, or another process of its own generation
// fenced it.
//
//	Open ── claim (epoch+1) ──► holder ── Update, View, Confirm ──► fenced ─► ended
//	Follow ── reads along, writes nothing ──► Follower.Open ── claim ──► holder
//
// The rules are written once, here, above the stores:
//
//	which token wins              package fence
//	what happens on open          open.go
//	what the newest head means    verdict.go
//	who may read which data       version.go
//	a commit, and its fate        commit.go
//	a token raised by a tool      raise.go
//	what to ask before a deploy   preflight.go
//
// # What is promised
//
// A commit lands only under the token that is the newest at that instant. One
// that was acknowledged is in the log exactly once, one whose outcome is
// unknown at most once, and one that failed is never in it, later either.
// Nothing of an older token is ever ordered behind a claim that was
// acknowledged.
//
// # What is not decided here
//
// Who should claim, and when: that is package leader's. What a process does
// about an error: that is package exitcodes', which asks the error. And no
// decision reads a clock out of the store.
package catalog
