// Package reap deletes what superseded generations of a service have left behind, with
// many processes at it, and without a stampede.
//
// A [Pass] deletes only what a generation below the caller's has made. So a stale process
// that still cleans up is harmless by order: it can name nothing but things older than
// itself. Deletions outside of the catalog therefore need no guard. The process that holds
// the token is the one to run passes: it meets no other reaper, so each item is deleted by
// one call. Tools that hold no token may run them too, and processes that start.
//
// What must hold of a source: an item is labelled with the token under which it was made,
// and if a newer generation goes on using it, the label is renewed or Policy.InUse says so.
// InUse is asked right before the deletion, but not in one step with it.
//
// The package does not decide who holds the token, nor when passes run. No lease, heartbeat
// or clock makes it delete anything: time, by Policy.MinAge, only delays what the order of
// tokens allows.
//
// # What a pass does
//
// It lists the items once and deletes those that may be, the oldest first. It stops at the
// first one that is too young, since all others are younger. An item leaves the list before
// its deletion is tried, so that a pass never meets itself. Only [ErrGone] means that an
// item was already deleted; every other error is a failure, and Policy.MaxFailures of them
// stop the pass. The [Report] says what has become of each item, in sums that add up, how
// long the pass waited, for which reasons, and why it stopped.
//
// # Strategies
//
// ErrGone means that another reaper has listed the same items and is ahead. Policy.OnConflict
// says what follows.
//
//	Yield           stop: the other one goes on. Each reaper wastes one deletion at most.
//	Refresh         wait, list anew, go on until nothing is left to delete
//	StopUnderLimit  wait; stop if fewer than Limit items are left; else list anew and go on
//
// The one that was ahead has met no conflict, so it goes on at full speed. The waits of the
// others grow, and are random in part, so that two that collided once do not collide again at
// the same moment. No wait is under the lock of the host. Each one is told to Policy.OnWait
// before it begins.
//
// # One process of a host at a time
//
// With Policy.Lock the processes of one host take turns by a [HostLock]. If 60 of them begin
// at once, one lists and deletes; the others are skipped without a listing, either at once,
// by Policy.SkipIfLocked, or after waiting for a pass that began after they had asked. While
// one of them pauses, because the server refused it or to keep below a limit, the others do
// not ask the server either, for 15 minutes at most, and leave the list to it. A [Flight] does the same for a single call whose result all want.
//
// # The throttle
//
// A [Throttle] keeps many clients, who know nothing of each other, below a limit that they
// share. It pauses before each call, by the rule ProportionalRemainingDecrease of Heroku's
// rate_throttle_client:
//
//	a call was refused   pause = (pause + least) × 1.2, where least = Window / Limit
//	a call went through  pause = pause × (1 - remaining / Limit)
//
// The pause is multiplied before the wait and not behind it, and changes under a mutex. If the
// server does not say how much of its budget remains, 1 takes the place of remaining, which is
// ProportionalDecrease: as few refusals, but minutes until unused capacity is used.
// To each wait up to a tenth is added at random. A Retry-After is waited out by all calls of
// the throttle.
package reap
