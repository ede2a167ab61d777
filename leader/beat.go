package leader

import (
	"context"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A Beat is the holder's sign of life on the board. Its counter is what
// standbys watch; its time is for people only.
type Beat struct {
	Claim driver.ID   `json:"claim"`          // whose holder is alive
	Token fence.Token `json:"token"`          // of that claim
	Seq   uint64      `json:"seq"`            // grows with every beat of a claim
	At    time.Time   `json:"at"`             // by the holder's clock
	Admin string      `json:"admin"`          // where the holder's admin API listens
	Peer  string      `json:"peer,omitempty"` // where processes of other hosts reach it
	Host  string      `json:"host,omitempty"` // the boot and network that a loopback Admin is of
	Left  bool        `json:"left"`           // no work runs, and another process may claim

	Said *HolderState `json:"said,omitempty"` // see Beat.State
}

// reach returns where a process of host can call the holder, if it can: a
// loopback address means something only within one host.
func (b Beat) reach(host string) string {
	if b.Admin != "" && b.Host != "" && b.Host == host {
		return b.Admin
	}
	return b.Peer
}

// ReadBeat returns the newest sign of life.
func ReadBeat(ctx context.Context, store driver.Store, cfg catalog.Config) (Beat, error) {
	posted, err := catalog.ReadNote[Beat](ctx, catalog.NewBoard(store, cfg), beatKey)
	return posted.Value, err
}

// beat posts one sign of life, unless a later claim has posted its own. The last
// one says that the holder has left.
func (t *leadership) beat(ctx context.Context, last bool) error {
	select {
	case t.posting <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-t.posting }()
	t.seq++
	claim := t.c.Claim()
	posted, err := catalog.UpdateNote(ctx, t.board, beatKey, func(b *Beat) error {
		if b.Token.Compare(claim.Token) > 0 {
			return catalog.ErrUnchanged
		}
		*b = Beat{
			Claim: claim.ID, Token: claim.Token, Seq: t.seq, At: time.Now().UTC().Truncate(time.Microsecond),
			Admin: t.admin.address(), Peer: t.peer.address(), Host: t.host, Left: last,
		}
		b.Said = t.says(*b)
		return nil
	})
	if said, ok := posted.Value.State(); ok && err == nil {
		t.said.Store(&said)
	}
	return err
}

// sayGoodbye tells standbys that they need not wait for silence. Nothing rests
// on it: a claim by one of them is safe at any time.
func (t *leadership) sayGoodbye(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(time.Second, t.cfg.heartbeat()))
	defer cancel()
	if err := t.beat(bounded, true); err != nil {
		t.log.WarnContext(ctx, "no goodbye; standbys will wait for silence", "err", err)
	}
	t.announce()
}
