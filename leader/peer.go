package leader

import (
	"context"
	"fmt"
	"net/http"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader/internal/peer"
)

// peerHandler is what processes of other hosts may ask.
func (l *Leader) peerHandler() http.Handler {
	mux := http.NewServeMux()
	l.peers.Register(mux)
	return http.NewCrossOriginProtection().Handler(mux)
}

// A holder is this process as other processes may ask it.
type holder struct{ *Leader }

func (l holder) Claim() (driver.ID, bool) {
	if c := l.holding(); c != nil {
		return c.Claim().ID, true
	}
	return driver.ID{}, false
}

func (l holder) News() <-chan struct{} { return l.news() }

// HandOver ends the work for a successor. The store must say that the
// successor's generation is to lead: a process that can't write there disturbs
// nobody.
func (l holder) HandOver(ctx context.Context, s *peer.Successor) error {
	intent, err := ReadIntent(ctx, l.store, l.cfg.boardConfig())
	if err != nil {
		return fmt.Errorf("%w: %w", peer.ErrNotPromoted, err)
	}
	if mine := l.cfg.Catalog.Generation; intent.Generation != s.Generation || s.Generation <= mine {
		return fmt.Errorf("leader: generation %v %w over %v", s.Generation, peer.ErrNotPromoted, mine)
	}
	if !l.handing.CompareAndSwap(false, true) {
		return fmt.Errorf("leader: this process %w", peer.ErrBusy)
	}
	defer l.handing.Store(false)
	a := l.newAsk(ctx, fmt.Sprintf("generation %v, promoted by %s, takes over", s.Generation, intent.By), s.Generation)
	a.more, a.works = s.Migrations, s.Progress()
	if err := l.submit(ctx, a, l.patience()); err != nil {
		return err
	}
	if err := s.Acknowledge(); err != nil {
		return err // and the holder goes on
	}
	at, err := l.joined(ctx, a)
	if err != nil {
		return err
	}
	if err := s.Pause(peer.Paused{Revision: at.revision, Version: at.offer}); err != nil {
		return err // likewise
	}
	select {
	case err := <-a.result:
		return err
	case <-ctx.Done():
		return nil
	}
}
