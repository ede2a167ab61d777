// Package driver defines what a store must do for package catalog.
//
// Applications use package catalog. A driver implements [Store] for one store,
// with one client and one [Table] that classifies every error of that client
// (table.go in each driver). It has no rules of its own: it doesn't know
// which token wins, who may claim or what an epoch is. It keeps four things
// for one catalog and moves them as it is told:
//
//   - the log: records, numbered by revision from 1 without a gap, never
//     changed; each is a commit, and the commits that install a token are
//     claims. Its beginning can be replaced by a snapshot; the history of
//     claims can't;
//   - the head: the newest claim and the position of the newest commit. It is
//     written in the same atomic commit as the log record, is never deleted
//     and never leased;
//   - the board: small notes without any fence, replaced whole by compare and
//     swap. Safety never rests on them.
//   - the record of losses: what the store was found to have lost. It is
//     replaced by compare and swap, and a claim's own commit compares it.
//
// Package drivertest checks all that is said here.
//
// # Consistency
//
// Every method is linearizable: it takes effect at one instant between call
// and return, and reads come from a server that takes writes. A server that
// can't (a standby, a member without a quorum) answers with an error whose
// disposition is retry.
//
// # Deadlines
//
// Every call gets a context from package catalog that ends, and returns soon
// after: one with a deadline, but for Log and Claims, whose context ends when
// no further record came for a while. A write that was sent by then has outcome
// unknown. The end of the context of Claim, after it has returned, does not end
// the claim.
//
// # Errors
//
// Every error that a method returns, [ErrConflict] and context errors
// included, is or wraps an [*Error], which carries disposition and outcome; but
// an error of a caller's function is returned as it is.
// A driver never retries a write that was answered, and it never asks whether one
// has landed: that is package catalog's part.
//
// # Copies
//
// A store of several servers may send one write of one call to more than one of
// them, if at most one copy can land, or if it can be repeated without harm. The
// call then returns once, and speaks for all copies:
//
//   - nil if one of them has landed, whichever answer came first. A copy that is
//     still on its way changes nothing when it arrives;
//   - an error of outcome NotApplied only if none has landed and none will. A copy
//     that was refused proves that the others won't land, and not that none has:
//     while another copy is unanswered, the error wraps ErrConflict and its outcome
//     is Unknown.
//
// docs/decisions/0005 says why that is the driver's part.
//
// # Concurrency
//
// All methods may be called concurrently, from one process and from many.
package driver

import (
	"context"
)

// A Store keeps one catalog. See the package documentation for the contract.
type Store interface {
	// String names store and catalog for people, such as
	// "postgres://db1:5432/app?catalog=main". It never holds a secret.
	String() string

	// Limits returns the sizes that the store takes.
	Limits() Limits

	// Head returns the newest head, or the zero Head where nothing was ever
	// claimed. Log records without a head are corruption, not a zero Head.
	Head(ctx context.Context) (Head, error)

	// Append adds rec to the log and moves the head's position to it, in one
	// atomic commit, on condition that the head is exactly prior and that no
	// claim is under way; while one is, it waits. The new record's revision is
	// prior's plus one.
	//
	// An error that wraps ErrConflict means that the head was not prior and, unless
	// its outcome is Unknown, nothing was written. The same record may be sent again with the same
	// prior; at most one of them lands, and where an earlier one is still on
	// its way, nil or ErrConflict for a later one is final for both. After a
	// zero prior nothing can be appended: the first commit of a catalog is a
	// claim's.
	Append(ctx context.Context, prior Head, rec Record) error

	// Claim begins a claim. It waits for claims under way to end, bounded by
	// ctx. Where another process blocks it until then, the error wraps
	// ErrBlocked and says who does. It writes nothing that a reader of head,
	// log or board could see.
	Claim(ctx context.Context) (Claiming, error)

	// Log calls fn with the records whose revision is above after, in order,
	// each once and none left out, up to at least the newest one at the time of
	// the call. It stops at fn's first error and returns that error as it is. The
	// record's payload is fn's to keep. An error that wraps ErrCompacted means that the next record
	// is below the snapshot's revision and was deleted.
	Log(ctx context.Context, after uint64, fn func(Record) error) error

	// Claims calls fn with every claim whose revision is above after, oldest
	// first, as Log does.
	Claims(ctx context.Context, after uint64, fn func(Claim) error) error

	// Snapshot calls fn with the newest published snapshot and each of its
	// parts, in order, as Log does; of a snapshot without parts once, with a
	// nil part. Without a snapshot it does not call fn. The part is fn's to
	// keep. All that fn sees is of one snapshot.
	Snapshot(ctx context.Context, fn func(s Snapshot, part []byte) error) error

	// Stage stores the n-th part, from 0 on, of the snapshot that will be
	// published as id, on condition that by is the head's claim. No reader
	// sees it until then. The same part may be sent again.
	//
	// Here and in Publish and Trim, an error that wraps ErrConflict means that
	// the condition did not hold, and nothing was written. They don't move the
	// head, disturb no Append, and may wait while a claim is under way. Only
	// the process that made the claim calls them, one at a time; one whose
	// answer was lost may take effect later, and then does no harm.
	Stage(ctx context.Context, by Claim, id ID, n int, part []byte) error

	// Publish makes s, whose parts were staged, the snapshot in place of an
	// older one, in one atomic commit, on condition that by is the head's claim
	// and that no newer snapshot was published. The same one may be published
	// again. Where one of its parts is missing, or s.Commit does not stand at
	// s.Revision in the log, the error wraps ErrCorrupt and nothing was written.
	Publish(ctx context.Context, by Claim, s Snapshot) error

	// Trim deletes some of what nobody needs any more, on condition that by is
	// the head's claim: records below the snapshot's revision, parts that
	// belong to no published snapshot, and whatever else writers left that died
	// in the middle of one. More says that there is more to delete. It must not
	// be called between Stage and Publish.
	Trim(ctx context.Context, by Claim) (more bool, err error)

	// Notes returns the notes whose key begins with prefix, ordered by key.
	Notes(ctx context.Context, prefix string) ([]Note, error)

	// Post replaces the note at n.Key, on condition that its version is
	// n.Version; zero means that there is none. A nil value removes it. It
	// returns the new version, which no other write has ever had (zero where
	// the note was removed). An error that wraps ErrConflict means that the
	// note was at another version and nothing was written.
	Post(ctx context.Context, n Note) (version int64, err error)

	// Losses returns the record of losses. It writes nothing.
	Losses(ctx context.Context) (Losses, error)

	// PutLosses replaces the record of losses, on condition that its version is
	// l.Version, that the server, cluster or file is the one of l.Place and,
	// unless at is nil, that the head is exactly *at. It returns the new version,
	// which no other write of the record has ever had. It moves no head. It may
	// wait for a claim under way; if it lands beside one, that claim is refused.
	// An error that wraps ErrConflict means that a condition did not hold, or that
	// there is no catalog yet; nothing was written.
	PutLosses(ctx context.Context, l Losses, at *Head) (version int64, err error)

	// Close releases what the store itself opened, and not a pool or client
	// that it was given.
	Close() error
}

