package etcd

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/fencepost/fencepost/catalog/driver"
)

// errReplaced means that a snapshot was trimmed away under its reader, and
// etcd has compacted the revision at which it was there.
var errReplaced = errors.New("the snapshot was replaced while it was read")

// Snapshot implements [driver.Store].
func (s *Store) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.tell("snapshot", s.readSnapshot(ctx, fn))
}

// readSnapshot reads the parts at one revision of the store. Where etcd has
// compacted that one, it goes on at the newest, if that has the same snapshot
// or fn has seen none.
func (s *Store) readSnapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	var reading driver.Snapshot
	next := 0 // the part that comes next
	for {
		newest, at, err := s.newestSnapshot(ctx, client)
		if err != nil || newest.IsZero() && next == 0 {
			return err
		}
		if next > 0 && newest != reading {
			return fmt.Errorf("%w: %v by %v of revision %d", errReplaced, reading.ID, newest.ID, newest.Revision)
		}
		if reading = newest; reading.Parts == 0 {
			return caller(fn(reading, nil))
		}
		err = pages(ctx, client, s.keys.part(reading.ID, next), s.keys.part(reading.ID, reading.Parts), at, func(kv *mvccpb.KeyValue) error {
			if want := s.keys.part(reading.ID, next); string(kv.Key) != want {
				return corrupt("found %q, want %q", kv.Key, want)
			}
			next++
			return caller(fn(reading, append([]byte{}, kv.Value...))) // never nil
		})
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
		case err == nil && next < reading.Parts:
			return corrupt("snapshot %v has %d parts, want %d", reading.ID, next, reading.Parts)
		default:
			return err
		}
	}
}

// newestSnapshot returns the snapshot that is published, and the revision of
// the store at which it was.
func (s *Store) newestSnapshot(ctx context.Context, client *cluster) (driver.Snapshot, int64, error) {
	resp, err := client.Txn(ctx).Then(clientv3.OpGet(s.keys.snapshot())).Commit()
	if err != nil {
		return driver.Snapshot{}, 0, err
	}
	snapshot, err := decodeSnapshot(got(resp, 0))
	return snapshot, resp.Header.Revision, err
}

func decodeSnapshot(kv *mvccpb.KeyValue) (driver.Snapshot, error) {
	if kv == nil {
		return driver.Snapshot{}, nil
	}
	snapshot, err := driver.UnmarshalSnapshot(kv.Value)
	if err != nil {
		return driver.Snapshot{}, corrupt("%q: %w", kv.Key, err)
	}
	return snapshot, nil
}
