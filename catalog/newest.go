package catalog

import (
	"context"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// NewestToken returns a function that reads the head of the catalog in store and
// returns its token and holder, for [fence.GateConfig]: every resource belongs to
// this catalog. The token is zero if nobody ever claimed. A failure in passing is
// tried again within cfg.RetryBudget, each call within cfg.StoreTimeout. A head
// that bears a lower token than one before is an error that wraps [ErrLostCommit].
//
// The function writes nothing and needs no token. It may be called concurrently,
// until store is closed.
func NewestToken(store driver.Store, cfg Config) func(ctx context.Context, resource string) (fence.Token, fence.Holder, error) {
	w := witnessed(store)
	return func(ctx context.Context, _ string) (fence.Token, fence.Holder, error) {
		head, err := ReadHead(ctx, w, cfg)
		if err != nil {
			return fence.Token{}, fence.Holder{}, err
		}
		return head.Claim.Token, head.Claim.Holder, nil
	}
}
