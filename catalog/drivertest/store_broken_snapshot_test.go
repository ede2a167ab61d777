package drivertest

import (
	"context"
	"errors"
	"slices"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

// brokenCompactions are stores with one defect each in what they do with
// snapshots, and the rules that must find it.
func brokenCompactions() map[string]brokenStore {
	return map[string]brokenStore{
		"no snapshot is a zero one": {[]string{"snapshot-of-nothing"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, snapshot: func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
					called := false
					err := s.Snapshot(ctx, func(sn driver.Snapshot, part []byte) error { called = true; return fn(sn, part) })
					if err == nil && !called {
						err = fn(driver.Snapshot{}, nil)
					}
					return err
				}}
			}},
		"parts come in the order of digits": {[]string{"snapshot-is-whole"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, snapshot: shuffled(s)} }},
		"an error of the function does not stop the snapshot": {[]string{"snapshot-stops"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, snapshot: func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
					var first error
					return errors.Join(s.Snapshot(ctx, func(sn driver.Snapshot, part []byte) error {
						first = errors.Join(first, fn(sn, part))
						return nil
					}), first)
				}}
			}},
		"readers share the parts": {[]string{"snapshot-is-the-readers"},
			func(s *memory.Store, d *defect) driver.Store { return store{Store: s, snapshot: shared(s, d)} }},
		"what is staged stands on the board": {[]string{"stage-is-invisible"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, stage: func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
					_, err := s.Post(ctx, driver.Note{Key: id.String() + string(rune('0'+n)), Value: part})
					return errors.Join(err, s.Stage(ctx, by, id, n, part))
				}}
			}},
		"a part can be sent once": {[]string{"stage-again"},
			func(s *memory.Store, d *defect) driver.Store { return store{Store: s, stage: stageOnce(s, d)} }},
		"a part above the limit is cut": {[]string{"stage-limit"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, stage: func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
					return s.Stage(ctx, by, id, n, part[:min(len(part), driver.MaxPart)])
				}}
			}},
		"an older snapshot is silently dropped": {[]string{"publish-replaces"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, publish: func(ctx context.Context, by driver.Claim, sn driver.Snapshot) error {
					err := s.Publish(ctx, by, sn)
					if head, _ := s.Head(ctx); errors.Is(err, driver.ErrConflict) && head.Claim.ID == by.ID {
						return nil
					}
					return err
				}}
			}},
		"publish ignores the parts": {[]string{"publish-needs-its-parts", "stage-limit", "trim-clears-up"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, publish: publishPartless(s)} }},
		"publish ignores the commit": {[]string{"publish-needs-its-commit"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, publish: publishAnyCommit(s)} }},
		"stage ignores the claim": {[]string{"compaction-is-fenced"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, stage: func(ctx context.Context, _ driver.Claim, id driver.ID, n int, part []byte) error {
					head, err := s.Head(ctx)
					return errors.Join(err, s.Stage(ctx, head.Claim, id, n, part))
				}}
			}},
		"publish ignores the claim": {[]string{"compaction-is-fenced"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, publish: func(ctx context.Context, _ driver.Claim, sn driver.Snapshot) error {
					head, err := s.Head(ctx)
					return errors.Join(err, s.Publish(ctx, head.Claim, sn))
				}}
			}},
		"trim ignores the claim": {[]string{"compaction-is-fenced", "compaction-lets-commits-pass"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, trim: trimAnyway(s)} }},
		"only the token is compared": {[]string{"compaction-is-fenced"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, trim: trimUnderAToken(s)} }},
		"trim deletes nothing": {[]string{"trim-deletes", "compaction-lets-commits-pass"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, trim: func(context.Context, driver.Claim) (bool, error) { return false, nil }}
			}},
		"trim does not say that there is more": {[]string{"trim-deletes"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, trim: func(ctx context.Context, by driver.Claim) (bool, error) {
					_, err := s.Trim(ctx, by)
					return false, err
				}}
			}},
		"trim always says that there is more": {[]string{"trim-clears-up", "trim-deletes"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, trim: func(ctx context.Context, by driver.Claim) (bool, error) {
					_, err := s.Trim(ctx, by)
					return true, err
				}}
			}},
		"trim deletes the snapshot's own record": {[]string{"trim-deletes", "publish-replaces"},
			func(s *memory.Store, d *defect) driver.Store { return without(s, d, snapshotOwn) }},
		"trim deletes the history of claims": {[]string{"trim-deletes"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, claims: func(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
					return s.Claims(ctx, max(after, revisionOf(ctx, s)-1), fn)
				}}
			}},
		"trim needs no snapshot": {[]string{"trim-needs-a-snapshot"},
			func(s *memory.Store, d *defect) driver.Store { return without(s, d, everythingElse) }},
		"trim leaves the parts of others": {[]string{"trim-clears-up"},
			func(s *memory.Store, d *defect) driver.Store {
				return store{Store: s, stage: keepStaged(s, d), publish: restage(s, d)}
			}},
		"what was compacted counts as lost": {[]string{"trim-deletes", "compaction-lets-commits-pass"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, log: func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
					err := s.Log(ctx, after, fn)
					if errors.Is(err, driver.ErrCompacted) {
						err = &driver.Error{Store: s.String(), Op: "log", Err: driver.ErrCorrupt}
					}
					return err
				}}
			}},
		"what was compacted is passed over": {[]string{"trim-deletes", "trim-under-a-log"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, log: skippingLog(s)} }},
		"a claim's log passes over what was compacted": {[]string{"trim-deletes"},
			func(s *memory.Store, _ *defect) driver.Store {
				return store{Store: s, claim: claimWith(s, func(c driver.Claiming) driver.Claiming {
					return claiming{Claiming: c, log: func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
						return c.Log(ctx, max(after, revisionOf(ctx, s)-1), fn)
					}}
				})}
			}},
		"each part is of the newest snapshot": {[]string{"trim-under-a-snapshot"},
			func(s *memory.Store, _ *defect) driver.Store { return store{Store: s, snapshot: partByPart(s)} }},
		"a commit can't follow a stage": {[]string{"compaction-lets-commits-pass", "stage-is-invisible"},
			func(s *memory.Store, d *defect) driver.Store {
				return store{Store: s, stage: keepStaged(s, d), append: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
					d.mu.Lock()
					defer d.mu.Unlock()
					if len(d.staged) > 0 {
						return &driver.Error{Store: s.String(), Op: "append", Err: driver.ErrConflict}
					}
					return s.Append(ctx, prior, rec)
				}}
			}},
	}
}

