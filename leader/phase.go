package leader

import (
	"fmt"
	"slices"
	"strconv"
)

// A Phase is a step in the life of one process. The package documentation
// draws them.
type Phase uint8

const (
	// Initializing: nothing is read yet.
	Initializing Phase = iota
	// CatchingUp: reads the catalog, writes none of it.
	CatchingUp
	// ReadyToPromote: has read everything and reads along; waits for
	// promotion, or, in the generation that leads, for the holder's silence.
	ReadyToPromote
	// Promoting: asks the holder to hand over, and claims. Ends in Leading, or back in CatchingUp
	// where another process was faster.
	Promoting
	// Leading: holds the token and runs the work, the only phase that does.
	Leading
	// HandingOver: holds the token, and runs no work: another process was told
	// that it may claim. Ends in Leading where it doesn't, and in CatchingUp
	// where one of this generation did.
	HandingOver
	// Unconfirmed: held the token when the store was last heard, a lease ago,
	// and runs no work. Ends in Leading where it still does.
	Unconfirmed
	// Draining: leads no more, since the token is lost or the process is to stop;
	// the work was asked to end, and has not ended yet.
	Draining
	// Superseded: ended, because a higher generation leads.
	Superseded
	// Fenced: ended, because another process of this generation leads.
	Fenced
	// Stopped: ended, because the process was asked to stop or its work is
	// done.
	Stopped
	// Failed: ended, because of anything else.
	Failed
	numPhases
)

var phaseNames = [numPhases]string{
	"Initializing", "CatchingUp", "ReadyToPromote", "Promoting", "Leading", "HandingOver", "Unconfirmed", "Draining",
	"Superseded", "Fenced", "Stopped", "Failed",
}

// String returns the phase's name, as in the API and in logs.
func (p Phase) String() string {
	if p >= numPhases {
		return "Phase(" + strconv.Itoa(int(p)) + ")"
	}
	return phaseNames[p]
}

// MarshalText returns the phase's name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a phase's name.
func (p *Phase) UnmarshalText(text []byte) error {
	i := slices.Index(phaseNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("leader: %q is no phase", text)
	}
	*p = Phase(i)
	return nil
}

// allowed is the whole of the rules. Nothing else decides whether a move is
// legal.
var allowed = [numPhases][]Phase{
	Initializing:   {CatchingUp, Superseded, Fenced, Stopped, Failed},
	CatchingUp:     {ReadyToPromote, Superseded, Fenced, Stopped, Failed},
	ReadyToPromote: {CatchingUp, Promoting, Superseded, Fenced, Stopped, Failed},
	Promoting:      {CatchingUp, Leading, Unconfirmed, Superseded, Fenced, Stopped, Failed},
	Leading:        {HandingOver, Unconfirmed, Draining, Superseded, Fenced, Stopped, Failed},
	HandingOver:    {CatchingUp, Leading, Unconfirmed, Draining, Superseded, Fenced, Stopped, Failed},
	Unconfirmed:    {Leading, Draining, Superseded, Fenced, Stopped, Failed},
	Draining:       {Superseded, Fenced, Stopped, Failed},
	Superseded:     {},
	Fenced:         {},
	Stopped:        {},
	Failed:         {},
}

// Ended reports whether no move leads out of p.
func (p Phase) Ended() bool { return p < numPhases && len(allowed[p]) == 0 }

// To returns next if p may become next. Otherwise it returns p unchanged and a
// *TransitionError.
func (p Phase) To(next Phase) (Phase, error) {
	if p < numPhases && slices.Contains(allowed[p], next) {
		return next, nil
	}
	return p, &TransitionError{From: p, To: next}
}

// A TransitionError reports a move that the rules do not allow. It is a bug in
// the caller, never a condition to retry.
type TransitionError struct{ From, To Phase }

func (e *TransitionError) Error() string {
	return fmt.Sprintf("leader: %v cannot become %v", e.From, e.To)
}
