package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A Candidate is an [election.Candidate], or one with a fault planted in it.
type Candidate interface {
	Next(election.View) election.Action
	Asked() bool
	Over(now time.Duration)
}

// A Term is an [election.Term], or one with a fault planted in it.
type Term interface {
	Next(election.TermView) election.Order
}

// Machines make the machines of a process. Those that are nil are the real ones.
type Machines struct {
	Candidate func(election.Settings) Candidate
	Term      func(election.Settings, string) Term

	// KeepUnseenOffers plants a fault of a shell: it does not write the withdrawal
	// of an offer that it does not see on the board.
	KeepUnseenOffers bool
}

// The settings that all processes share.
const (
	lease    = 3 * time.Second
	poll     = 100 * time.Millisecond
	handover = 1500 * time.Millisecond
	drain    = 2 * time.Second
	silence  = lease + lease/20
	answer   = 500 * time.Millisecond // for an acknowledgement
	step     = 2 * poll               // of a priority

	heartbeat    = lease / 3
	storeTimeout = 2 * lease / 3
)

// hosts is how many there are.
const hosts = 3

// A world is one run.
type world struct {
	machines Machines
	rng      *rand.Rand
	now      time.Duration
	events   queue
	seq      uint64
	ids      uint64

	store   *memory.Store
	values  map[int64]any  // of notes, by their versions
	head    driver.Head    // of the store
	offer   election.Offer // on the board
	touched uint64         // the newest revision that changed what migrations read

	living []*process
	makers map[driver.ID]*process // of claims; nil: a tool
	raised map[driver.ID]bool     // the claims of tools that the board names
	lives  int

	boots     [hosts]int
	state     outage
	lossy     bool // requests and answers of writes may be lost
	slow      bool
	cutStore  [hosts]bool
	cutHosts  [hosts][hosts]bool
	disturbed time.Duration              // when a fault of the store was last there
	apart     [hosts]time.Duration       // when a host was last cut off from it
	excused   map[*process]time.Duration // when a process was last stopped

	calm     bool // no fault is there any more
	unserved time.Duration
	claims   int
	pauses   int
	finals   int // migrations that ran while the holder was paused

	asks  map[*process]map[driver.ID]time.Duration // when an asker last let a holder go on
	fault *Violation
	trace []string
	trail bool
}

// An outage is what the store does with calls.
type outage uint8

const (
	up outage = iota
	failing
	hanging
)

func newWorld(seed uint64, m Machines, trail bool) *world {
	return &world{
		machines: m, rng: rand.New(rand.NewPCG(seed, 0)), store: memory.New(), trail: trail,
		values: make(map[int64]any), makers: make(map[driver.ID]*process), raised: make(map[driver.ID]bool),
		excused: make(map[*process]time.Duration), asks: make(map[*process]map[driver.ID]time.Duration),
	}
}

// at schedules fn.
func (w *world) at(t time.Duration, fn func()) {
	w.seq++
	w.events.push(event{at: max(t, w.now), seq: w.seq, run: fn})
}

func (w *world) in(d time.Duration, fn func()) { w.at(w.now+d, fn) }

// run plays the schedule for d, or until done reports true or an invariant does
// not hold.
func (w *world) run(d time.Duration, done func() bool) bool {
	until := w.now + d
	if done != nil && done() {
		return true
	}
	for w.fault == nil && len(w.events) > 0 && w.events[0].at <= until {
		e := w.events.pop()
		if !w.served() {
			w.unserved += e.at - w.now
		}
		w.now = e.at
		e.run()
		w.check()
		if done != nil && done() {
			return true
		}
	}
	if w.fault == nil {
		w.now = until
	}
	return done != nil && done()
}

// between returns a duration from lo to hi.
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

// one reports true in one of n cases.
func (w *world) one(n int) bool { return w.rng.IntN(n) == 0 }

// say notes what happens, for the schedule of a run that failed.
func (w *world) say(format string, args ...any) {
	if w.trail {
		w.trace = append(w.trace, fmt.Sprintf("%10.6f  ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

// id returns an identifier that no other commit has.
func (w *world) id() driver.ID {
	w.ids++
	var id driver.ID
	for i := range 8 {
		id[15-i] = byte(w.ids >> (8 * i))
	}
	return id
}

// served reports whether the newest holder works.
func (w *world) served() bool {
	h := w.makers[w.head.Claim.ID]
	return h != nil && h.works() && !h.stopped && h.leads.claim == w.head.Claim.ID
}

// restart begins the accounting of a scenario anew.
func (w *world) restart() {
	w.unserved, w.claims, w.pauses, w.finals = 0, 0, 0, 0
}
