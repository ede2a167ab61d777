package work

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

var (
	// ErrFull means that as many jobs of the kind wait or run already as its
	// MaxQueued allows. Nothing was enqueued.
	ErrFull = errors.New("work: the queue is full")

	// ErrTooLarge means that a payload, key, progress or name is larger than its
	// limit. Nothing was written.
	ErrTooLarge = errors.New("work: too large")

	// ErrInvalid means that a job's kind, key or member is no UTF-8 text that can be
	// shown, or that something is missing. Nothing was written.
	ErrInvalid = errors.New("work: not a valid job")

	// ErrNotFound means that there is no job with this ID: there never was, or it
	// is done.
	ErrNotFound = errors.New("work: there is no such job")
)

// A Request is a job that is to be enqueued.
type Request struct {
	Kind    string // required; the holder need not know it yet
	Key     string // of the order; may be empty
	Payload []byte

	// RunAt is when the job may run first, by the holder's clock. Zero: at once.
	RunAt time.Time

	// Priority puts a job before those with a lower one. From -[MaxPriority] to
	// MaxPriority.
	Priority int

	// Generation lets only this generation run the job, as Kind.Pin =
	// SameGeneration does for every job of a kind. Zero: every one may.
	Generation generation.Generation

	// Member lets only a holder with this name (Config.Holder.Name of its
	// catalog) run the job. Empty: every one may.
	Member string
}

// MaxPriority bounds a priority on both sides.
const MaxPriority = 1000

// Check returns why the request can't be enqueued whatever its kind allows: its
// error wraps [ErrInvalid] or [ErrTooLarge]. Kind.MaxPayload and Kind.MaxQueued are
// the holder's to check.
func (r Request) Check() error {
	if err := r.check(); err != nil {
		return err
	}
	if len(r.Payload) > MaxPayload {
		return fmt.Errorf("%w: a payload of %d bytes, want at most %d", ErrTooLarge, len(r.Payload), MaxPayload)
	}
	return nil
}

func (r Request) check() error {
	if err := checkName(r.Kind); err != nil {
		return fmt.Errorf("%w: the kind %q: want 1 to %d bytes of printable UTF-8", ErrInvalid, clip(r.Kind, 64), MaxName)
	}
	if r.Member != "" && checkName(r.Member) != nil {
		return fmt.Errorf("%w: the member %q: want at most %d bytes of printable UTF-8", ErrInvalid, clip(r.Member, 64), MaxName)
	}
	if !utf8.ValidString(r.Key) || strings.ContainsRune(r.Key, 0) {
		return fmt.Errorf("%w: the key %q of kind %s: want UTF-8", ErrInvalid, clip(r.Key, 64), r.Kind)
	}
	if len(r.Key) > MaxKey {
		return fmt.Errorf("%w: a key of %d bytes of kind %s, want at most %d", ErrTooLarge, len(r.Key), r.Kind, MaxKey)
	}
	if r.Priority < -MaxPriority || r.Priority > MaxPriority {
		return fmt.Errorf("%w: the priority %d, want -%d to %d", ErrInvalid, r.Priority, MaxPriority, MaxPriority)
	}
	if y := r.RunAt.UTC().Year(); !r.RunAt.IsZero() && (y < 1970 || y > 9999) {
		return fmt.Errorf("%w: a time to run at in the year %d", ErrInvalid, y)
	}
	return nil
}

// Enqueue enqueues a job in tx: it is durable with tx's commit, together with the
// other changes of tx, or not at all. It may run as soon as that has landed. Its
// errors wrap [ErrFull], [ErrTooLarge] or [ErrInvalid], and then nothing of the job
// was written; the caller decides whether its own changes are.
func Enqueue(tx *catalog.Tx, kind, key string, payload []byte) (ID, error) {
	return EnqueueAll(tx, Request{Kind: kind, Key: key, Payload: payload})
}

// EnqueueAll does the same for several jobs, all or none, which is cheaper than one
// by one. Their IDs follow each other; the first one's is returned.
func EnqueueAll(tx *catalog.Tx, requests ...Request) (ID, error) {
	return enqueue(tx, time.Now(), tx.Token(), "", requests)
}

// A batch is how many jobs of one kind are enqueued, and what limits them.
type batch struct {
	kindRecord
	n int
}

// enqueue enqueues jobs that were made under a token; zero if their maker had none.
func enqueue(tx *catalog.Tx, now time.Time, made fence.Token, ref string, requests []Request) (ID, error) {
	if len(requests) == 0 {
		return 0, nil
	}
	batches := map[string]*batch{}
	for _, r := range requests {
		if err := r.check(); err != nil {
			return 0, err
		}
		b := batches[r.Kind]
		if b == nil {
			k, known, err := legible(kinds.Get(tx, r.Kind))
			if err != nil {
				return 0, err
			}
			if !known {
				k.MaxPayload, k.MaxQueued = MaxPayload, defaultQueued // the release that knows it may allow as much
			}
			b = &batch{kindRecord: k}
			batches[r.Kind] = b
		}
		if len(r.Payload) > b.MaxPayload {
			return 0, fmt.Errorf("%w: a payload of %d bytes of kind %s, want at most %d: keep it elsewhere and enqueue where it is", ErrTooLarge, len(r.Payload), r.Kind, b.MaxPayload)
		}
		b.n++
	}
	for kind, b := range batches {
		t, _, err := totals.Get(tx, kind)
		if err != nil {
			return 0, err
		}
		if live := t.Live(); live+int64(b.n) > int64(b.MaxQueued) {
			return 0, fmt.Errorf("%w: kind %s has %d jobs, and MaxQueued is %d", ErrFull, kind, live, b.MaxQueued)
		}
	}
	first, err := take(tx, jobSequence, uint64(len(requests)))
	if err != nil {
		return 0, err
	}
	for i, r := range requests {
		rec := jobRecord{
			Kind: r.Kind, Key: r.Key, Payload: r.Payload, Made: made, MadeAt: now.UTC().Round(0), RunAt: r.RunAt.UTC().Round(0),
			Priority: r.Priority, Generation: r.Generation, Member: r.Member, Ref: ref,
		}
		if !rec.RunAt.After(rec.MadeAt) {
			rec.RunAt = time.Time{}
		}
		if err := jobs.Set(tx, ID(first+uint64(i)).entry(), rec); err != nil {
			return 0, err
		}
	}
	sums := tally{}
	for kind, b := range batches {
		sums.of(kind).Enqueued += int64(b.n)
	}
	if err := sums.write(tx); err != nil {
		return 0, err
	}
	return ID(first), nil
}
