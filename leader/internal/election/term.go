package election

import (
	"fmt"
	"time"

	"github.com/fencepost/fencepost/generation"
)

// A TermView is what a holder's process has observed.
type TermView struct {
	Now time.Duration

	Over   bool // the token is lost, or the process is to stop
	Lost   bool // the token is lost
	Leased bool // the store has confirmed the token less than a lease ago
	Raised bool // every register refuses older tokens

	// Confirmed is the time at which the newest heartbeat was sent after which the store
	// confirmed the token; 0: there is none.
	Confirmed time.Duration

	Work  Work
	Ask   Request
	Offer Offering
}

// open reports whether the request has no answer yet.
func (r Request) open() bool { return r.Made && !r.Acknowledged }

// Work says how the service's work stands.
type Work uint8

const (
	// Idle: it does not run.
	Idle Work = iota
	// Running: it runs, or its end was asked for and has not come yet.
	Running
	// Joined: it ended because it was asked to.
	Joined
	// Finished: it ended by itself, and with it the term.
	Finished
)

// A Request is the wish that another process take over. There is one at a time.
// It is over once it was refused, or the offer was withdrawn for which it was
// acknowledged.
type Request struct {
	Made         bool
	Acknowledged bool                  // PauseWork was carried out for it
	To           generation.Generation // generation.None: to any process of the holder's own
	Progress     time.Duration         // when the successor last said that it works on the claim; 0: never
	More         time.Duration         // by how much longer than HandoverTimeout an older build asked the holder to wait
	Gone         bool                  // whoever made it waits no longer
}

// An Offering is what became of the offer on the board.
type Offering uint8

const (
	// NotOffered: no offer was written for this request, as far as is known.
	NotOffered Offering = iota
	// Offered: the offer was written.
	Offered
	// Failed: it is not known whether it was written, or withdrawn.
	Failed
	// Withdrawn: no claim can land by it any more, and the token was confirmed
	// since.
	Withdrawn
)

// A Duty is what a holder does next.
type Duty uint8

const (
	// Stay: go on until something happens.
	Stay Duty = iota
	// RaiseRegisters has them refuse older tokens.
	RaiseRegisters
	// StartWork starts the work.
	StartWork
	// PauseWork acknowledges the request, and asks the work to end for it.
	PauseWork
	// SuspendWork asks the work to end, since the token is not confirmed.
	SuspendWork
	// StopWork asks the work to end for good. It is given a second time if the token is
	// lost while the work ends.
	StopWork
	// AbandonWork leaves behind work that has not ended in time, and ends the term.
	AbandonWork
	// WriteOffer writes the offer, and says up to which revision the work has
	// committed.
	WriteOffer
	// WithdrawOffer makes sure that no claim can land by the offer any more, and
	// confirms the token. It writes the note even if it sees no offer: one that is
	// under way is refused then. The successor is told that this process goes on.
	// What fails is tried again at the pace of renewals.
	WithdrawOffer
	// RefuseRequest says that this process does not hand over. It is never the
	// answer to a request that was acknowledged.
	RefuseRequest
	// EndTerm ends the term.
	EndTerm
)

// An Order is what a holder does next, and why.
type Order struct {
	Duty   Duty
	Reason string // for people
}

// A TermPhase says what a term does until the next order.
type TermPhase uint8

const (
	// Raising: the registers do not refuse older tokens yet.
	Raising TermPhase = iota
	// Serving: the work runs.
	Serving
	// Pausing: the work was asked to end, for a handover.
	Pausing
	// Suspending: the work was asked to end, since the token is not confirmed.
	Suspending
	// Stopping: the work was asked to end for good.
	Stopping
	// Yielding: the work has ended, and a successor may claim.
	Yielding
	// Unconfirmed: no work runs, since the token is not confirmed.
	Unconfirmed
	// Ended: the term is over.
	Ended
)

// A Term decides what a process does while it holds one token. Its methods must
// not be called concurrently.
type Term struct {
	cfg     Settings
	phase   TermPhase
	offered bool          // a successor may be able to claim by an offer
	paused  time.Duration // when the work had ended for a successor
	lost    time.Duration // when the token was first seen to be lost; 0: it was not
	drained bool          // StopWork was given after the token was lost
	refused time.Duration // when a request was last refused because no work ran; 0: never
	why     string        // the work starts
}

// NewTerm returns the Term of a claim that was made for the reason why.
func NewTerm(cfg Settings, why string) *Term { return &Term{cfg: cfg, why: why} }

// Phase says what the term does until the next order.
func (t *Term) Phase() TermPhase { return t.phase }

// Next returns what to do about v.
func (t *Term) Next(v TermView) Order {
	if v.Lost && t.lost == 0 {
		t.lost = v.Now
	}
	switch t.phase {
	case Raising:
		return t.raising(v)
	case Serving:
		return t.serving(v)
	case Pausing, Suspending, Stopping:
		return t.joining(v)
	case Yielding:
		return t.yielding(v)
	case Unconfirmed:
		return t.unconfirmed(v)
	default:
		return Order{Duty: Stay}
	}
}

