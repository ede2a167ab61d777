package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A turn is the moment at which a process may claim: on which conditions, and
// why.
type turn struct {
	opts   catalog.ClaimOptions
	head   driver.Head // what was judged
	holder Beat        // of the holder that is to be asked first; zero: nobody is
	gate   *gate       // what must still be true once the holder has been asked; nil: nothing
}

// A waiting is what a process knows while it waits for its turn.
type waiting struct {
	*Leader
	f     *catalog.Follower
	gate  *gate
	quiet silence
	out   *lookout
	due   due
	slow  bool // the migrations were too slow when they ran last

	holder Beat // seen of the holder that a deploy is to take over from

	told told // for one look
}

// A told is an intent that this process wrote at a time. It stands for what the
// board says for no longer than a look at the board would; a claim fails where
// it changes behind that.
type told struct {
	intent catalog.Posted[Intent]
	at     time.Duration
}

// awaitTurn waits until this process may claim.
func (l *Leader) awaitTurn(ctx context.Context, f *catalog.Follower) (turn, error) {
	w := &waiting{Leader: l, f: f, gate: l.newGate(), out: newLookout(l)}
	defer w.out.stop()
	poll := time.NewTicker(l.cfg.Poll)
	defer poll.Stop()
	for {
		now, mine, err := w.look(ctx)
		w.told = told{}
		switch {
		case err == nil && mine:
			return now, nil
		case err != nil && exitcodes.Of(err) == exitcodes.Retry && ctx.Err() == nil:
			w.quiet.blind()
			l.log.DebugContext(ctx, "the board can't be read", "err", err)
		case err != nil:
			return turn{}, err
		}
		select {
		case <-poll.C:
		case w.told = <-l.promoted:
		case <-w.out.nudge:
		case <-f.Done():
			return turn{}, f.Err()
		case <-ctx.Done():
			return turn{}, context.Cause(ctx)
		}
	}
}

// look looks once, and reports whether it is this process's turn.
func (w *waiting) look(ctx context.Context) (turn, bool, error) {
	head, _ := w.f.Head()
	w.sees(head)
	now := turn{head: head}
	now.opts.IfClaim = head.Claim.ID // what was judged here is judged of this claim, and of no other
	var err error
	switch {
	case head.IsZero():
		w.ready(ctx, "nobody ever claimed")
		err = w.first(ctx, &now)
	case head.Claim.Token.Generation == w.cfg.Catalog.Generation:
		w.ready(ctx, "everything is read")
		err = w.standby(ctx, &now)
	default:
		err = w.deploy(ctx, &now)
	}
	if err != nil || now.opts.Reason == "" {
		w.due.forget()
		return now, false, err
	}
	return now, w.due.reached(w.lease.now(), now.opts.IfClaim, w.cfg.delay(w.prefersNot())), nil
}

// ready notes that this process could lead, unless it has found that a loss of
// commits stands, over which it could not claim.
func (w *waiting) ready(ctx context.Context, why string) {
	if w.Status().Phase != CatchingUp {
		return
	}
	if err := w.f.CheckClaim(ctx); errors.Is(err, catalog.ErrLossStands) {
		w.because(err.Error())
		return
	}
	w.move(ReadyToPromote, why)
}

// unready notes what is missing.
func (w *waiting) unready(missing string) {
	if w.Status().Phase == ReadyToPromote {
		w.move(CatchingUp, missing)
	}
	w.because(missing)
}

// first is the turn of a process that finds a catalog which nobody ever claimed,
// unless its generation was given up. Its claim is the first one, or none: any
// other needs a promotion, or the silence of a holder.
func (w *waiting) first(ctx context.Context, now *turn) error {
	intent, aborted, err := w.intent(ctx)
	if err != nil || aborted {
		return err
	}
	now.opts.IfNeverClaimed = true
	now.opts.IfNotes = []driver.Note{intent.Note()}
	now.opts.Reason = "nobody ever claimed"
	return nil
}

// intent says which generation may lead, and whether mine was given up.
func (w *waiting) intent(ctx context.Context) (i catalog.Posted[Intent], aborted bool, err error) {
	if w.told.intent.Value.Generation == w.cfg.Catalog.Generation && w.lease.now()-w.told.at < w.cfg.Poll {
		return w.told.intent, false, nil
	}
	if i, err = readNote[Intent](ctx, w.Leader, intentKey); err != nil {
		return i, false, err
	}
	return i, i.Value.aborts(w.cfg.Catalog.Generation), nil
}

