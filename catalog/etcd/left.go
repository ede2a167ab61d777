package etcd

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Cleaner = (*Store)(nil)

// mostPlaces bounds how many scratch places one listing looks at, each by one read.
const mostPlaces = 1000

// discardPlace removes a scratch place, and those that dead processes left.
func (c *cluster) discardPlace(ctx context.Context, k keys, place string) error {
	if _, err := c.Do(ctx, clientv3.OpDelete(place+"/", clientv3.WithPrefix())); err != nil {
		return err
	}
	left, err := c.places(ctx, k)
	for _, l := range left {
		if err == nil && l.Expired() {
			_, err = c.removePlace(ctx, k, l)
		}
	}
	return err
}

// places lists the scratch places, oldest first. Foreign keys are passed over.
func (c *cluster) places(ctx context.Context, k keys) (left []driver.Leftover, err error) {
	from, end := k.scratch(), clientv3.GetPrefixRangeEnd(k.scratch())
	for range mostPlaces {
		resp, err := c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
		if err != nil || len(resp.Kvs) == 0 {
			return left, err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(string(resp.Kvs[0].Key), k.scratch()), "/")
		if l, ok := driver.ScratchLeft(name); ok {
			left = append(left, l)
		}
		from = clientv3.GetPrefixRangeEnd(k.scratch() + name + "/")
	}
	return left, nil
}

func (c *cluster) removePlace(ctx context.Context, k keys, l driver.Leftover) (removed bool, err error) {
	all := clientv3.OpDelete(k.scratch()+l.Name+"/", clientv3.WithPrefix())
	resp, err := c.Txn(ctx).Then(all).Once(true).Commit() // a second copy would find nothing
	if err != nil {
		return false, err
	}
	return resp.Responses[0].GetResponseDeleteRange().GetDeleted() > 0, nil
}

// Left implements [driver.Cleaner]: scratch places. It looks at the servers of the
// store's own connection.
func (s *Store) Left(ctx context.Context) ([]driver.Leftover, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return nil, s.fail("left", err, read)
	}
	left, err := client.places(ctx, s.keys)
	return left, s.fail("left", err, read)
}

// RemoveLeft implements [driver.Cleaner].
func (s *Store) RemoveLeft(ctx context.Context, l driver.Leftover) (removed bool, err error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if foreign := l.CheckScratch(); err == nil && foreign != nil {
		err = fmt.Errorf("%w: %w", errMisuse, foreign)
	}
	if err != nil {
		return false, s.fail("remove left", err, read)
	}
	removed, err = client.removePlace(ctx, s.keys, l)
	return removed, s.fail("remove left", err, sent)
}