func (t *Term) raising(v TermView) Order {
	switch {
	case v.Over:
		return t.end()
	case v.Raised: // a request waits until the work runs
		return t.resume(v)
	case v.Ask.open():
		return t.refuse(v, "this process leads, and does not serve")
	default:
		return Order{Duty: RaiseRegisters}
	}
}

// refuse refuses a request while no work runs. The successor then claims, on condition
// that no heartbeat was posted since it asked. Therefore the work starts only after a
// heartbeat that was sent later.
func (t *Term) refuse(v TermView, why string) Order {
	t.refused = v.Now
	return Order{RefuseRequest, why}
}

// confirmed reports whether the work may start, if no successor can claim by an
// offer.
func (t *Term) confirmed(v TermView) bool { return v.Leased && v.Confirmed >= t.refused }

// resume starts the work, once the token is confirmed and no successor can claim
// by an offer.
func (t *Term) resume(v TermView) Order {
	if !t.confirmed(v) {
		return t.unconfirm(t.why)
	}
	t.phase = Serving
	return Order{StartWork, t.why}
}

func (t *Term) serving(v TermView) Order {
	switch {
	case v.Work == Finished:
		return t.end()
	case v.Over:
		return t.stop(v)
	case !v.Leased:
		t.phase = Suspending
		return Order{SuspendWork, fmt.Sprintf("the store has not confirmed the token for %v", t.cfg.Lease)}
	case v.Ask.open() && v.Ask.Gone:
		return Order{RefuseRequest, "nobody waits for the token any more"}
	case v.Ask.open():
		t.phase = Pausing
		return Order{PauseWork, "another process takes over"}
	default:
		return Order{Duty: Stay}
	}
}

// stop asks the work to end for good.
func (t *Term) stop(v TermView) Order {
	t.phase, t.drained = Stopping, v.Lost
	return Order{StopWork, "the token is lost, or the process is to stop"}
}

func (t *Term) joining(v TermView) Order {
	switch {
	case v.Work == Finished:
		return t.end()
	case v.Work == Running && v.Over && (t.phase != Stopping || v.Lost && !t.drained):
		return t.stop(v)
	case v.Work == Running && v.Lost && v.Now-t.lost >= t.cfg.DrainTimeout:
		t.phase = Ended
		return Order{AbandonWork, fmt.Sprintf("the work has not ended within %v of the loss of the token", t.cfg.DrainTimeout)}
	case v.Work == Running: // a request that comes now is answered once the work has ended
		return Order{Duty: Stay}
	case v.Over, t.phase == Stopping:
		return t.end()
	case t.phase == Suspending:
		return t.unconfirm("the store answers again, and the token is still held")
	case v.Ask.Gone: // its claim may still be under way
		t.offered = true
		t.unconfirm("not handed over: the successor gave up")
		return Order{WithdrawOffer, t.why}
	default:
		t.phase, t.offered, t.paused = Yielding, true, v.Now
		return Order{WriteOffer, "the work has ended"}
	}
}

// unconfirm waits until the store confirms the token. Why is the reason for which
// the work starts then.
func (t *Term) unconfirm(why string) Order {
	t.phase, t.why = Unconfirmed, why
	return Order{Stay, "waits for the store to confirm the token"}
}

// yielding waits for the successor's claim.
func (t *Term) yielding(v TermView) Order {
	if v.Over {
		return t.end()
	}
	if why := t.givesUp(v); why != "" {
		t.unconfirm("not handed over: " + why)
		return Order{WithdrawOffer, t.why}
	}
	return Order{Duty: Stay}
}

// maxPause is how long a successor's progress keeps a holder waiting at most.
const maxPause = 3600 * time.Second

// givesUp says why the holder waits no longer for its successor. Empty: it waits.
func (t *Term) givesUp(v TermView) string {
	until := max(t.paused+v.Ask.More, min(v.Ask.Progress, t.paused+maxPause)) + t.cfg.HandoverTimeout
	switch {
	case v.Offer == Failed:
		return "the offer could not be written"
	case v.Ask.Gone:
		return "the successor gave up"
	case v.Now >= until:
		return fmt.Sprintf("no other process claimed within %v", (until - t.paused).Round(time.Millisecond))
	case !v.Leased:
		return fmt.Sprintf("the store has not confirmed the token for %v", t.cfg.Lease)
	default:
		return ""
	}
}

// unconfirmed waits until the store says that the token is still held, and that
// no successor can claim by what was offered.
func (t *Term) unconfirmed(v TermView) Order {
	t.offered = t.offered && v.Offer != Withdrawn
	switch {
	case v.Over:
		return t.end()
	case !t.offered && t.confirmed(v): // a request waits until the work runs
		return t.resume(v)
	case v.Ask.open():
		return t.refuse(v, "this process does not serve")
	case t.offered:
		return Order{WithdrawOffer, "a successor may still be able to claim"}
	default:
		return Order{Stay, "waits for the store to confirm the token"}
	}
}

func (t *Term) end() Order {
	t.phase = Ended
	return Order{Duty: EndTerm}
}
