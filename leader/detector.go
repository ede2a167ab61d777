package leader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/identity"
	"github.com/fencepost/fencepost/leader/internal/peer"
)

// A detector is a failure detector for the process that holds a claim. It has three
// proofs that this process has ended:
//
//   - the process is of this host, and the kernel says that it has ended, or ended
//     before the detector was started: see package identity;
//   - the supervisor of both processes waited for it, and says so by FENCEPOST_ENDED;
//   - a connection on which it proved its claim is lost, and its address, whose
//     listener it closes last, refuses another one.
//
// Every other loss proves nothing, and only wakes the waiting process, which looks at
// the board again. A process that can't be proven to have ended is waited for until
// its silence is as long as a lease.
type detector struct {
	l    *Leader
	wake chan struct{} // holds one if there is something to look at

	// Of the waiting goroutine:
	target target
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// A target is a process that a detector watches.
type target struct {
	claim   driver.ID
	process string // its identity, as its heartbeat has it; empty: unknown
	address string // where it answers; empty: nowhere that this process can reach
}

// A death is a proof that the process of a claim has ended.
type death struct {
	claim driver.ID
	why   string // how that is known, for people
}

func newDetector(l *Leader) *detector {
	return &detector{l: l, wake: make(chan struct{}, 1), cancel: func() {}}
}

// at has the detector watch the process of claim, which is found by its heartbeat.
// If that process has ended already, and can be proven to have, it is dead when at
// returns.
func (d *detector) at(ctx context.Context, claim driver.ID, beat Beat) {
	said, _ := beat.State() // what an older build left of an earlier holder says nothing
	next := target{claim: claim, process: said.Process, address: beat.reach(d.l.host)}
	if beat.Claim != claim || d.target == next {
		return
	}
	d.stop()
	d.target = next
	ctx, d.cancel = context.WithCancel(ctx)
	process, err := identity.Parse(next.process)
	if err == nil {
		d.look(claim, process)
	}
	if _, dead := d.dead(claim); dead {
		return
	}
	if err == nil {
		d.wg.Go(func() { d.watchProcess(ctx, claim, process) })
	}
	if next.address != "" {
		d.wg.Go(func() { d.watchConnection(ctx, claim, next.address) })
	}
}

// stop ends the watch and joins it.
func (d *detector) stop() {
	d.cancel()
	d.wg.Wait()
}

// dead reports whether the process of claim is proven to have ended, and how. The
// proof outlives the detector, so that a claim which failed is tried again at once.
func (d *detector) dead(claim driver.ID) (why string, ok bool) {
	if found := d.l.death.Load(); found != nil && found.claim == claim {
		return found.why, true
	}
	return "", false
}

// prove notes that the process of claim has ended.
func (d *detector) prove(claim driver.ID, why string) {
	d.l.death.Store(&death{claim: claim, why: why})
	d.notify()
}

// look looks once whether the process of claim has ended.
func (d *detector) look(claim driver.ID, process identity.Process) {
	if os.Getenv(identity.EndedEnv) == process.String() {
		d.prove(claim, fmt.Sprintf("the supervisor of this process waited for the end of process %d", process.PID()))
		return
	}
	if ended, why := process.Ended(); ended {
		d.prove(claim, why)
	}
}

// watchProcess waits until the process of claim has ended or ctx has.
func (d *detector) watchProcess(ctx context.Context, claim driver.ID, process identity.Process) {
	switch why, err := process.Watch(ctx); {
	case err == nil:
		d.prove(claim, why)
	case ctx.Err() == nil:
		d.l.log.DebugContext(ctx, "the holder's process can't be watched from here", "err", err)
	}
}

// watchConnection stays connected to the process of claim until it is dead or ctx
// ends.
func (d *detector) watchConnection(ctx context.Context, claim driver.ID, address string) {
	proven := false
	for ctx.Err() == nil {
		if d.connect(ctx, claim, address) {
			proven = true
		}
		if ctx.Err() != nil {
			return
		}
		if proven && d.refused(ctx, claim, address) {
			d.prove(claim, fmt.Sprintf("its connection broke, and %s refuses another", address))
			return
		}
		d.notify()
		elapse(ctx, d.patience()/10)
	}
}

// patience is how long the holder may take to answer.
func (d *detector) patience() time.Duration { return min(d.l.cfg.heartbeat(), 2*time.Second) }

// connect keeps one connection until it is lost or ctx ends. It reports whether the
// holder proved its claim on it.
func (d *detector) connect(ctx context.Context, claim driver.ID, address string) (proven bool) {
	conn, err := peer.Dial(ctx, d.patience(), claim, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	for conn.Wait() == nil {
		d.notify() // the board has changed
	}
	return true
}

// The dials at an address behind a connection that was lost: a process that is
// ending may still take connections that nobody answers.
const (
	redials   = 8
	firstWait = time.Millisecond
)

// refused reports whether the address refuses a connection. A holder that answers,
// and one that does not answer at all, may be alive.
func (d *detector) refused(ctx context.Context, claim driver.ID, address string) bool {
	wait := firstWait
	for range redials {
		conn, err := peer.Dial(ctx, d.patience(), claim, address)
		var timeout net.Error
		switch {
		case err == nil:
			conn.Close()
			return false
		case errors.Is(err, syscall.ECONNREFUSED):
			return true
		case errors.As(err, &timeout) && timeout.Timeout(), !elapse(ctx, wait):
			return false
		}
		wait *= 2
	}
	return false
}

func (d *detector) notify() {
	select {
	case d.wake <- struct{}{}:
	default: // it is going to look already
	}
}
