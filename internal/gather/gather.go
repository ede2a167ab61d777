// Package gather lets questions that many ask at once share a round trip.
//
// Whoever asks while nobody waits is answered at once and alone: nothing is
// held back in the hope of company. Only those who come while all lanes are
// taken wait, and the next free lane takes all of them together. So a question
// never waits longer than it would for its turn, and the number of round trips
// is bounded by how long one takes, not by how many ask.
//
// A question is never added to a round trip that has been sent: its answer is of
// a moment after it was asked.
package gather

import (
	"context"
	"sync"
	"sync/atomic"
)

// An Answer is what became of one question.
type Answer[A any] struct {
	Value A
	Err   error
}

// A Group gathers questions of one kind. Its methods may be called
// concurrently.
type Group[Q, A any] struct {
	lanes, most int
	alone       func(context.Context, Q) (A, error)
	together    func(context.Context, []Q) []Answer[A]

	root context.Context // of those who ask together
	end  context.CancelFunc

	mu      sync.Mutex
	busy    int // lanes
	waiting []*pending[Q, A]
	rounds  sync.WaitGroup
}

type pending[Q, A any] struct {
	ctx    context.Context
	asked  Q
	answer Answer[A] // before done is closed, the round's
	done   chan struct{}
}

// New returns a Group of which at most lanes round trips are under way at once,
// each for at most most questions. Alone answers one question, together several,
// with an answer for each, in their order.
func New[Q, A any](lanes, most int, alone func(context.Context, Q) (A, error), together func(context.Context, []Q) []Answer[A]) *Group[Q, A] {
	g := &Group[Q, A]{lanes: lanes, most: most, alone: alone, together: together}
	g.root, g.end = context.WithCancel(context.Background())
	return g
}

// Ask returns the answer to a question, or ctx's error as soon as ctx ends. The
// end of one caller's context does not end the round trip of the others.
func (g *Group[Q, A]) Ask(ctx context.Context, q Q) (A, error) {
	mine := g.join(ctx, q)
	if mine == nil {
		defer g.leave()
		return g.alone(ctx, q)
	}
	select {
	case <-mine.done:
		return mine.answer.Value, mine.answer.Err
	case <-ctx.Done():
		var none A
		return none, ctx.Err()
	}
}

// join returns nil where the caller has a lane to itself.
func (g *Group[Q, A]) join(ctx context.Context, q Q) *pending[Q, A] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy < g.lanes && len(g.waiting) == 0 {
		g.busy++
		return nil
	}
	p := &pending[Q, A]{ctx: ctx, asked: q, done: make(chan struct{})}
	g.waiting = append(g.waiting, p)
	return p
}

// leave gives the lane to those who wait, if there are any.
func (g *Group[Q, A]) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.take()
	if len(next) == 0 {
		g.busy--
		return
	}
	g.rounds.Go(func() {
		defer g.leave()
		g.round(next)
	})
}

// take removes as many from the queue as one round takes. Those who no longer
// wait are left out.
func (g *Group[Q, A]) take() (next []*pending[Q, A]) {
	for len(g.waiting) > 0 && len(next) < g.most {
		p := g.waiting[0]
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
		if p.ctx.Err() == nil {
			next = append(next, p)
		}
	}
	return next
}

// round asks for all of them. It ends when nobody waits for it any more.
func (g *Group[Q, A]) round(all []*pending[Q, A]) {
	ctx, cancel := context.WithCancel(g.root)
	defer cancel()
	var waiting atomic.Int64
	waiting.Store(int64(len(all)))
	asked := make([]Q, len(all))
	for i, p := range all {
		asked[i] = p.asked
		defer context.AfterFunc(p.ctx, func() {
			if waiting.Add(-1) == 0 {
				cancel()
			}
		})()
	}
	for i, answer := range g.together(ctx, asked) {
		all[i].answer = answer
		close(all[i].done)
	}
}

// Close ends the rounds under way and waits for them. Whoever asks later is
// answered as before.
func (g *Group[Q, A]) Close() {
	g.end()
	g.rounds.Wait()
}
