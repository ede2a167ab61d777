package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

// brokenStores are stores with one defect each, such as a driver could have,
// and the rules that must find it.
func brokenStores() map[string]brokenStore {
	return map[string]brokenStore{
		"any prior will do": {[]string{"append-elsewhere", "append-twice", "append-race", "append-after-claim"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, append: appendAnywhere(s)} }},
		"only the revision is compared": {[]string{"append-elsewhere"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, append: appendAtRevision(s)} }},
		"only the commit is compared": {[]string{"append-elsewhere"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, append: appendAtCommit(s)} }},
		"a conflict wraps nothing": {[]string{"append-elsewhere", "append-twice"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, append: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
					if s.Append(ctx, prior, rec) != nil {
						return errBare
					}
					return nil
				}}
			}},
		"a claim excludes nobody": {[]string{"append-waits-for-a-claim", "append-wait-is-bounded", "append-loses-to-a-claim",
			"claims-serialise", "first-claims-serialise", "claim-is-bounded", "claim-beats-a-busy-holder"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, claim: claimWith(s, optimistic(s))}
			}},
		"a blocked claim does not say so": {[]string{"claim-is-bounded"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, claim: func(ctx context.Context) (driver.Claiming, error) {
					c, err := s.Claim(ctx)
					if err != nil {
						err = &driver.Error{Store: s.String(), Op: "claim", Err: context.DeadlineExceeded}
					}
					return c, err
				}}
			}},
		"the notes of when are not asked": {[]string{"install-other-note", "install-ends-the-claim"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, claim: claimWith(s, func(c driver.Claiming) driver.Claiming {
					return claiming{Claiming: c, install: func(ctx context.Context, cl driver.Claim, rec driver.Record, _ ...driver.Note) error {
						return c.Install(ctx, cl, rec)
					}}
				})}
			}},
		"an abandoned claim stays": {[]string{"abandon-writes-nothing", "append-waits-for-a-claim"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, claim: claimWith(s, func(c driver.Claiming) driver.Claiming {
					return claiming{Claiming: c, abandon: func() {}}
				})}
			}},
		"the holder's time is cut to seconds": {[]string{"head-is-whole"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, claim: claimWith(s, func(c driver.Claiming) driver.Claiming {
					return claiming{Claiming: c, install: func(ctx context.Context, cl driver.Claim, rec driver.Record, when ...driver.Note) error {
						cl.Holder.Since = cl.Holder.Since.Truncate(time.Second)
						return c.Install(ctx, cl, rec, when...)
					}}
				})}
			}},
		"reads are one commit behind": {[]string{"read-your-writes"},
			func(s *memory.Store, d *defect) driver.Store { return store{Store: s, head: laggingHead(s, d)} }},
		"after is included": {[]string{"log-is-gapless", "log-is-up-to-date"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, log: func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
					return s.Log(ctx, max(after, 1)-1, fn)
				}}
			}},
		"an error of the function is wrapped": {[]string{"log-stops", "claims-stop"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, log: wrappingLog(s), claims: wrappingClaims(s)}
			}},
		"an error of the function does not stop": {[]string{"log-stops"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, log: func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
					var first error
					return errors.Join(s.Log(ctx, after, func(rec driver.Record) error {
						first = errors.Join(first, fn(rec))
						return nil
					}), first)
				}}
			}},
		"versions start again": {[]string{"note-versions-are-new"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, post: postFromOne(s), notes: notesFromOne(s)}
			}},
		"a post asks for no version": {[]string{"note-must-not-exist", "note-is-replaced", "note-race"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, post: postAnyway(s)} }},
		"an empty value removes": {[]string{"notes-of-any-bytes"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, post: func(ctx context.Context, n driver.Note) (int64, error) {
					if len(n.Value) == 0 {
						n.Value = nil
					}
					return s.Post(ctx, n)
				}}
			}},
		"a prefix is a pattern": {[]string{"notes-by-prefix"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, notes: notesLike(s)} }},
		"keys are sorted as people do": {[]string{"notes-in-order"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, notes: notesCollated(s)} }},
		"the limits are not kept": {[]string{"payload-limit", "note-limit"},
			func(s *memory.Store, _ *defect) driver.Store { return smaller{s} }},
		"errors are bare": {[]string{"errors-are-classified", "cancelled-calls", "close-ends-the-store"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, head: func(ctx context.Context) (driver.Head, error) {
					h, err := s.Head(ctx)
					if err != nil {
						err = errBare
					}
					return h, err
				}}
			}},
		"an unsent write is unknown": {[]string{"cancelled-writes"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, append: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
					if err := ctx.Err(); err != nil {
						return &driver.Error{Class: driver.Class{Outcome: driver.Unknown}, Store: s.String(), Op: "append", Err: err}
					}
					return s.Append(ctx, prior, rec)
				}}
			}},
		"the name tells the password": {[]string{"no-secrets"},
			func(s *memory.Store, _ *defect) driver.Store { return talkative{s} }},
		"a watch that sees only its own": {[]string{"watch-wakes"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, watch: func(ctx context.Context, wake func()) error {
					wake()
					<-ctx.Done()
					return nil
				}}
			}},
		"close closes nothing": {[]string{"close-ends-the-store"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, close: func() error { return nil }}
			}},
	}
}

