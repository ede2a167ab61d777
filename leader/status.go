package leader

import (
	"errors"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// maxMoves is how many moves a Status remembers.
const maxMoves = 128

// A Status is what a process knows of itself, without asking the store.
type Status struct {
	Member     string                `json:"member"` // the ID of this Run on the board: see Member
	Phase      Phase                 `json:"phase"`
	Generation generation.Generation `json:"generation"`
	Token      *fence.Token          `json:"token"`              // held by this process; null without one
	Ready      bool                  `json:"ready"`              // it holds the token, or could lead
	Serving    bool                  `json:"serving"`            // the work says that it answers requests
	Busy       string                `json:"busy"`               // what the work says is under way; empty: nothing
	LeaseLeft  float64               `json:"lease_left_seconds"` // for how long the token is believed to be held without asking
	Reluctant  bool                  `json:"prefer_not_to_lead"`
	Standbys   int64                 `json:"standbys"` // waiting processes that are connected to this one
	Revision   uint64                `json:"revision"` // up to which this process has read or written
	Leader     *Holding              `json:"leader"`   // who holds the token, as far as was seen; null: nobody ever did
	Since      time.Time             `json:"since"`    // of the phase
	Reason     string                `json:"reason"`   // of the phase
	Store      string                `json:"store"`
	Admin      string                `json:"admin"`
	Moves      []Move                `json:"moves"` // the newest 128, oldest first
}

// A Holding is a token and who has it.
type Holding struct {
	Token  fence.Token  `json:"token"`
	Holder fence.Holder `json:"holder"`
}

// A Move is one change of phase.
type Move struct {
	From   Phase     `json:"from"`
	To     Phase     `json:"to"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// Status returns what the process knows of itself.
func (l *Leader) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Moves = append([]Move(nil), s.Moves...)
	s.Store, s.Admin = l.store.String(), l.admin.address()
	s.Ready = s.couldLead() && l.hindered == ""
	if l.hindered != "" {
		s.Reason = "the claim does not succeed: " + l.hindered
	}
	if s.Phase == Leading {
		missing := l.state.lacks()
		if s.Serving = missing == ""; !s.Serving {
			s.Reason = "leads, not serving: " + missing
		}
		s.Busy = l.state.busyWith()
	}
	s.LeaseLeft = max(0, l.lease.left().Seconds())
	s.Reluctant, s.Standbys = l.prefersNot(), l.peers.Standbys()
	if c := l.holding(); c != nil {
		s.Revision = c.Head().Revision
	}
	return s
}

// move changes the phase, as far as the rules allow it, and tells of it.
func (l *Leader) move(next Phase, reason string) {
	if from, err := l.note(next, reason); err != nil {
		l.log.Error("a forbidden move", "err", err)
	} else {
		l.log.Info("phase", "from", from.String(), "to", next.String(), "generation", l.cfg.Catalog.Generation, "reason", reason)
	}
	l.tell()
}

// note changes the phase, which was from.
func (l *Leader) note(next Phase, reason string) (from Phase, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from = l.status.Phase
	to, err := from.To(next)
	if err != nil {
		return from, err
	}
	m := Move{From: from, To: to, At: time.Now(), Reason: reason}
	l.status.Phase, l.status.Since, l.status.Reason = to, m.At, reason
	l.status.Moves = append(l.status.Moves, m)
	if extra := len(l.status.Moves) - maxMoves; extra > 0 {
		l.status.Moves = l.status.Moves[extra:]
	}
	return from, nil
}

// sees notes who leads, and tells of it.
func (l *Leader) sees(head driver.Head) {
	l.noteHead(head)
	l.tell()
}

func (l *Leader) noteHead(head driver.Head) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Revision = head.Revision
	l.status.Leader = nil
	if !head.IsZero() {
		l.status.Leader = &Holding{Token: head.Claim.Token, Holder: head.Claim.Holder}
	}
}

// holds notes that this process has the token, or with nil that it no longer
// has.
func (l *Leader) holds(c *catalog.Catalog) {
	if c != nil {
		l.noteHead(c.Head())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder.Store(c)
	l.status.Token = nil
	if c != nil {
		token := c.Token()
		l.status.Token = &token
	}
}

// holding returns the catalog while this process holds the token, or nil.
func (l *Leader) holding() *catalog.Catalog { return l.holder.Load() }

// because notes why the phase is still what it is.
func (l *Leader) because(reason string) {
	l.mu.Lock()
	l.status.Reason = reason
	l.mu.Unlock()
	l.tell()
}

// news returns a channel that is closed when there is something to see on the
// board.
func (l *Leader) news() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.announced
}

// announce tells the waiting processes that there is something to see.
func (l *Leader) announce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.announced)
	l.announced = make(chan struct{})
}

// fencedBy notes who leads instead, where err says so.
func (l *Leader) fencedBy(err error) {
	var f *fence.Error
	if !errors.As(err, &f) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Leader = &Holding{Token: f.Current, Holder: f.By}
}
