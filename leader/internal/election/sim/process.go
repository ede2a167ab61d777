package sim

import (
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A profile is what the lives of one process have in common.
type profile struct {
	name       string
	generation generation.Generation
	host       int

	restarts  bool          // a supervisor starts it again, whatever ended it
	start     time.Duration // how long that takes
	delay     time.Duration // of its priority
	migration time.Duration // how long its migrations take
	join      time.Duration // how long its work takes to end
	address   bool          // processes of other hosts reach it
	auto      bool          // it promotes itself
	bare      bool          // it claims at once, and works without any of the rules: an old tool
	crashes   time.Duration // after how long it dies by itself; 0: it does not
	unready   bool          // its final examination fails
}

// A process is one life.
type process struct {
	w *world
	profile
	boot   int     // of its host
	rate   float64 // of its clock
	offset time.Duration

	dead    bool
	stopped bool // SIGSTOP
	ending  bool // SIGTERM
	backlog []func()

	head     driver.Head
	runs     *candidacy  // while it waits
	leads    *leadership // while it holds the token
	deaths   map[driver.ID]string
	tried    map[driver.ID]bool
	stepped  bool // prefers not to lead
	seq      int  // of its waits
	rehearse uint64
	ready    bool // its migrations were rehearsed
}

// begin starts a life.
func (w *world) begin(pr profile) *process {
	p := &process{
		w: w, profile: pr, boot: w.boots[pr.host], rate: 0.99 + 0.02*w.rng.Float64(), offset: w.between(0, time.Hour),
		deaths: make(map[driver.ID]string), tried: make(map[driver.ID]bool),
	}
	if w.calm {
		p.crashes, p.unready = 0, false
	}
	w.lives++
	p.name = fmt.Sprintf("%s#%d", pr.name, w.lives)
	w.living = append(w.living, p)
	w.say("%s of generation %v starts on host %d", p.name, p.generation, p.host)
	if p.crashes > 0 {
		w.in(p.crashes, p.crash)
	}
	p.follow()
	return p
}

// clock is the boot clock of the process.
func (p *process) clock() time.Duration {
	return p.offset + time.Duration(float64(p.w.now)*p.rate)
}

// after runs fn in the process once its clock has gone on by d.
func (p *process) after(d time.Duration, fn func()) {
	p.w.in(time.Duration(float64(d)/p.rate), func() { p.run(fn) })
}

// run runs fn in the process: later, if that is stopped, and never, if it is dead.
func (p *process) run(fn func()) {
	switch {
	case p.dead:
	case p.stopped:
		p.backlog = append(p.backlog, fn)
	default:
		fn()
	}
}

// follow reads the head, again and again until the store answers, and waits for
// the token.
func (p *process) follow() {
	if p.ending {
		p.exit("asked to stop")
		return
	}
	var head driver.Head
	p.call(storeTimeout, false, func() error { head = p.w.head; return nil }, func(err error) {
		if err != nil {
			p.after(poll, p.follow)
			return
		}
		p.head = head
		switch {
		case head.Claim.Token.Generation > p.generation:
			p.exit("superseded")
		case p.bare:
			p.claimBare()
		default:
			p.runs = newCandidacy(p)
			p.runs.tick()
		}
	})
}

// sees takes a head that is not older than the one before.
func (p *process) sees(h driver.Head) {
	if h.Revision <= p.head.Revision {
		return
	}
	moved := h.Claim.ID != p.head.Claim.ID
	p.head = h
	switch {
	case p.leads != nil && h.Claim.ID != p.leads.claim:
		p.leads.loses(h)
	case p.leads != nil:
	case h.Claim.Token.Generation > p.generation:
		p.exit("superseded")
	case moved && p.runs != nil:
		p.runs.wake()
	}
}

// works reports whether the work runs and takes requests.
func (p *process) works() bool {
	return !p.dead && p.leads != nil && p.leads.work == election.Running && !p.leads.joining
}

// kill ends the process at once.
func (p *process) kill(why string) {
	if p.dead {
		return
	}
	p.w.say("%s is killed: %s", p.name, why)
	p.endLife(true)
	p.again()
}

// crash kills a process that does not run for long, while there are faults.
func (p *process) crash() {
	if !p.w.calm {
		p.kill("crashes")
	}
}

// exit ends the process by itself.
func (p *process) exit(why string) {
	if p.dead {
		return
	}
	p.w.say("%s exits: %s", p.name, why)
	p.endLife(true)
	if why != "superseded" && !p.ending {
		p.again()
	}
}

// again has the supervisor start the process again.
func (p *process) again() {
	if p.restarts {
		pr := p.profile
		pr.name = pr.name[:len(pr.name)-len(suffix(pr.name))]
		p.w.in(pr.start, func() { p.w.begin(pr) })
	}
}

// suffix is the number of a life in its name.
func suffix(name string) string {
	for i := range name {
		if name[i] == '#' {
			return name[i:]
		}
	}
	return ""
}

// endLife ends the life. Proven: the kernel says so to those that watch.
func (p *process) endLife(proven bool) {
	w := p.w
	p.dead, p.backlog = true, nil
	for i, q := range w.living {
		if q == p {
			w.living = append(w.living[:i:i], w.living[i+1:]...)
			break
		}
	}
	if p.runs != nil {
		p.runs.disconnect(proven)
	}
	if p.leads != nil {
		p.leads.disconnect(proven)
	}
	for _, q := range w.living {
		if proven && q.watches(p) {
			w.in(w.between(time.Millisecond, 5*time.Millisecond), func() { q.run(func() { q.noteDeath(p) }) })
		}
	}
}

// watches reports whether the end of o is known to p: by the kernel within one
// host, and by a connection that breaks between two that are not cut off.
func (p *process) watches(o *process) bool {
	if p.runs == nil || o.leads == nil || p.runs.board.beat.from != o {
		return false
	}
	return p.host == o.host || o.address && !p.w.cutHosts[p.host][o.host]
}

// noteDeath notes that the process of a claim has ended.
func (p *process) noteDeath(o *process) {
	if o.leads == nil {
		return
	}
	if !o.dead {
		p.w.violated("a death was proven of a process that lives: %s", o.name)
	}
	p.deaths[o.leads.claim] = o.name
	if p.runs != nil {
		p.runs.wake()
	}
}

// send brings a message to another process.
func (p *process) send(to *process, fn func()) {
	if !p.w.cutHosts[p.host][to.host] {
		p.w.in(p.w.latency(), func() { to.run(fn) })
	}
}

// stop and resume are SIGSTOP and SIGCONT.
func (p *process) stop() {
	p.stopped = true
	p.w.excused[p] = p.w.now
	p.w.say("%s is stopped", p.name)
}

func (p *process) resume() {
	if p.dead || !p.stopped {
		return
	}
	p.w.say("%s goes on", p.name)
	p.stopped = false
	p.w.excused[p] = p.w.now
	backlog := p.backlog
	p.backlog = nil
	for _, fn := range backlog {
		p.run(fn)
	}
}

// terminate is SIGTERM.
func (p *process) terminate() {
	p.run(func() {
		p.ending = true
		switch {
		case p.leads != nil:
			p.leads.over = true
			p.leads.step()
		default:
			p.exit("asked to stop")
		}
	})
}
