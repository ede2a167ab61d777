package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/leader/internal/election"
)

// A planted is a candidate with a fault.
type planted struct {
	*election.Candidate
	sees func(*election.View)
	does func(*election.Action)
}

func (p planted) Next(v election.View) election.Action {
	if p.sees != nil {
		p.sees(&v)
	}
	a := p.Candidate.Next(v)
	if p.does != nil {
		p.does(&a)
	}
	return a
}

// candidates plants a fault in every candidate.
func candidates(plant func(election.Settings) planted) Machines {
	return Machines{Candidate: func(s election.Settings) Candidate {
		p := plant(s)
		p.Candidate = election.NewCandidate(s)
		return p
	}}
}

// A plantedTerm is a term with a fault.
type plantedTerm struct {
	*election.Term
	sees func(*election.TermView)
	does func(*election.Order)
}

func (p plantedTerm) Next(v election.TermView) election.Order {
	if p.sees != nil {
		p.sees(&v)
	}
	o := p.Term.Next(v)
	if p.does != nil {
		p.does(&o)
	}
	return o
}

func terms(p plantedTerm) Machines {
	return Machines{Term: func(s election.Settings, why string) Term {
		p := p
		p.Term = election.NewTerm(s, why)
		return p
	}}
}

// withoutNote takes a condition out of every claim.
func withoutNote(n election.Note) func(*election.Action) {
	return func(a *election.Action) {
		a.Claim.Notes = slices.DeleteFunc(slices.Clone(a.Claim.Notes), func(o election.Note) bool { return o == n })
	}
}

// A plant is a fault, and a play in which the checker finds it. Without a play that
// is a random schedule.
type plant struct {
	name     string
	machines Machines
	play     func(*testing.T, *world)
}

func plants() []plant {
	return []plant{
		{"a claim without the note of the offer", candidates(func(election.Settings) planted {
			return planted{does: withoutNote(election.NoteOffer)}
		}), lateClaim},
		{"a holder that works again is claimed over", candidates(func(election.Settings) planted {
			return planted{sees: func(v *election.View) {
				if v.Handover.Stage == election.Resumed {
					v.Handover.Stage = election.Unanswered
				}
			}, does: withoutNote(election.NoteOffer)}
		}), stoppedAsker},
		{"a claim without the note of the intent", candidates(func(election.Settings) planted {
			return planted{does: withoutNote(election.NoteIntent)}
		}), nil},
		{"silence that counts while the store can't be read, and a claim without the note of the heartbeat", candidates(blindSilence), lonelyStandby},
		{"a pause after a failure that is ignored", candidates(func(election.Settings) planted {
			return planted{sees: func(v *election.View) { v.Nudged = true }}
		}), nil},
		{"an abort that is ignored", candidates(func(s election.Settings) planted {
			return planted{sees: func(v *election.View) {
				if v.Board.Intent.Aborted {
					v.Board.Intent = election.Intent{Generation: s.Generation}
				}
			}}
		}), nil},
		{"a promotion that nobody made", candidates(func(s election.Settings) planted {
			return planted{sees: func(v *election.View) { v.Board.Intent.Generation = s.Generation }}
		}), nil},
		{"work that starts before the withdrawal", terms(plantedTerm{
			sees: func(v *election.TermView) { v.Offer = election.Withdrawn },
			does: func(o *election.Order) {
				if o.Duty == election.WithdrawOffer {
					o.Duty = election.Stay
				}
			},
		}), nil},
		{"a withdrawal that is not written, because no offer is seen", Machines{KeepUnseenOffers: true}, lateOffer},
		{"a lease that never lapses", terms(plantedTerm{
			sees: func(v *election.TermView) { v.Leased = true },
		}), nil},
		{"a term that ends before its work", terms(plantedTerm{
			does: func(o *election.Order) {
				if o.Duty == election.StopWork {
					o.Duty = election.EndTerm
				}
			},
		}), nil},
	}
}

// blindSilence takes what was seen last for what is seen while the store can't be
// read.
func blindSilence(election.Settings) planted {
	var last election.Board
	return planted{sees: func(v *election.View) {
		if v.Board.Readable {
			last = v.Board
		} else if last.Readable && v.Board.Sent > 0 {
			last.Sent, last.Answered = v.Board.Sent, v.Board.Answered
			v.Board = last
		}
	}, does: withoutNote(election.NoteHeartbeat)}
}

// lateClaim plays a claim that is under way until its process has given up.
func lateClaim(t *testing.T, w *world) {
	_, waiting := steady(t, w, plain("a", 1), plain("c", 2))
	w.promote(2)
	w.run(lease, func() bool { return w.offer.Open })
	w.state = hanging
	w.run(lease, func() bool { return len(waiting[0].tried) > 0 })
	w.state = up
	w.run(2*lease, nil)
}

// lateOffer plays an offer that is under way until its process has given up.
func lateOffer(t *testing.T, w *world) {
	h, _ := steady(t, w, plain("a", 1), plain("c", 2))
	w.promote(2)
	w.run(lease, func() bool { return w.pauses > 0 })
	w.state = hanging
	w.run(50*time.Millisecond, nil)
	w.state = up
	w.stepDown()
	w.lossy = true
	for range 5 {
		h.run(func() { h.leads.step() })
		w.run(lease, nil)
		w.stepDown()
	}
}

// stoppedAsker plays a successor that is stopped while the holder waits for it.
func stoppedAsker(t *testing.T, w *world) {
	_, waiting := steady(t, w, plain("a", 1), plain("c", 2))
	w.promote(2)
	w.run(lease, func() bool { return w.pauses > 0 })
	waiting[0].stop()
	w.run(2*handover, nil)
	waiting[0].resume()
	w.run(lease, nil)
}

// lonelyStandby plays a standby that is cut off from the store, and not from the
// holder.
func lonelyStandby(t *testing.T, w *world) {
	_, _ = steady(t, w, plain("a", 1), plain("b", 1).on(1))
	w.isolate(1, true)
	w.run(silence+poll, nil)
	w.isolate(1, false)
	w.run(lease, nil)
}

// within is in how many plays each planted fault is found.
const within = 300

func TestTheCheckerFindsEachPlantedFault(t *testing.T) {
	t.Parallel()
	for _, p := range plants() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var err error
			seed := uint64(0)
			for err == nil && seed < within {
				seed++
				err = p.try(t, seed)
			}
			require.Error(t, err, "not found in %d plays", within)
			t.Logf("play %d: %v", seed, err)
		})
	}
}

func (p plant) try(t *testing.T, seed uint64) error {
	if p.play == nil {
		_, err := Run(seed, p.machines, false)
		return err
	}
	w := newWorld(seed, p.machines, false)
	p.play(t, w)
	return w.error()
}
