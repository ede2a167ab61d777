package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A Violation is an invariant that did not hold.
type Violation struct {
	Seed  uint64        // of a random schedule; 0: it was another play
	At    time.Duration // virtual time since the start
	What  string
	Trace []string // what happened before, if it was asked for
}

func (v *Violation) Error() string {
	text := fmt.Sprintf("after %v: %s", v.At, v.What)
	if v.Seed != 0 {
		text = fmt.Sprintf("schedule %d, which make sim SEED=%d plays again, %s", v.Seed, v.Seed, text)
	}
	if len(v.Trace) > 0 {
		text += "\n" + strings.Join(v.Trace, "\n")
	}
	return text
}

// violated notes the first invariant that does not hold.
func (w *world) violated(format string, args ...any) {
	if w.fault == nil {
		w.fault = &Violation{At: w.now, What: fmt.Sprintf(format, args...)}
		w.say("VIOLATED: %s", w.fault.What)
	}
}

// check runs after every event.
func (w *world) check() {
	h := w.makers[w.head.Claim.ID]
	if h == nil || h.dead || h.leads == nil || h.leads.work != election.Running {
		return
	}
	if o := w.offer; o.Open && o.Claim == h.leads.claim {
		w.violated("the work of %s runs while its offer is open on the board", h.name)
	}
}

// checkClaim runs as a claim lands over prior, on the board b.
func (w *world) checkClaim(a *attempt, claim driver.Claim, prior driver.Head, b board) {
	mine, theirs := a.generation, prior.Claim.Token.Generation
	h := w.makers[prior.Claim.ID]
	switch {
	case mine < theirs:
		w.violated("generation %v claims over %v", mine, theirs)
	case claim.Token.Compare(prior.Claim.Token) <= 0:
		w.violated("the claim of %v follows that of %v", claim.Token, prior.Claim.Token)
	case a.by == nil || a.by.bare:
		return
	case mine != theirs && slices.Contains(b.intent.aborted, mine):
		w.violated("generation %v claims, and was aborted", mine)
	case mine != theirs && !prior.IsZero() && b.intent.generation != mine:
		w.violated("generation %v claims over %v, and is not promoted", mine, theirs)
	case a.ask != nil && a.ask.resumed && a.ask.holder == h && h.works():
		w.violated("%s claims over %s, which has gone back to work since it was asked", a.by.name, a.ask.holder.name)
	case slices.Contains(a.cond.Notes, election.NoteOffer) && a.cond.Over == prior.Claim.ID && h != nil && !h.dead && h.leads != nil && h.leads.work == election.Running:
		w.violated("%s claims by the offer of %s, which works", a.by.name, h.name)
	case mine == theirs && h != nil && w.healthy(h) && !h.leads.request.Acknowledged:
		w.violated("%s of the same generation fences %s, which works and was not asked", a.by.name, h.name)
	}
}

// healthy reports whether a holder works, and nothing has kept it from renewing its
// lease for as long as that lasts.
func (w *world) healthy(h *process) bool {
	faulty := w.state != up || w.lossy || w.slow || w.cutStore[h.host]
	quiet := w.now - max(w.disturbed, w.apart[h.host], w.excused[h])
	return h.works() && !h.stopped && !faulty && quiet > lease
}

// checkCommit runs as a commit lands.
func (w *world) checkCommit(rec driver.Record) {
	if rec.Token.Compare(w.head.Claim.Token) != 0 {
		w.violated("a commit under %v lands behind the claim of %v", rec.Token, w.head.Claim.Token)
	}
}

// checkStart runs as the work starts.
func (w *world) checkStart(l *leadership) {
	if o := w.offer; o.Open && o.Claim == l.claim {
		w.violated("the work of %s starts while its offer is open on the board", l.p.name)
	}
}

// checkEnd runs as a term ends.
func (w *world) checkEnd(l *leadership) {
	if l.work == election.Running {
		w.violated("the term of %s ends while its work runs", l.p.name)
	}
}

// checkAbandoned runs as work is left behind.
func (w *world) checkAbandoned(l *leadership) {
	if l.newest.IsZero() || l.work != election.Running || !l.joining {
		w.violated("%s leaves work behind that it need not", l.p.name)
	}
}

// checkPause runs as a holder pauses for an asker, which may have asked it before.
func (w *world) checkPause(l *leadership) {
	if l.ask == nil {
		return
	}
	if last, ok := w.asks[l.ask.by.p][l.claim]; ok && w.now-last < handover*9/10 {
		w.violated("%s disturbs %s again %v after it did in vain", l.ask.by.p.name, l.p.name, w.now-last)
	}
}

// wasSpared notes that an asker has let a holder go on which had ended its work.
func (w *world) wasSpared(a *ask) {
	stage := a.handover.Stage
	if stage != election.Acknowledged && stage != election.Paused && stage != election.Resumed || a.holder.leads == nil {
		return
	}
	by := a.by.p
	if w.asks[by] == nil {
		w.asks[by] = make(map[driver.ID]time.Duration)
	}
	w.asks[by][a.holder.leads.claim] = w.now
}

// wanted returns the generation that should lead once no fault is there any more:
// the promoted one, if a process of it could lead, and else the holder's.
func (w *world) wanted() generation.Generation {
	b := w.read()
	leads := w.head.Claim.Token.Generation
	if g := b.intent.generation; g > leads && w.able(g) {
		return g
	}
	return leads
}

// able reports whether a process of g could lead; of any generation that was not
// aborted, if nobody ever claimed.
func (w *world) able(g generation.Generation) bool {
	aborted := w.read().intent.aborted
	return slices.ContainsFunc(w.living, func(p *process) bool {
		fits := p.generation == g || g == generation.None && !slices.Contains(aborted, p.generation)
		return fits && !p.unready && !p.ending && !p.bare && p.crashes == 0
	})
}

// settled reports whether the wanted generation leads and works.
func (w *world) settled() bool {
	return w.served() && w.head.Claim.Token.Generation == w.wanted()
}