type (
	snapshotFunc = func(context.Context, func(driver.Snapshot, []byte) error) error
	stageFunc    = func(context.Context, driver.Claim, driver.ID, int, []byte) error
	publishFunc  = func(context.Context, driver.Claim, driver.Snapshot) error
	trimFunc     = func(context.Context, driver.Claim) (bool, error)
)

// whole reads the snapshot, and all of its parts.
func whole(ctx context.Context, s *memory.Store) (snapshot driver.Snapshot, parts [][]byte, err error) {
	err = s.Snapshot(ctx, func(sn driver.Snapshot, part []byte) error {
		snapshot, parts = sn, append(parts, part)
		return nil
	})
	return snapshot, parts, err
}

// revisionOf returns the snapshot's revision, or 1 without one.
func revisionOf(ctx context.Context, s *memory.Store) uint64 {
	snapshot, _, _ := whole(ctx, s)
	return max(snapshot.Revision, 1)
}

func shuffled(s *memory.Store) snapshotFunc {
	return func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
		snapshot, parts, err := whole(ctx, s)
		if len(parts) > 10 {
			parts = slices.Insert(parts[:10:10], 2, parts[10:]...)
		}
		for _, part := range parts {
			err = errors.Join(err, fn(snapshot, part))
		}
		return err
	}
}

// shared gives every reader the same bytes.
func shared(s *memory.Store, d *defect) snapshotFunc {
	return func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
		snapshot, parts, err := whole(ctx, s)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.staged == nil {
			d.staged = make(map[stagedPart][]byte)
		}
		for n, part := range parts {
			key := stagedPart{snapshot.ID, n}
			if d.staged[key] == nil {
				d.staged[key] = part
			}
			err = errors.Join(err, fn(snapshot, d.staged[key]))
		}
		return err
	}
}

func partByPart(s *memory.Store) snapshotFunc {
	return func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
		snapshot, parts, err := whole(ctx, s)
		for n := 0; err == nil && n < len(parts); n++ {
			err = fn(snapshot, parts[n])
			_, parts, _ = whole(ctx, s)
		}
		return err
	}
}

