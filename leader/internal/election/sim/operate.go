package sim

import (
	"slices"
	"time"

	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// promote plays an operator that promotes g.
func (w *world) promote(g generation.Generation) {
	w.update(intentKey, func(b board) any {
		i := b.intent
		if i.generation >= g || slices.Contains(i.aborted, g) || w.head.Claim.Token.Generation >= g {
			return nil
		}
		i.generation = g
		w.say("generation %v is promoted", g)
		return i
	})
}

// abort plays an operator that gives g up, if it does not lead yet.
func (w *world) abort(g generation.Generation) {
	w.update(intentKey, func(b board) any {
		i := b.intent
		if w.head.Claim.Token.Generation >= g {
			return nil
		}
		i.aborted = append(slices.Clone(i.aborted), g)
		if i.generation == g {
			i.generation = generation.None
		}
		w.say("generation %v is aborted", g)
		return i
	})
}

// fence plays a tool that raises the token. Unless it is an old one, or could not
// write the board, it has said before that nobody will hold its claim.
func (w *world) fence(word bool) {
	a := &attempt{id: w.id(), generation: w.head.Claim.Token.Generation, base: w.head.Claim.ID}
	a.cond.Reason = "fenced by an operator"
	if w.head.IsZero() {
		return
	}
	w.raised[a.id] = word
	_ = w.land(a)
}

// stepDown plays an operator that has the holder offer its token to standbys.
func (w *world) stepDown() {
	h := w.makers[w.head.Claim.ID]
	if h == nil || h.dead || h.leads == nil {
		return
	}
	h.run(func() {
		l := h.leads
		if l == nil || l.ended || l.request.Made {
			return
		}
		w.say("%s is asked to step down", h.name)
		l.ask, l.request = nil, election.Request{Made: true}
		l.step()
	})
}

// vanish ends a host: nobody can prove the deaths.
func (w *world) vanish(host int) {
	w.say("host %d vanishes", host)
	w.boots[host]++
	for _, p := range slices.Clone(w.living) {
		if p.host == host {
			p.endLife(false)
			p.again()
		}
	}
}

// heal ends every fault.
func (w *world) heal() {
	w.say("every fault ends")
	w.calm = true
	w.state, w.lossy, w.slow = up, false, false
	w.cutStore, w.cutHosts = [hosts]bool{}, [hosts][hosts]bool{}
	w.disturbed, w.apart = w.now, [hosts]time.Duration{w.now, w.now, w.now}
	for _, p := range slices.Clone(w.living) {
		p.unready, p.crashes = false, 0
		p.resume()
	}
}

// cut separates two hosts, or joins them again.
func (w *world) cut(a, b int, on bool) {
	w.cutHosts[a][b], w.cutHosts[b][a] = on, on
}

// isolate cuts a host off from the store, or joins it again.
func (w *world) isolate(host int, on bool) {
	w.cutStore[host], w.apart[host] = on, w.now
}

// claimBare claims as a tool does that knows of no rules.
func (p *process) claimBare() {
	w := p.w
	a := &attempt{id: w.id(), generation: p.generation, by: p, base: p.head.Claim.ID}
	a.cond.Reason = "an old tool claims"
	p.call(storeTimeout, true, func() error { return w.land(a) }, func(err error) {
		if err == errSuperseded {
			p.exit("superseded")
		} else if err != nil {
			p.after(poll, p.follow)
		}
	})
}

// lasts returns how long a fault lasts.
func (w *world) lasts() time.Duration {
	if w.one(3) {
		return w.between(lease/2, 3*lease)
	}
	return w.between(10*time.Millisecond, lease)
}
