package memory

import (
	"context"
	"sync"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A Call is a call about to be made.
type Call struct {
	Method string // such as "Append"; "Install" and "Log" are also those of a claim under way
	N      int    // how many calls of this method this handle made before, since it was opened
}

// A Fault is what happens to a call.
type Fault int

const (
	// Pass lets the call through.
	Pass Fault = iota

	// Refuse fails the call before the store is touched: retry, not applied.
	Refuse

	// LoseAnswer makes the call and reports unknown, whatever came of it. A
	// claim whose answer is lost stays under way until its bound, or until
	// its handle is closed.
	LoseAnswer

	// LoseRequest does nothing and reports unknown.
	LoseRequest

	// Delay does nothing yet and reports unknown. The write comes to the
	// store, on the condition that it was sent with, when Release is called.
	Delay
)

// Inject asks plan about every later call on this handle, right after the
// handle and the context were found open. A nil plan lets everything through.
//
// Plan is called from whichever goroutine makes the call, by many at once, and
// may call the store. Every fault makes a read, a Claim or a Watch
// fail as one that may be retried; the outcomes are those of
// Append, Install, Post, PutLosses, Stage, Publish and Trim.
func (s *Store) Inject(plan func(Call) Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.plan = plan
}

// Release lets the delayed writes of this handle come to the store, in the
// order in which they were sent, and returns how many of them landed. Those
// whose condition does not hold are gone. A commit that a claim under way holds
// back stays delayed.
func (s *Store) Release() (landed int) {
	delayed := s.faults.take()
	d := s.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, w := range delayed {
		if w.method != "Post" && w.method != "PutLosses" && d.claiming != nil {
			s.faults.putBack(delayed[i:])
			return landed
		}
		if w.apply() == nil {
			landed++
		}
	}
	return landed
}

// Fill makes the catalog full, or makes room in it again. While it is full,
// every write on every handle fails with driver.ErrFull, save the removal of a
// note.
func (s *Store) Fill(full bool) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.shared.full = full
}

// Rollback takes back every commit above toRevision, acknowledged or not, with
// the claims among them, as a fail-over to an asynchronous replica does; zero
// empties the log. It ends the claim under way. A snapshot of what is taken
// back goes as well, and what was compacted by it comes back. Notes stay as
// they are.
func (s *Store) Rollback(toRevision uint64) {
	d := s.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endClaim()
	if toRevision >= d.head.Revision {
		return
	}
	for n := len(d.claims); n > 0 && d.claims[n-1].Revision > toRevision; n-- {
		d.claims = d.claims[:n-1]
	}
	d.log = d.log[:toRevision:toRevision]
	if d.snapshot.Revision > toRevision {
		d.snapshot, d.trimmed = driver.Snapshot{}, 0
		clear(d.parts)
	}
	d.head = driver.Head{}
	if n := len(d.claims); n > 0 {
		d.head = d.claims[n-1].Head().After(d.log[toRevision-1])
	}
	d.announce()
}

// faults is what was injected into one handle.
type faults struct {
	mu      sync.Mutex
	plan    func(Call) Fault
	calls   map[string]int
	delayed []delayed
}

// delayed is a write on its way.
type delayed struct {
	method string
	apply  func() error
}

// ask counts a call and returns its fault.
func (f *faults) ask(method string) Fault {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = make(map[string]int)
	}
	call, plan := Call{Method: method, N: f.calls[method]}, f.plan
	f.calls[method]++
	f.mu.Unlock()
	if plan == nil {
		return Pass
	}
	return plan(call)
}

func (f *faults) send(d delayed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delayed = append(f.delayed, d)
}

func (f *faults) take() []delayed {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.delayed
	f.delayed = nil
	return d
}

func (f *faults) putBack(d []delayed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delayed = append(d, f.delayed...)
}

// write makes a write, or what its fault makes of it. Now waits and locks by
// itself; later is called with mu held.
func (s *Store) write(method, op string, later, now func() error) error {
	switch s.faults.ask(method) {
	case Refuse:
		return s.fail(op, errInjected)
	case LoseAnswer:
		_ = now()
		return s.lose(op)
	case LoseRequest:
		return s.lose(op)
	case Delay:
		s.faults.send(delayed{method: method, apply: later})
		return s.lose(op)
	}
	if err := now(); err != nil {
		return s.fail(op, err)
	}
	return nil
}

// read begins a read, or fails as its fault says.
func (s *Store) read(ctx context.Context, method, op string) error {
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	if s.faults.ask(method) != Pass {
		return s.fail(op, errInjected)
	}
	return nil
}
