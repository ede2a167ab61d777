package etcd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// One server of a cluster may hang, vanish or have lost the leader while the
// cluster serves. A request without an answer is therefore sent to the next
// member as well, and after that to one member after the other; the first answer
// counts for all copies. If a member says that it can't serve, the next one is
// asked at once.
//
// That is safe for reads, each of which is linearizable. It is safe for the
// writes of this package, because each of them
//
//   - lands at most once: its Txn compares what it changes, and neither the end of
//     a log nor a mod revision ever returns; or
//   - can be repeated: leases, parts of a snapshot, chunks of a large commit. These
//     are put under a condition that ends with them.
//
// One write is neither: a note that is new, since the absence of a note returns
// when it is removed. Of that a further copy is sent only if the one before was
// refused.
//
// A refusal of one copy is final for all of them, since the condition does not
// return. But another copy may have landed before. So a refusal leaves the
// outcome unknown while another copy is unanswered: that is phase doubt. Where
// the refusal shows that a copy has landed, the write has succeeded.

// A request is what is sent.
type request struct {
	size int  // in bytes, its answer's if that is larger, for how long it may take
	once bool // no two copies may be under way
}

// race sends a request until a member has answered it, or until all have said that
// they can't serve. In doubt says that another copy may have been applied.
func race[R any](ctx context.Context, c *cluster, req request, send func(context.Context, *session) (R, error)) (result R, inDoubt bool, err error) {
	if err := c.meet(ctx); err != nil {
		return result, false, err
	}
	first := c.first()
	if len(c.members) == 1 {
		result, err = ask(ctx, first, send)
		return result, false, err
	}
	r := &racing[R]{cluster: c, request: req, send: send, over: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	defer r.begin(first)()
	r.run(r.ctx, first, time.Now())
	<-r.over
	return r.result, r.doubt > 0, r.err
}

// ask sends a request to one member.
func ask[R any](ctx context.Context, m *member, send func(context.Context, *session) (R, error)) (result R, err error) {
	session, err := m.dial(ctx)
	if err == nil {
		result, err = sendKnown(ctx, m, session, send)
	}
	if err != nil {
		err = m.explain(err)
	}
	return result, err
}

// racing is a request of which several copies may be under way.
type racing[R any] struct {
	cluster *cluster
	request
	send   func(context.Context, *session) (R, error)
	ctx    context.Context // of all copies; ends with the first answer
	cancel context.CancelFunc

	mu    sync.Mutex
	timer *time.Timer // sends the next copy; nil if none is sent for want of an answer
	late  int         // copies sent for want of an answer
	sent  []*member   // to which a copy was sent, in order, each time
	open  int         // copies without an answer
	lost  int         // copies whose answer leaves open whether they were applied

	over   chan struct{} // closed with the answer, below
	done   bool
	result R
	err    error
	doubt  int // other copies that may have been applied
}

// begin notes the first copy and starts the timer of the next one. The function
// that it returns stops the timer.
func (r *racing[R]) begin(first *member) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent, r.open = append(r.sent, first), 1
	r.cluster.warm()
	if r.cluster.cfg.HedgeAfter < 0 || r.once {
		return func() {}
	}
	r.timer = time.AfterFunc(r.cluster.patience(r.size), r.overdue)
	return func() { r.timer.Stop() }
}

// overdue sends a further copy, since no answer has come.
func (r *racing[R]) overdue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return
	}
	r.copyTo(r.cluster.after(r.sent[len(r.sent)-1]))
	r.late++
	r.timer.Reset(r.cluster.interval(r.size, r.late))
}

// copyTo sends a copy to m, and reports whether it does: a closed cluster sends
// nothing.
func (r *racing[R]) copyTo(m *member) bool {
	sent := time.Now()
	task := func() {
		ctx, cancel := context.WithCancel(r.ctx)
		defer cancel()
		defer context.AfterFunc(r.cluster.root, cancel)() // close waits for the task
		r.run(ctx, m, sent)
	}
	if !r.cluster.spawn(task) {
		return false
	}
	r.sent = append(r.sent, m)
	r.open++
	return true
}

func (r *racing[R]) run(ctx context.Context, m *member, sent time.Time) {
	result, err := ask(ctx, m, r.send)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	if r.done {
		return
	}
	if err != nil && r.ctx.Err() == nil && elsewhere(err) {
		r.unserved(err)
		return
	}
	if r.ctx.Err() == nil {
		r.cluster.answered(r.sent[0], m, time.Since(sent), err)
	}
	r.finish(result, err)
}

// unserved notes that a member can't serve, and asks one that was not asked yet.
// Once all have said so, that is the answer.
func (r *racing[R]) unserved(err error) {
	if leavesOpen(err) {
		if r.lost++; r.once {
			r.finish(r.result, err)
			return
		}
	}
	for next := r.cluster.after(r.sent[0]); next != r.sent[0]; next = r.cluster.after(next) {
		if !slices.Contains(r.sent, next) && r.copyTo(next) {
			return
		}
	}
	if r.err == nil || !errors.Is(err, errForeign) { // the store may answer later
		r.err = err
	}
	if r.open == 0 {
		r.finish(r.result, r.err)
	}
}

func (r *racing[R]) finish(result R, err error) {
	r.result, r.err, r.done = result, err, true
	r.doubt = r.open + r.lost
	r.cancel()
	close(r.over)
}
