package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A Commit is one entry of the log, decoded.
type Commit struct {
	Revision uint64
	ID       driver.ID
	Token    fence.Token // under which it was made
	Changes  []Change
}

// ReadLog calls fn with every commit whose revision is above after, in order,
// for tools that check or export a catalog. It writes nothing and needs no
// token. It ends with fn's first error. An error that wraps
// [driver.ErrCompacted] means that the log no longer has those: [Compacted] says
// up to where.
func ReadLog(ctx context.Context, store driver.Store, after uint64, fn func(Commit) error) error {
	return witnessed(store).Log(ctx, after, func(rec driver.Record) error {
		c := Commit{Revision: rec.Revision, ID: rec.ID, Token: rec.Token}
		if err := decodePayload(rec.Payload, func(ch Change) { c.Changes = append(c.Changes, ch) }); err != nil {
			return fmt.Errorf("%s: revision %d: %w", store, rec.Revision, err)
		}
		return fn(c)
	})
}

// Compacted returns the snapshot that stands for the beginning of the log: its
// own revision is the first that the log surely has. It is zero where the log is
// whole. It writes nothing and needs no token.
func Compacted(ctx context.Context, store driver.Store) (driver.Snapshot, error) {
	var found driver.Snapshot
	err := witnessed(store).Snapshot(ctx, func(s driver.Snapshot, _ []byte) error {
		found = s
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// History returns every claim that was ever made, oldest first: claims are never
// compacted. It writes nothing and needs no token.
func History(ctx context.Context, store driver.Store) ([]driver.Claim, error) {
	var claims []driver.Claim
	err := witnessed(store).Claims(ctx, 0, func(c driver.Claim) error {
		claims = append(claims, c)
		return nil
	})
	return claims, err
}