type appendFunc = func(context.Context, driver.Head, driver.Record) error

// appendAnywhere appends a record as a blind insert would.
func appendAnywhere(s *memory.Store) appendFunc {
	return func(ctx context.Context, _ driver.Head, rec driver.Record) error {
		for {
			head, err := s.Head(ctx)
			if err != nil {
				return err
			}
			rec.Revision = head.Revision + 1
			if err := s.Append(ctx, head, rec); !errors.Is(err, driver.ErrConflict) || head.IsZero() {
				return err
			}
		}
	}
}

func appendAtRevision(s *memory.Store) appendFunc {
	return func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		head, err := s.Head(ctx)
		if err == nil && head.Revision == prior.Revision {
			prior = head
		}
		return errors.Join(err, s.Append(ctx, prior, rec))
	}
}

func appendAtCommit(s *memory.Store) appendFunc {
	return func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		head, err := s.Head(ctx)
		if err == nil && head.Commit == prior.Commit {
			prior, rec.Revision = head, head.Revision+1
		}
		return errors.Join(err, s.Append(ctx, prior, rec))
	}
}

// optimistic returns claims that hold nothing and begin for real when they
// install.
func optimistic(s *memory.Store) func(driver.Claiming) driver.Claiming {
	return func(c driver.Claiming) driver.Claiming {
		c.Abandon()
		return claiming{Claiming: c, install: func(ctx context.Context, cl driver.Claim, rec driver.Record, when ...driver.Note) error {
			again, err := s.Claim(ctx)
			if err != nil {
				return err
			}
			return again.Install(ctx, cl, rec, when...)
		}}
	}
}

// laggingHead answers with the head that was the newest one a change ago.
func laggingHead(s *memory.Store, d *defect) func(context.Context) (driver.Head, error) {
	return func(ctx context.Context) (driver.Head, error) {
		head, err := s.Head(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.heads = append(d.heads, head)
		if n := len(d.heads); n > 1 {
			head = d.heads[n-2]
		}
		return head, err
	}
}

func wrappingLog(s *memory.Store) func(context.Context, uint64, func(driver.Record) error) error {
	return func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
		if err := s.Log(ctx, after, fn); err != nil {
			return fmt.Errorf("log: %w", err)
		}
		return nil
	}
}

func wrappingClaims(s *memory.Store) func(context.Context, uint64, func(driver.Claim) error) error {
	return func(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
		if err := s.Claims(ctx, after, fn); err != nil {
			return fmt.Errorf("claims: %w", err)
		}
		return nil
	}
}

// postFromOne gives every note that is made the version 1, as a counter in the
// note itself would.
func postFromOne(s *memory.Store) func(context.Context, driver.Note) (int64, error) {
	return func(ctx context.Context, n driver.Note) (int64, error) {
		if n.Version != 0 {
			now, err := s.Notes(ctx, n.Key)
			if err != nil || len(now) == 0 {
				return s.Post(ctx, n)
			}
			n.Version = now[0].Version
		}
		version, err := s.Post(ctx, n)
		return min(version, 1), err
	}
}

func notesFromOne(s *memory.Store) func(context.Context, string) ([]driver.Note, error) {
	return func(ctx context.Context, prefix string) ([]driver.Note, error) {
		notes, err := s.Notes(ctx, prefix)
		for i := range notes {
			notes[i].Version = 1
		}
		return notes, err
	}
}

func postAnyway(s *memory.Store) func(context.Context, driver.Note) (int64, error) {
	return func(ctx context.Context, n driver.Note) (int64, error) {
		for {
			n.Version = 0
			now, err := s.Notes(ctx, n.Key)
			if err != nil {
				return 0, err
			}
			if len(now) > 0 {
				n.Version = now[0].Version
			}
			if v, err := s.Post(ctx, n); !errors.Is(err, driver.ErrConflict) {
				return v, err
			}
		}
	}
}

// notesLike takes letters of both cases for the same, as LIKE can.
func notesLike(s *memory.Store) func(context.Context, string) ([]driver.Note, error) {
	return func(ctx context.Context, prefix string) ([]driver.Note, error) {
		all, err := s.Notes(ctx, "")
		var found []driver.Note
		for _, n := range all {
			if strings.HasPrefix(strings.ToLower(n.Key), strings.ToLower(prefix)) {
				found = append(found, n)
			}
		}
		return found, err
	}
}

func notesCollated(s *memory.Store) func(context.Context, string) ([]driver.Note, error) {
	return func(ctx context.Context, prefix string) ([]driver.Note, error) {
		notes, err := s.Notes(ctx, prefix)
		for i := range notes {
			for j := i; j > 0 && strings.ToLower(notes[j].Key) < strings.ToLower(notes[j-1].Key); j-- {
				notes[j], notes[j-1] = notes[j-1], notes[j]
			}
		}
		return notes, err
	}
}

// smaller names limits below those that it keeps.
type smaller struct{ *memory.Store }

func (s smaller) Limits() driver.Limits { return driver.Limits{Payload: 500, Note: 500} }

type talkative struct{ *memory.Store }

func (talkative) String() string { return "store://app:hunter2@db1/catalog" }
