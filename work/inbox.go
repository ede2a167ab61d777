package work

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// InboxPrefix is the beginning of the keys of the notes by which processes that do
// not hold the token ask the holder to do something. The rest of a key is the
// request's reference. The holder takes the notes in the order of their keys.
const InboxPrefix = "work/inbox/"

// The operations of a note in the inbox.
const (
	OpEnqueue  = "enqueue"
	OpRetry    = "retry"
	OpAbandon  = "abandon"
	OpClear    = "clear"
	OpReassign = "reassign"
	OpActivate = "activate"
)

// A Note is a request in the inbox, as JSON.
type Note struct {
	Op string    `json:"op"`
	By string    `json:"by,omitempty"` // for people
	At time.Time `json:"at,omitzero"`

	// Of enqueue:
	Kind     string    `json:"kind,omitempty"`
	Key      string    `json:"key,omitempty"`
	Payload  []byte    `json:"payload,omitempty"`
	RunAt    time.Time `json:"run_at,omitzero"`
	Priority int       `json:"priority,omitempty"`

	// Of enqueue and reassign:
	Generation generation.Generation `json:"generation,omitempty"`
	Member     string                `json:"member,omitempty"`

	// Of retry, abandon and clear:
	ID     ID     `json:"id,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// NewRef returns a reference for a request. Later ones are ordered behind earlier
// ones, as far as the clocks of their processes agree.
func NewRef(now time.Time) string {
	return fmt.Sprintf("%0*d-%s", refDigits, now.UnixMilli(), driver.NewID())
}

const refDigits = 15

// MaxRef is the size of the longest reference, in bytes.
const MaxRef = 128

// CheckRef returns why a text can't be the reference of a request: its error wraps
// [ErrInvalid]. A reference has 1 to [MaxRef] letters, digits, dots, dashes and
// underscores of ASCII, which can be part of a key on every store.
func CheckRef(ref string) error {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r))
	}
	if ref == "" || len(ref) > MaxRef || strings.ContainsFunc(ref, bad) {
		return fmt.Errorf("%w: the reference %q: want 1 to %d letters, digits, dots, dashes and underscores", ErrInvalid, clip(ref, 64), MaxRef)
	}
	return nil
}

// Post puts a request into the inbox of a catalog. Posting the same one again, with
// the same ref, does nothing more for as long as its answer is kept. The holder of
// the token acts upon it, and answers: see [ReplyTo].
//
// Its error wraps [ErrInvalid] or [ErrTooLarge] if no holder would accept the request
// or its reference ([CheckRef]),
// or if it is above the store's limit of a note. A payload grows by a third in a note:
// on etcd it can have some 190 KiB, on SQLite and PostgreSQL 760 KiB. Nothing was
// written then.
func Post(ctx context.Context, b *catalog.Board, ref string, n Note) error {
	if err := CheckRef(ref); err != nil {
		return err
	}
	if n.Op == OpEnqueue {
		if err := n.request().Check(); err != nil {
			return err
		}
	}
	_, err := catalog.UpdateNote(ctx, b, InboxPrefix+ref, func(old *Note) error { *old = n; return nil })
	if errors.Is(err, driver.ErrTooLarge) {
		return fmt.Errorf("%w: a payload of %d bytes makes a request that the store can't take: keep it elsewhere and enqueue where it is: %w", ErrTooLarge, len(n.Payload), err)
	}
	return err
}

func (n Note) request() Request {
	return Request{Kind: n.Kind, Key: n.Key, Payload: n.Payload, RunAt: n.RunAt, Priority: n.Priority, Generation: n.Generation, Member: n.Member}
}

// A Reply is the holder's answer to a request.
type Reply struct {
	ID    ID     // of the job
	Text  string // what was done, for people
	Error string // why nothing was; empty if something was
	At    time.Time
}

// ReplyTo returns the answer to a request, and whether there is one yet. The newest
// 1024 are kept.
func ReplyTo(s catalog.Source, ref string) (Reply, bool, error) {
	rec, found, err := replies.Get(s, ref)
	return Reply{ID: rec.ID, Text: rec.Text, Error: rec.Error, At: rec.At}, found, err
}

// Inbox returns which requests wait for a holder.
func Inbox(ctx context.Context, b *catalog.Board) (out Outside, err error) {
	after, more := "", true
	for more {
		var page []driver.Note
		if page, more, err = b.NotesAfter(ctx, InboxPrefix, after, inboxBatch); err != nil {
			return Outside{}, err
		}
		for _, p := range page {
			out.add(p)
			after = p.Key
		}
	}
	return out, nil
}

// add counts a request. One that can't be read counts, too.
func (out *Outside) add(p driver.Note) {
	var n Note
	out.Requests++
	if CheckRef(strings.TrimPrefix(p.Key, InboxPrefix)) != nil || json.Unmarshal(p.Value, &n) != nil {
		out.Unread++
	}
	if n.At.IsZero() {
		n.At = madeAt(strings.TrimPrefix(p.Key, InboxPrefix))
	}
	if out.Oldest.IsZero() || !n.At.IsZero() && n.At.Before(out.Oldest) {
		out.Oldest = n.At
	}
}

// madeAt returns when NewRef made a reference; zero if it did not.
func madeAt(ref string) time.Time {
	digits, _, found := strings.Cut(ref, "-")
	ms, err := strconv.ParseInt(digits, 10, 64)
	if !found || err != nil || len(digits) != refDigits {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// reply keeps the answer to a request, in place of the oldest one.
func reply(tx *catalog.Tx, ref string, rec replyRecord) error {
	n, err := take(tx, replySequence, 1)
	if err != nil {
		return err
	}
	rec.Number, rec.At = n, time.Now().UTC().Round(0)
	slot := ring(n, keptReplies)
	old, found, err := replySlots.Get(tx, slot)
	if err != nil {
		return err
	}
	if found {
		if _, err := replies.Delete(tx, old); err != nil {
			return err
		}
	}
	if err := replySlots.Set(tx, slot, ref); err != nil {
		return err
	}
	return replies.Set(tx, ref, rec)
}

// reassigned is how many bytes of jobs a request has rewritten in one commit.
const reassigned = 4 << 20

// errMore means that a request was done in part. The rest is for another commit.
var errMore = errors.New("work: more of the request is to be done")

// perform does what a request asks for. An error of the request itself is its
// answer; one that is returned fails the commit, but for [ErrFull] and errMore: then
// the request waits, and so do all later ones of a kind in full.
func perform(tx *catalog.Tx, ref string, raw []byte, full map[string]bool) (rec replyRecord, activate bool, err error) {
	var n Note
	if err := json.Unmarshal(raw, &n); err != nil {
		id, err := buryRequest(tx, ref, raw, err)
		return replyRecord{ID: id, Error: "the request can't be read; it is on the dead list"}, false, err
	}
	switch n.Op {
	case OpEnqueue:
		if full[n.Kind] {
			return rec, false, ErrFull
		}
		rec.ID, err = enqueue(tx, time.Now(), fence.Token{}, ref, []Request{n.request()})
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalid) {
			refused := err
			id, err := buryRequest(tx, ref, raw, refused)
			return replyRecord{ID: id, Error: refused.Error() + "; it is on the dead list"}, false, err
		}
		full[n.Kind] = errors.Is(err, ErrFull)
		rec.Text = "enqueued"
	case OpRetry:
		rec.ID, rec.Text, err = n.ID, "runs again", Retry(tx, n.ID)
	case OpAbandon:
		rec.ID, rec.Text, err = n.ID, "abandoned", Abandon(tx, n.ID, n.Reason)
	case OpClear:
		rec.ID, rec.Text, err = n.ID, "removed from the dead list", Clear(tx, n.ID)
	case OpReassign:
		var more bool
		rec.moved, more, err = reassign(tx, Owner{Generation: n.Generation, Member: n.Member}, reassigned)
		if more && err == nil {
			err = errMore
		}
	case OpActivate:
		rec.Text, activate = "a pass was made", true
	default:
		id, err := buryRequest(tx, ref, raw, fmt.Errorf("this build does not know the operation %q", clip(n.Op, 64)))
		return replyRecord{ID: id, Error: "this build does not know the operation; it is on the dead list"}, false, err
	}
	if err != nil && ofRequest(err) {
		return replyRecord{ID: n.ID, Error: err.Error()}, false, nil
	}
	return rec, activate, err
}

// ofRequest reports whether an error says that a request can't be done.
func ofRequest(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotDead) || errors.Is(err, ErrInvalid)
}

// buryRequest keeps a request that can't be enqueued on the dead list.
func buryRequest(tx *catalog.Tx, ref string, raw []byte, why error) (ID, error) {
	n, err := take(tx, jobSequence, 1)
	if err != nil {
		return 0, err
	}
	now := time.Now().UTC().Round(0)
	rec := deadRecord{
		Job:    jobRecord{Kind: malformedKind, Payload: raw, MadeAt: now, Ref: ref},
		Reason: Malformed, Text: clip(why.Error(), maxError), At: now, By: tx.Token(),
	}
	if err := dead.Set(tx, ID(n).entry(), rec); err != nil {
		return 0, err
	}
	sums := tally{}
	t := sums.of(malformedKind)
	t.Enqueued++
	t.Died++
	return ID(n), sums.write(tx)
}

// malformedKind is the kind of requests that can't be read.
const malformedKind = "(malformed)"