// deploy is the turn of a higher generation: once it is ready, and promoted.
func (w *waiting) deploy(ctx context.Context, now *turn) error {
	missing, err := w.gate.check(ctx, w.f)
	if err != nil {
		return err
	}
	if missing != "" {
		w.unready(missing)
		return nil
	}
	if !w.slow {
		w.ready(ctx, "everything is read")
	}
	w.whereabouts(ctx, now.head.Claim.ID) // before it is needed
	intent, aborted, err := w.intent(ctx)
	mine := w.cfg.Catalog.Generation
	if err == nil && w.cfg.AutoPromote && !aborted && intent.Value.Generation < mine {
		if _, err = Promote(ctx, w.store, w.cfg.boardConfig(), mine, "itself"); err == nil || refusal(err) && !errors.Is(err, fence.ErrSuperseded) {
			intent, aborted, err = w.intent(ctx) // somebody else may have been faster
		}
	}
	if err != nil || aborted || intent.Value.Generation != mine {
		return err
	}
	if err := w.gate.renew(ctx, w.f); err != nil {
		return err
	}
	if missing = w.gate.unraisable(ctx); missing != "" {
		w.unready(missing)
		return nil
	}
	missing = w.gate.tooSlow(w.f)
	if w.slow = missing != ""; w.slow {
		w.unready(missing)
		return nil
	}
	w.ready(ctx, "everything is read")
	now.head, _ = w.f.Head()                               // the migrations may have taken a while
	now.opts.IfClaim, now.opts.IfLower = driver.ID{}, true // however many have claimed meanwhile
	now.holder = w.whereabouts(ctx, now.head.Claim.ID)
	now.gate = w.gate
	now.opts.IfNotes = []driver.Note{intent.Note()}
	now.opts.Reason = "promoted by " + intent.Value.By
	return nil
}

// whereabouts returns a sign of life of the holder of claim, which says where it
// can be asked to hand over; zero where there is none. That does not change under
// one claim.
func (w *waiting) whereabouts(ctx context.Context, claim driver.ID) Beat {
	if w.holder.Claim == claim {
		return w.holder
	}
	w.holder = Beat{}
	if beat, err := readNote[Beat](ctx, w.Leader, beatKey); err == nil && beat.Value.Claim == claim {
		w.holder = beat.Value
	}
	return w.holder
}

// standby judges the holder by its silence, and by the end of its process.
func (w *waiting) standby(ctx context.Context, now *turn) error {
	sent := w.lease.now()
	note, err := readNote[Beat](ctx, w.Leader, beatKey)
	if err != nil {
		return err
	}
	claim, beat := now.head.Claim, note.Value
	if beat.Claim == claim.ID {
		w.out.at(ctx, claim.ID, beat.reach(w.host))
	}
	silent := w.quiet.observe(sent, w.lease.now(), claim.ID, beat, w.cfg.heartbeat())
	switch {
	case beat.Left && beat.Claim == claim.ID:
		now.opts.Reason = fmt.Sprintf("the holder of %v has left", claim.Token)
		now.opts.IfNotes = []driver.Note{note.Note()} // an offer may be withdrawn
	case w.out.dead(claim.ID):
		now.opts.Reason = fmt.Sprintf("the process of %v is gone: its connection broke, and %s refuses another", claim.Token, beat.reach(w.host))
	case silent >= w.cfg.silence():
		now.opts.Reason = fmt.Sprintf("no sign of life of %v for %v", claim.Token, silent.Round(time.Millisecond))
	}
	return nil
}

// readNote reads a note of the board once, within the time of a heartbeat.
func readNote[T any](ctx context.Context, l *Leader, key string) (catalog.Posted[T], error) {
	bounded, cancel := context.WithTimeout(ctx, l.cfg.heartbeat())
	defer cancel()
	note, err := catalog.ReadNote[T](bounded, l.board, key)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = exitcodes.With(err, exitcodes.Retry)
	}
	return note, err
}

// due is when a claim is due that others have the first right to.
type due struct {
	claim   driver.ID // that is to be the newest; zero: any
	since   time.Duration
	waiting bool
}

// reached reports whether the reason to claim over claim, or over any if that is
// zero, has stood for delay.
func (d *due) reached(now time.Duration, claim driver.ID, delay time.Duration) bool {
	if !d.waiting || d.claim != claim {
		d.claim, d.since, d.waiting = claim, now, true
	}
	return now-d.since >= delay
}

func (d *due) forget() { d.waiting = false }
