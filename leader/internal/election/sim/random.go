package sim

import (
	"time"

	"github.com/fencepost/fencepost/generation"
)

// A Result is what became of a run.
type Result struct {
	Lives   int           // of processes
	Claims  int           // that landed
	Virtual time.Duration // that was played
	Settled time.Duration // from the end of the faults until the right process worked
	Trace   []string      // what happened, if it was asked for
}

// settle is the longest time without a fault after which the highest promoted
// generation leads: a holder that was disturbed in vain four times is spared for
// 16 times HandoverTimeout.
const settleBound = 16*handover + 4*silence

// Run plays a random schedule. The same seed plays the same one. The error is a
// *Violation.
func Run(seed uint64, m Machines, trail bool) (Result, error) {
	w := newWorld(seed, m, trail)
	w.populate()
	end := w.between(4*lease, 8*lease)
	if seed%2 == 0 {
		w.deploys(end)
	}
	for w.fault == nil && w.now < end {
		w.run(w.between(10*time.Millisecond, lease/2), nil)
		w.disturb()
	}
	w.heal()
	r := Result{}
	w.run(time.Second, nil) // processes that are being started
	if w.fault == nil {
		begun := w.now
		if !w.run(settleBound, w.settledOrNobodyCan) {
			w.violated("generation %v does not lead and work %v after the last fault; the newest claim is of %v", w.wanted(), w.now-begun, w.head.Claim.Token)
		}
		r.Settled = w.now - begun
	}
	r.Claims, w.claims = w.claims, 0
	wanted := w.wanted()
	w.run(3*time.Second, nil)
	if w.claims > 1 && w.wanted() == wanted {
		w.violated("%d claims within 3 s, though generation %v leads and works", w.claims, wanted)
	}
	r.Lives, r.Virtual, r.Trace = w.lives, w.now, w.trace
	if w.fault != nil {
		w.fault.Seed, w.fault.Trace = seed, w.trace
		return r, w.fault
	}
	return r, nil
}

// settledOrNobodyCan reports whether the right generation leads, or no process of
// it lives.
func (w *world) settledOrNobodyCan() bool {
	return w.settled() || !w.able(w.wanted())
}

// populate starts the first processes.
func (w *world) populate() {
	for i := range 1 + w.rng.IntN(3) {
		w.begin(w.profile(string(rune('a'+i)), 1))
	}
}

// profile returns a process as good as any.
func (w *world) profile(name string, g generation.Generation) profile {
	p := profile{
		name: name, generation: g, host: w.rng.IntN(hosts), restarts: !w.one(5), address: !w.one(5),
		start: w.between(20*time.Millisecond, 300*time.Millisecond), join: w.between(0, 20*time.Millisecond),
	}
	if w.one(10) {
		p.crashes = w.between(50*time.Millisecond, 2*lease) // and again, while there are faults
	}
	p.auto = w.one(20)
	if w.one(3) {
		p.delay = time.Duration(1+w.rng.IntN(3)) * step
	}
	if w.one(2) {
		p.migration = w.between(0, 100*time.Millisecond)
	}
	if w.one(6) {
		p.migration = w.between(handover/4, 2*handover)
	}
	if w.one(5) {
		p.join = w.between(handover/4, 2*handover)
	}
	return p
}

// release starts processes of a new generation, if there are not many already, and
// returns the highest.
func (w *world) release() generation.Generation {
	highest := w.head.Claim.Token.Generation
	for _, p := range w.living {
		highest = max(highest, p.generation)
	}
	if len(w.living) > 8 {
		return highest
	}
	highest++
	for i := range 1 + w.rng.IntN(2) {
		pr := w.profile(string(rune('a'+i))+"-"+highest.String(), highest)
		pr.unready = w.one(6)
		w.begin(pr)
	}
	return highest
}

// disturb does something that happens.
func (w *world) disturb() {
	p := w.any()
	lasts := w.lasts()
	switch w.rng.IntN(22) {
	case 0, 1:
		p.kill("by hand")
	case 2, 3:
		p.stop()
		w.in(lasts, p.resume)
	case 4:
		w.isolate(p.host, true)
		w.in(lasts, func() { w.isolate(p.host, false) })
	case 5:
		other := (p.host + 1) % hosts
		w.cut(p.host, other, true)
		w.in(lasts, func() { w.cut(p.host, other, false) })
	case 6:
		w.state = outage(1 + w.rng.IntN(2))
		w.say("the store fails: %d", w.state)
		w.in(lasts, func() { w.state, w.disturbed = up, w.now })
	case 7:
		w.lossy = true
		w.in(lasts, func() { w.lossy, w.disturbed = false, w.now })
	case 8:
		w.slow = true
		w.in(lasts, func() { w.slow, w.disturbed = false, w.now })
	case 9, 10:
		w.release()
	case 11, 12, 13, 14:
		w.promote(p.generation)
	case 15:
		w.abort(p.generation)
	case 16, 17:
		w.stepDown()
	case 18:
		w.fence(!w.one(3))
	case 19:
		p.terminate()
	case 20:
		p.run(func() { p.leads.finish() })
	case 21:
		if w.one(3) {
			w.vanish(p.host)
		}
	}
}

// deploys plays handovers that go wrong, one after the other: those take a second
// of the half minute of other schedules.
func (w *world) deploys(end time.Duration) {
	for w.fault == nil && w.now < end {
		w.run(w.between(0, handover/2), nil)
		highest := w.release()
		w.run(w.between(poll, 5*poll), nil)
		w.promote(highest)
		for range w.rng.IntN(8) {
			w.run(w.between(0, handover/4), nil)
			w.interfere()
		}
	}
}

// interfere does something to a handover.
func (w *world) interfere() {
	p := w.any()
	lasts := w.between(time.Millisecond, 2*handover)
	switch w.rng.IntN(8) {
	case 0, 1, 2:
		p.stop()
		w.in(lasts, p.resume)
	case 3:
		p.kill("by hand")
	case 4:
		w.isolate(p.host, true)
		w.in(lasts, func() { w.isolate(p.host, false) })
	case 5:
		w.lossy = true
		w.in(lasts, func() { w.lossy, w.disturbed = false, w.now })
	case 6:
		w.cut(p.host, (p.host+1)%hosts, true)
		w.in(lasts, func() { w.cut(p.host, (p.host+1)%hosts, false) })
	case 7:
		w.stepDown()
	}
}

// any returns some process. If none lives, one is started.
func (w *world) any() *process {
	if len(w.living) == 0 {
		return w.begin(w.profile("z", max(1, w.head.Claim.Token.Generation)))
	}
	return w.living[w.rng.IntN(len(w.living))]
}