// keepStaged also remembers each part.
func keepStaged(s *memory.Store, d *defect) stageFunc {
	return func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		err := s.Stage(ctx, by, id, n, part)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.staged == nil {
			d.staged = make(map[stagedPart][]byte)
		}
		if err == nil {
			d.staged[stagedPart{id, n}] = part
		}
		return err
	}
}

func stageOnce(s *memory.Store, d *defect) stageFunc {
	stage := keepStaged(s, d)
	return func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		d.mu.Lock()
		_, again := d.staged[stagedPart{id, n}]
		d.mu.Unlock()
		if again {
			return &driver.Error{Store: s.String(), Op: "stage", Err: driver.ErrConflict}
		}
		return stage(ctx, by, id, n, part)
	}
}

// restage brings back the parts that a Trim has deleted.
func restage(s *memory.Store, d *defect) publishFunc {
	return func(ctx context.Context, by driver.Claim, sn driver.Snapshot) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		for key, part := range d.staged {
			if key.id == sn.ID {
				_ = s.Stage(ctx, by, sn.ID, key.n, part)
			}
		}
		return s.Publish(ctx, by, sn)
	}
}

func publishPartless(s *memory.Store) publishFunc {
	return func(ctx context.Context, by driver.Claim, sn driver.Snapshot) error {
		if err := s.Publish(ctx, by, sn); !errors.Is(err, driver.ErrCorrupt) {
			return err
		}
		for n := range sn.Parts {
			_ = s.Stage(ctx, by, sn.ID, n, nil)
		}
		return s.Publish(ctx, by, sn)
	}
}

func publishAnyCommit(s *memory.Store) publishFunc {
	return func(ctx context.Context, by driver.Claim, sn driver.Snapshot) error {
		err := s.Publish(ctx, by, sn)
		if errors.Is(err, driver.ErrCorrupt) && sn.Revision > 0 {
			_ = s.Log(ctx, sn.Revision-1, func(rec driver.Record) error {
				if rec.Revision == sn.Revision {
					sn.Commit = rec.ID
				}
				return nil
			})
			err = s.Publish(ctx, by, sn)
		}
		return err
	}
}

func trimAnyway(s *memory.Store) trimFunc {
	return func(ctx context.Context, _ driver.Claim) (bool, error) {
		head, _ := s.Head(ctx)
		return s.Trim(ctx, head.Claim)
	}
}

func trimUnderAToken(s *memory.Store) trimFunc {
	return func(ctx context.Context, by driver.Claim) (bool, error) {
		if head, _ := s.Head(ctx); head.Claim.Token == by.Token {
			by = head.Claim
		}
		return s.Trim(ctx, by)
	}
}

// The revision up to which a Trim deletes too much.
func snapshotOwn(_ driver.Head, sn driver.Snapshot) uint64 { return sn.Revision }

func everythingElse(head driver.Head, _ driver.Snapshot) uint64 { return head.Revision - 1 }

// without returns a store whose Trim deletes the log up to a revision.
func without(s *memory.Store, d *defect, upTo func(driver.Head, driver.Snapshot) uint64) driver.Store {
	return store{Store: s,
		trim: func(ctx context.Context, by driver.Claim) (bool, error) {
			head, _ := s.Head(ctx)
			snapshot, _, _ := whole(ctx, s)
			d.mu.Lock()
			defer d.mu.Unlock()
			d.trimmed = upTo(head, snapshot)
			return s.Trim(ctx, by)
		},
		log: func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
			d.mu.Lock()
			trimmed := d.trimmed
			d.mu.Unlock()
			if after < trimmed {
				return &driver.Error{Store: s.String(), Op: "log", Err: driver.ErrCompacted}
			}
			return s.Log(ctx, after, fn)
		}}
}

// skippingLog reads ten records at a time and begins again behind a gap.
func skippingLog(s *memory.Store) func(context.Context, uint64, func(driver.Record) error) error {
	return func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
		for {
			var page []driver.Record
			err := s.Log(ctx, after, func(rec driver.Record) error {
				if page = append(page, rec); len(page) == 10 {
					return errBare
				}
				return nil
			})
			if errors.Is(err, driver.ErrCompacted) {
				after = revisionOf(ctx, s) - 1
				continue
			}
			if err != nil && !errors.Is(err, errBare) || len(page) == 0 {
				return err
			}
			for _, rec := range page {
				if err := fn(rec); err != nil {
					return err
				}
				after = rec.Revision
			}
		}
	}
}