// A Claiming is a claim under way. Until [Claiming.Install] or
// [Claiming.Abandon] returns, no Append moves the head, and no other claim
// does. The store bounds how long that can last without a sign of life, so that
// a claimer that stops or dies releases the others: a call of Log or Renew is
// one. A Claiming is used by one goroutine.
type Claiming interface {
	// Head returns the head as it is, and will be until the end of the claim.
	Head() Head

	// Losses returns the record of losses as it is under the claim.
	Losses() Losses

	// ReplaceLosses has Install replace the record of losses by text, in the same
	// commit. It writes nothing itself.
	ReplaceLosses(text []byte)

	// Log reads the log as Store.Log does, up to Head.
	Log(ctx context.Context, after uint64, fn func(Record) error) error

	// Renew shows that the claimer is alive: the store's bound begins anew. It
	// changes nothing else. An error means that the claim has ended, or may
	// have: Install is then refused, or nothing is known of it.
	Renew(ctx context.Context) error

	// Install makes c the head's claim and adds rec, the claim's own commit,
	// to the log and to the history of claims, in one atomic commit, on
	// condition that the head is still what Head returned, that the record of
	// losses is still what Losses returned, and that each note of when is still
	// at its version. It ends the claim, whatever it
	// returns. An error that wraps ErrConflict means nothing was written.
	Install(ctx context.Context, c Claim, rec Record, when ...Note) error

	// Abandon ends the claim and writes nothing. After Install or Abandon it
	// does nothing.
	Abandon()
}

// A Watcher is a Store that can tell early that something has changed. A
// wake-up is a hint to read again: it carries no data, and package catalog
// polls besides, so that a lost one costs time only.
type Watcher interface {
	// Watch calls wake soon after every claim, by whichever process, and
	// soon after other writes where the store can tell. It calls wake once
	// when it has begun to watch. It returns when ctx ends, or when it can't
	// watch any more, with the reason.
	Watch(ctx context.Context, wake func()) error
}

// A ClaimWatcher is a Store that can tell claims from other writes. A holder
// makes the others itself, and need not look at the head after each.
type ClaimWatcher interface {
	// WatchClaims does what [Watcher] says of Watch, but need not wake after
	// anything but a claim.
	WatchClaims(ctx context.Context, wake func()) error
}

// A Warmer is a Store whose first claim costs more than a later one.
type Warmer interface {
	// Warm makes ready what a claim and the first commits behind it need, such
	// as connections and prepared statements, where that is not ready yet. It
	// is called again and again while a process waits for its turn. It writes
	// nothing that a reader of head, log or board could see, creates nothing
	// where there is no catalog yet, and keeps nobody waiting. Nothing rests on
	// it.
	Warm(ctx context.Context) error
}

// A Preempter is a Store whose board can't be written while a claim is under
// way. It carries a request to the claimer by other means. Elsewhere the board
// does.
type Preempter interface {
	// Preempt replaces the request that Preempted returns. The request has at
	// most [MaxRequest] bytes. It writes neither database nor log, and does not
	// wait for the claim under way.
	Preempt(ctx context.Context, request []byte) error

	// Preempted returns the newest request, or nil if there is none. One that is
	// being replaced just now may be missing.
	Preempted(ctx context.Context) ([]byte, error)
}

// MaxRequest is the size of the largest request that a [Preempter] takes, in
// bytes.
const MaxRequest = 1 << 10

// Limits are the sizes that a store takes, in bytes.
type Limits struct {
	Payload int // largest payload of a record
	Note    int // largest value of a note
}
