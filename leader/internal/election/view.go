package election

import (
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// Settings are what a process decides by. All must be set, but for AutoPromote.
type Settings struct {
	Generation      generation.Generation
	Lease           time.Duration
	DrainTimeout    time.Duration // for the work to end once the token is lost
	HandoverTimeout time.Duration // from the acknowledgement to the pause; and from there, or the last progress, to the claim
	Delay           time.Duration // before a claim that standbys of higher priority make first
	Reluctance      time.Duration // added to Delay while this process prefers not to lead
	AutoPromote     bool
}

// silence is the time without a heartbeat after which a holder is taken for
// dead. The twentieth is for clocks that do not run alike, and for work that is
// being cancelled.
func (s Settings) silence() time.Duration { return s.Lease + s.Lease/20 }

// heartbeat is the most that one look may add to a silence: a process that was
// stopped between two looks could not have received anything.
func (s Settings) heartbeat() time.Duration { return s.Lease / 3 }

// A View is what a candidate's process has observed.
type View struct {
	Now   time.Duration // by a clock that never goes back
	Head  Head
	Board Board

	Death     string // the proof that the process of Head.Claim has ended; empty: there is none
	Raised    string // who raised the newest token by a tool, so that no process holds it; empty: a process claimed it
	Reachable bool   // the holder can be asked to hand over
	Ready     Readiness
	Handover  Handover

	Reluctant bool // this process prefers not to lead
	Alone     bool // no other process waits for the same claim
	Nudged    bool // a promotion was asked for at this very process
}

// A Head says who holds the token. Its zero value: nobody ever claimed.
type Head struct {
	Claim    driver.ID
	Token    fence.Token
	Revision uint64 // up to which this process has read
}

// A Board is what one look at the board has found.
type Board struct {
	Readable       bool          // the look succeeded; else nothing below is known
	Sent, Answered time.Duration // when the look was sent, and answered

	Heartbeat Heartbeat
	Offer     Offer

	Consulted bool // the two below were read as well; a standby needs them only before it claims
	Intent    Intent
	Contender Contender
}

// A Heartbeat is the holder's newest.
type Heartbeat struct {
	Claim driver.ID
	Seq   uint64 // grows with each heartbeat of a claim
	Left  bool   // no process holds that claim any more
}

// An Offer is a holder's word that it has stopped its work, so that a claim may
// follow.
type Offer struct {
	Claim driver.ID             // of the holder
	To    generation.Generation // generation.None: to any process of the holder's own
	Open  bool                  // false: it was withdrawn
}

// An Intent says which generation is promoted.
type Intent struct {
	Generation generation.Generation // generation.None: no generation is
	By         string                // for people
	Aborted    bool                  // this process's own generation was given up
}

// A Contender is a ready process of the promoted generation, which is about to
// claim.
type Contender struct {
	Generation generation.Generation
	Seq        uint64 // grows with each sign of life
}

// A Level says how thoroughly it was examined whether this process could lead.
type Level uint8

const (
	// Basic is what every look at the board examines. It may use answers that are
	// a heartbeat old.
	Basic Level = iota
	// Fresh asks everything anew, beside the holder's work.
	Fresh
	// Final asks everything anew while the holder is paused.
	Final
)

// A Readiness says whether this process could lead.
type Readiness struct {
	Level    Level
	Revision uint64 // up to which the data were examined
	Missing  string // why it could not lead; empty: it could
}

// A Stage says how far a handover has come.
type Stage uint8

const (
	// NotAsked: the holder was not asked, or it is not known yet what it answers.
	NotAsked Stage = iota
	// Acknowledged: the holder ends its work.
	Acknowledged
	// Paused: the holder has ended its work, and waits for the claim.
	Paused
	// Declined: the holder did no work when it answered, and waits for nothing.
	Declined
	// Unanswered: the holder did not acknowledge in time.
	Unanswered
	// Denied: the holder does not see what this process has seen on the board, or
	// hands over to another process already.
	Denied
	// Resumed: the holder works again.
	Resumed
)

// A Handover is what came of asking the holder.
type Handover struct {
	Stage    Stage
	At       time.Duration // when it came to this stage
	Revision uint64        // up to which a paused holder has committed
	Offered  bool          // a paused holder has written an offer to the board, and withdraws it before it works again
	Detail   string        // for people
}

// A Step is what a candidate does next.
type Step uint8

const (
	// Wait until something happens, or until the next look is due.
	Wait Step = iota
	// Consult the intent and the contender too, and look again.
	Consult
	// Examine at Action.Level whether this process could lead.
	Examine
	// Promote this process's own generation.
	Promote
	// Ask the holder to hand over.
	Ask
	// Claim under the conditions of Action.Claim.
	Claim
	// Resume tells a holder that was asked to go on.
	Resume
)

// An Action is what a candidate does next, and what it says of itself.
type Action struct {
	Step  Step
	Level Level      // of Examine
	Claim Conditions // of Claim

	Ready   bool   // this process could lead
	Reason  string // for people: why it waits, or claims
	Contend bool   // tell lower generations, for a lease from now at most, that a process of the promoted one is about to claim
	Alarm   string // nobody leads, and why this process may not; empty: somebody leads, or it may
}

// A Note is a record of the board that a claim may be conditional on.
type Note uint8

const (
	// NoteIntent is the intent.
	NoteIntent Note = iota
	// NoteHeartbeat is the holder's heartbeat.
	NoteHeartbeat
	// NoteOffer is the holder's offer. Once the holder was asked, it is the note of
	// the offer that the holder has named, and until it names one, the note as it
	// was seen before the question: a holder that pauses too late changes it.
	NoteOffer
)

// Conditions are what must still be true when a claim lands. At most one of
// Never, Lower and Over is set.
type Conditions struct {
	Never bool      // nobody ever claimed
	Lower bool      // the newest claim is of a lower generation
	Over  driver.ID // the newest claim is this one
	Notes []Note    // are as they were seen in the same View

	Reason string // for people: why the claim is made
}
