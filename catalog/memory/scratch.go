package memory

import (
	"context"
	"errors"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Scratcher = (*Store)(nil)

// scratchHandles is how many processes a scratch place stands for.
const scratchHandles = 2

// Scratch opens another catalog with the settings of s. No fault is injected into
// it.
func (s *Store) Scratch(ctx context.Context) (driver.Scratch, error) {
	if err := s.begin(ctx, "scratch"); err != nil {
		return driver.Scratch{}, err
	}
	place := newShared(s.shared.config)
	var stores []driver.Store
	for range scratchHandles {
		stores = append(stores, place.open())
	}
	return driver.Scratch{Stores: stores, Discard: func(context.Context) error {
		var errs []error
		for _, store := range stores {
			errs = append(errs, store.Close())
		}
		return errors.Join(errs...)
	}}, nil
}
