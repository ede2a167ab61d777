package leader

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader/internal/peer"
)

// A lookout keeps a connection to the process that holds a claim, and so hears
// of its death at once. That process is dead where a connection on which it had
// proved its claim is lost and its address, whose listener it closes last,
// refuses another. Every other loss says nothing, and only makes the waiting
// process look at the board again.
type lookout struct {
	l     *Leader
	nudge chan struct{} // holds one where there is something to look at

	// Of the waiting goroutine:
	claim   driver.ID
	address string
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func newLookout(l *Leader) *lookout {
	return &lookout{l: l, nudge: make(chan struct{}, 1), cancel: func() {}}
}

// at says which claim to watch, and at which address; none where it is empty.
func (o *lookout) at(ctx context.Context, claim driver.ID, address string) {
	if o.claim == claim && o.address == address {
		return
	}
	o.stop()
	o.claim, o.address = claim, address
	ctx, o.cancel = context.WithCancel(ctx)
	if w, ok := driver.As[driver.PresenceWatcher](o.l.store); ok {
		o.wg.Go(func() { o.heed(ctx, w, claim) })
	}
	if address != "" {
		o.wg.Go(func() { o.watch(ctx, claim, address) })
	}
}

// stop ends the watch and joins it.
func (o *lookout) stop() {
	o.cancel()
	o.wg.Wait()
}

// dead reports whether the process of claim is known to be.
func (o *lookout) dead(claim driver.ID) bool {
	gone := o.l.gone.Load()
	return gone != nil && *gone == claim
}

// watch stays connected to the holder of claim until it is dead or ctx ends.
func (o *lookout) watch(ctx context.Context, claim driver.ID, address string) {
	proven := false
	for ctx.Err() == nil {
		if o.attend(ctx, claim, address) {
			proven = true
		}
		if ctx.Err() != nil {
			return
		}
		if proven && o.refused(ctx, claim, address) {
			o.l.gone.Store(&claim)
			o.tell()
			return
		}
		o.tell()
		elapse(ctx, o.patience()/10)
	}
}

// patience is how long the holder may take to answer.
func (o *lookout) patience() time.Duration { return min(o.l.cfg.heartbeat(), 2*time.Second) }

// attend is one connection, until it ends by itself or with ctx. It reports
// whether the holder proved its claim on it.
func (o *lookout) attend(ctx context.Context, claim driver.ID, address string) (proven bool) {
	conn, err := peer.Dial(ctx, o.patience(), claim, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	for conn.Wait() == nil {
		o.tell() // it has something to say: see the board
	}
	return true
}

// The tries at an address behind a connection that broke: a process that is
// dying may still take connections that nobody answers.
const (
	redials   = 8
	firstWait = time.Millisecond
)

// refused reports whether the address refuses a connection. A holder that
// answers, and one that does not answer at all, may be alive.
func (o *lookout) refused(ctx context.Context, claim driver.ID, address string) bool {
	wait := firstWait
	for range redials {
		conn, err := peer.Dial(ctx, o.patience(), claim, address)
		var timeout net.Error
		switch {
		case err == nil:
			conn.Close()
			return false
		case errors.Is(err, syscall.ECONNREFUSED):
			return true
		case errors.As(err, &timeout) && timeout.Timeout(), !elapse(ctx, wait):
			return false
		}
		wait *= 2
	}
	return false
}

// heed looks at the board whenever the store says that the holder's presence is
// lost.
func (o *lookout) heed(ctx context.Context, w driver.PresenceWatcher, claim driver.ID) {
	for ctx.Err() == nil {
		err := w.WatchPresence(ctx, claim, o.tell)
		if ctx.Err() == nil {
			o.l.log.DebugContext(ctx, "the store can't tell of the holder's presence", "err", err)
		}
		elapse(ctx, o.l.cfg.Lease)
	}
}

func (o *lookout) tell() {
	select {
	case o.nudge <- struct{}{}:
	default: // it is going to look already
	}
}
