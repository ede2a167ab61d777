package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// raisedKey is the note of the claims that [Raise] made, and of those that it was
// about to make.
const (
	raisedKey  = "raised"
	mostRaised = 16
)

// announcePatience is how long a raise waits until the board says that nobody will
// hold its claim. A claim under way may block the store until it is asked to give
// way, which comes afterwards.
const announcePatience = time.Second

// raisedClaims are claims without a holder, the newest last.
type raisedClaims struct {
	Claims []driver.ID `json:"claims"`
}

// HasNoHolder reports whether claim was made by [Raise], as a tool's is: no process
// will ever hold it, so that nobody needs to wait for a sign of life. A false says
// nothing: the note is written before the claim lands, and may be missing if the
// board could not be written then. The newest 16 claims are remembered.
func HasNoHolder(ctx context.Context, b *Board, claim driver.ID) (bool, error) {
	note, err := ReadNote[raisedClaims](ctx, b, raisedKey)
	return slices.Contains(note.Value.Claims, claim), err
}

// announce notes that nobody will hold the claim of r's next try. It comes before the
// claim, which is its own only for a tool: so the death of the tool leaves nobody
// waiting. A failure costs a standby a lease of silence, and is no reason not to go on.
func (r *raiser) announce(ctx context.Context) {
	if _, sent := r.tried[r.id]; sent || r.id.IsZero() {
		r.id, r.announced = driver.NewID(), false
	}
	if r.announced {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, min(announcePatience, r.cfg.StoreTimeout))
	defer cancel()
	r.announced = r.say(bounded, r.id)
}

// announceLate does the same behind the claim, if it failed before.
func (r *raiser) announceLate(ctx context.Context) {
	if r.announced && r.claim.ID == r.id {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, r.cfg.StoreTimeout)
	defer cancel()
	r.say(bounded, r.claim.ID)
}

func (r *raiser) say(ctx context.Context, claim driver.ID) (said bool) {
	_, err := UpdateNote(ctx, NewBoard(r.store, r.cfg), raisedKey, func(n *raisedClaims) error {
		if slices.Contains(n.Claims, claim) {
			return ErrUnchanged
		}
		all := append(n.Claims, claim)
		n.Claims = all[max(0, len(all)-mostRaised):]
		return nil
	})
	if err != nil {
		r.cfg.Logger.InfoContext(ctx, "the board does not say that nobody holds the raised token", "store", r.store.String(), "err", err)
	}
	return err == nil
}
