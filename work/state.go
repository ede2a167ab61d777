package work

import "time"

// A State is what a job does. It is derived from the job, the token, the kinds and
// the time, and stored nowhere.
type State string

// The states of a live job. A job has the first one that applies.
const (
	Broken    State = "broken"    // its entries can't be read
	Unknown   State = "unknown"   // the holder does not know its kind
	Stranded  State = "stranded"  // it is pinned to a generation or member that does not hold the token
	Running   State = "running"   // under the token
	Orphan    State = "orphan"    // it was running under an older token
	Blocked   State = "blocked"   // behind an older job of its key, or behind a run of its key
	Scheduled State = "scheduled" // for a time to come
	Backoff   State = "backoff"   // it waits for its retry
	Waiting   State = "waiting"   // it may run now
)

// States returns every state, in the order in which they apply.
func States() []State {
	return []State{Broken, Unknown, Stranded, Running, Orphan, Blocked, Scheduled, Backoff, Waiting}
}

// state returns what an item does.
func (b *book) state(it *item, now time.Time) State {
	switch l := it.lane; {
	case it.spoilt:
		return Broken
	case !it.shelf.known:
		return Unknown
	case it.stray:
		return Stranded
	case b.held[it.id] != nil:
		return Running
	case !it.run.Claim.IsZero():
		return Orphan
	case l != nil && b.blocked(it, l, now):
		return Blocked
	case it.later(now.UnixNano()):
		return Scheduled
	case it.until > now.UnixNano():
		return Backoff
	default:
		return Waiting
	}
}

// blocked reports whether an item has to wait for another one of its key.
func (b *book) blocked(it *item, l *lane, now time.Time) bool {
	if l.shelf.Order == Each {
		return l.items[0] != it
	}
	if it.later(now.UnixNano()) {
		return false
	}
	return l.active != nil || it.until <= now.UnixNano() && l.due() > now.UnixNano()
}
