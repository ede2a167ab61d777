package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The generations of the two servers.
const (
	blueGeneration  = 1
	greenGeneration = 2
)

// A script is what happens in one round.
type script struct {
	title string
	play  func(r *round, ctx context.Context)
}

func scripts() []script {
	return []script{
		{"green takes over from blue under load, and is killed later", (*round).takeover},
		{"blue is stopped before green's claim and continued after it", (*round).stopped},
	}
}

// A round is one script on one catalog, with what came of it.
type round struct {
	*demo
	number int
	script script
	url    string
	dir    string

	ledger  *ledger
	load    *load
	proxy   *proxy
	watches sync.WaitGroup
	unwatch context.CancelFunc
	watched context.Context

	mu        sync.Mutex
	processes []*process // in the order of their generations

	blue, green *process // nil before they are started

	began, ended       time.Time
	marks              []mark
	failed             []string // the steps that did not happen
	parking            *parking // of blue; nil while it isn't parked
	tries              int      // how often blue was stopped until a claim was possible
	promotedAt, killAt time.Time
	found              findings
}

func (d *demo) newRound(number int, s script) *round {
	return &round{demo: d, number: number, script: s, url: d.storeURL(number), ledger: new(ledger)}
}

// run plays the script, ends everything that it has started, and then checks
// the ledger. Steps that did not happen are noted; an error means that the
// round could not begin.
func (r *round) run(ctx context.Context) (err error) {
	r.dir = filepath.Join(r.demo.dir, fmt.Sprintf("round-%d", r.number))
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return err
	}
	if r.proxy, err = startProxy(ctx); err != nil {
		return err
	}
	name, err := r.storeName(ctx)
	if err != nil {
		r.proxy.close()
		return err
	}
	r.watched, r.unwatch = context.WithCancel(ctx)
	r.load = newLoad(ctx, r.ledger, r.opts.patience)
	r.began = time.Now()
	r.progress.say("round %d: %s", r.number, r.script.title)
	r.progress.say("  the store is %s; clients write to %s", name, r.proxy.address())
	r.script.play(r, ctx)
	r.end()
	if ctx.Err() == nil {
		r.step(ctx, "the ledger is held against the store", r.check)
		r.complain()
	}
	return nil
}

// end ends clients, servers and proxy, in this order.
func (r *round) end() {
	r.load.end()
	r.ended = time.Now()
	r.unwatch()
	r.watches.Wait()
	for _, p := range r.running() {
		if err := p.stop(); err != nil {
			r.progress.say("  %v", err)
		}
	}
	r.proxy.close()
}

// start starts a server, and watches it from then on.
func (r *round) start(name string, generation int) (*process, error) {
	p, err := r.launch(name, r.url, generation, r.dir)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.processes = append(r.processes, p)
	r.mu.Unlock()
	r.watches.Go(func() { p.follow(r.watched, r.route) })
	return p, nil
}

func (r *round) running() []*process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*process(nil), r.processes...)
}

// route points the stable address to the server that leads. For a moment two
// may say so: then to the newer one.
func (r *round) route() {
	target := ""
	for _, p := range r.running() {
		if _, leading := p.watch.now(); leading {
			target = p.listen
		}
	}
	r.proxy.forward(target)
}

// step does one thing within its time, and reports whether it happened.
func (r *round) step(ctx context.Context, what string, do func(context.Context) error) bool {
	bounded, cancel := context.WithTimeout(ctx, r.opts.patience)
	defer cancel()
	began := time.Now()
	err := do(bounded)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		r.failed = append(r.failed, fmt.Sprintf("round %d: %s: %v", r.number, what, err))
		r.progress.say("  FAILED: %s: %v", what, err)
		return false
	}
	r.progress.say("  %s (%d ms)", what, time.Since(began).Milliseconds())
	return true
}

// mark notes an event for the timeline.
func (r *round) mark(glyph byte) time.Time {
	now := time.Now()
	r.marks = append(r.marks, mark{at: now, glyph: glyph})
	return now
}

// check holds the ledger against the store.
func (r *round) check(ctx context.Context) (err error) {
	r.found, err = audit(ctx, r.url, r.ledger.all())
	return err
}

// complain shows the ends of the logs after a step that did not happen.
func (r *round) complain() {
	if len(r.failed) == 0 {
		return
	}
	for _, p := range r.running() {
		r.progress.print(fmt.Sprintf("    the last lines of %s:\n%s", p, p.lastLines(12)))
	}
}
