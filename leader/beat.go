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
	Claim driver.ID   `json:"claim"` // whose holder is alive
	Token fence.Token `json:"token"` // of that claim
	Seq   uint64      `json:"seq"`   // grows with every beat of a claim
	At    time.Time   `json:"at"`    // by the holder's clock
	Admin string      `json:"admin"` // where the holder's admin API listens
	Left  bool        `json:"left"`  // the holder's work has ended, and it will not write again
}

// ReadBeat returns the newest sign of life.
func ReadBeat(ctx context.Context, store driver.Store, cfg catalog.Config) (Beat, error) {
	posted, err := catalog.ReadNote[Beat](ctx, catalog.NewBoard(store, cfg), beatKey)
	return posted.Value, err
}

// beat posts one sign of life, unless a later claim has posted its own.
func (l *Leader) beat(ctx context.Context, claim driver.Claim, seq uint64, left bool) error {
	_, err := catalog.UpdateNote(ctx, l.board, beatKey, func(b *Beat) error {
		if b.Token.Compare(claim.Token) > 0 {
			return catalog.ErrUnchanged
		}
		*b = Beat{Claim: claim.ID, Token: claim.Token, Seq: seq, At: time.Now().UTC().Truncate(time.Microsecond), Admin: l.admin.address(), Left: left}
		return nil
	})
	return err
}

// keepBeating posts a sign of life every Heartbeat until ctx ends, and returns
// the last one's number. A failure is no reason to stop the work: the store
// will say so itself.
func (l *Leader) keepBeating(ctx context.Context, claim driver.Claim) (last uint64) {
	tick := time.NewTicker(l.cfg.Heartbeat)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		bounded, cancel := context.WithTimeout(ctx, l.cfg.Silence)
		err := l.beat(bounded, claim, seq, false)
		cancel()
		if err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "no heartbeat", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return seq
		}
	}
}

// sayGoodbye tells standbys that they need not wait for silence. Nothing rests
// on it: a claim by one of them is safe at any time.
func (l *Leader) sayGoodbye(ctx context.Context, claim driver.Claim, seq uint64) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.Heartbeat)
	defer cancel()
	if err := l.beat(bounded, claim, seq, true); err != nil {
		l.log.WarnContext(ctx, "no goodbye; standbys will wait for silence", "err", err)
	}
}

// silence measures for how long a holder has given no sign of life. It knows no
// clock but the one that it is given the times of, and counts only the time
// between two looks that both could read the store.
type silence struct {
	claim  driver.ID
	seq    uint64
	looked time.Time // when the last look that could read was made; zero: none
	length time.Duration
}

// observe takes what one look has found, and returns the silence so far. Of the
// time since the look before it counts no more than most: a process that was
// frozen in between could not have heard anything.
func (s *silence) observe(now time.Time, claim driver.ID, b Beat, most time.Duration) time.Duration {
	seq := uint64(0) // a claim that has given no sign yet
	if b.Claim == claim {
		seq = b.Seq
	}
	switch {
	case s.claim != claim || s.seq != seq:
		s.claim, s.seq, s.length = claim, seq, 0
	case !s.looked.IsZero():
		s.length += min(now.Sub(s.looked), most)
	}
	s.looked = now
	return s.length
}

// blind says that a look could not read the store: what the holder did
// meanwhile is not known, and counting begins anew.
func (s *silence) blind() { s.looked, s.length = time.Time{}, 0 }
