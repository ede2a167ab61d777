package leader

import (
	"context"
	"errors"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
)

// A hindrance is what keeps the claims of a campaign from succeeding. It begins with the
// first claim that fails in passing. It ends when a claim succeeds or is refused, or when
// the board can be read and no claim was tried for a heartbeat. A claim that is given up
// and tried anew does not end it.
type hindrance struct {
	since time.Duration // when the first claim began; 0: there is none
	tried time.Duration // when the newest try failed
	why   string        // the newest failure that says more than that the claim waits
	alarm alarm
}

// hinder shows that a claim that began at began does not succeed, once that has lasted:
// one that met another writer succeeds in the next try. While a claim is under way only
// the claim calls it.
func (w *campaign) hinder(ctx context.Context, began time.Duration, err error) {
	h, now := &w.hindrance, w.lease.now()
	if h.since == 0 {
		h.since = began
	}
	h.tried = now
	if h.why == "" || !errors.Is(err, catalog.ErrClaimWaits) {
		h.why = exitcodes.OneLine(err.Error())
	}
	if now-h.since < min(time.Second, w.cfg.heartbeat()) {
		return
	}
	w.showHindrance(h.why)
	h.alarm.set(ctx, w.log, now, w.cfg.Lease, "this process could lead, and its claim does not succeed: "+h.why)
	w.tell()
}

// unhinder ends the hindrance, if there is one.
func (w *campaign) unhinder(ctx context.Context) {
	w.hindrance.alarm.set(ctx, w.log, w.lease.now(), w.cfg.Lease, "")
	w.hindrance = hindrance{}
	w.showHindrance("")
}

// outlived reports whether no claim has been tried for long enough.
func (h *hindrance) outlived(l *Leader) bool {
	return h.since != 0 && l.lease.now()-h.tried >= l.cfg.heartbeat()
}

func (l *Leader) showHindrance(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hindered = why
}
