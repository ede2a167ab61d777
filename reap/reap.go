package reap

import (
	"context"
	"errors"
	"time"

	"github.com/fencepost/fencepost/fence"
)

var (
	// ErrGone is what [Source.Delete] returns, wrapped or not, if the item was already
	// deleted. Return it only for an explicit answer, such as the code for "no such key"
	// of this very item. A refused request, a 403, a name that can't be resolved, a
	// timeout and a 404 of an unknown address are failures.
	ErrGone = errors.New("reap: already deleted")

	// ErrFailures means that a pass was given up after Policy.MaxFailures failures.
	ErrFailures = errors.New("reap: too many deletions failed")

	// ErrPolicy means that a policy or source can't be used. Its exit code is 78.
	ErrPolicy = errors.New("reap: the policy can't be used")

	// ErrFull is what the function given to [Create] returns, wrapped or not, if
	// there is no room for another item.
	ErrFull = errors.New("reap: no room for another item")
)

// An Item is one thing that a generation of the service has made.
type Item struct {
	// ID identifies the item in its source. Of several entries of one ID in a listing
	// only the newest counts.
	ID string `json:"id"`

	// Made is the token under which the item was made. An item with the zero token is
	// never deleted: nobody knows whose it is.
	Made fence.Token `json:"made"`

	// At is when the item was made, by any clock that agrees with this host's to
	// within much less than Policy.MinAge. An item without it is deleted only under
	// [NoMinAge].
	At time.Time `json:"at"`
}

// A Source lists and deletes the things of one kind. List and Delete are required.
// A pass calls one function at a time.
type Source struct {
	// List returns all items, in any order, those of the current generation too.
	List func(ctx context.Context) ([]Item, error)

	// Delete deletes an item. It returns nil if this call deleted it, [ErrGone] if it
	// was gone before, and a *[LimitedError] if the server refused because of too many
	// requests. Everything else counts as a failure, except a refusal of the token (an
	// error that matches fence.ErrFenced), which ends the pass.
	Delete func(ctx context.Context, item Item) error

	// Remaining returns the number of requests that the server still allows, as its
	// last answer said, or a negative number if it said nothing. It may be nil.
	Remaining func() int
}

// A Conflict says what a pass does when it learns that another reaper is at work,
// which is when Delete returns [ErrGone].
type Conflict int

const (
	// Yield stops: another reaper is deleting the same items in the same order. It is
	// the default, and right for tools that clean up in passing.
	Yield Conflict = iota

	// Refresh waits, lists anew and goes on until no item is left to delete. It is for
	// a command whose user wants everything gone.
	Refresh

	// StopUnderLimit waits, and stops if fewer than Policy.Limit items are left;
	// otherwise it lists anew, and goes on if there are still as many. It is for a
	// process that only needs room for one more item.
	StopUnderLimit
)

func (c Conflict) String() string {
	switch c {
	case Yield:
		return "yield"
	case Refresh:
		return "refresh"
	case StopUnderLimit:
		return "stop-under-limit"
	default:
		return "unknown"
	}
}

// Pass deletes the items of src that generations below that of now have left behind,
// the oldest first. Now is the token under which the caller works: that of its catalog,
// or, in a tool that holds none, the newest one as catalog.NewestToken reads it.
//
// The report is valid whether or not there is an error. The error is nil if the pass
// came to an end of its own, even if single deletions failed: the report lists those.
// Otherwise it is the policy's (matching [ErrPolicy]), the listing's, the cause of ctx,
// the refusal of a guard, or too many failures (matching [ErrFailures]).
//
// A pass may be run at any time and any number of times, also beside others.
func Pass(ctx context.Context, src Source, now fence.Token, p Policy) (Report, error) {
	p, err := p.withDefaults(src, now)
	if err != nil {
		return Report{Stopped: StoppedPolicy}, err
	}
	r := newRun(src, now, p)
	err = r.run(ctx)
	return r.result(), err
}
