package leader

import (
	"context"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// A holderless knows whether the newest claim is a tool's, which no process holds.
// Its zero value has seen no claim.
type holderless struct {
	claim driver.ID
	yes   bool
	next  time.Duration // when the board is read again, by the lease's clock
}

// check reports whether nobody holds claim, which has given no sign of life. It reads
// the board when it first sees the claim, and then once a heartbeat.
func (h *holderless) check(ctx context.Context, l *Leader, claim driver.ID) bool {
	if h.claim != claim {
		*h = holderless{claim: claim}
	}
	if now := l.lease.now(); !h.yes && now >= h.next {
		h.next = now + l.cfg.heartbeat()
		bounded, cancel := context.WithTimeout(ctx, l.cfg.heartbeat())
		defer cancel()
		h.yes, _ = catalog.HasNoHolder(bounded, l.board, claim) // what can't be read is read again
	}
	return h.yes
}
