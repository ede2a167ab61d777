package fence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// maxReads bounds the resources of which the newest token is read at once.
	maxReads = 16

	// maxAsking bounds the requests that wait for that, and the resources of which it
	// was asked and not read yet.
	maxAsking = 4096

	// readGap is the least time between two reads for one resource.
	readGap = 10 * time.Millisecond
)

// A question is about the newest token of one resource. It is asked again and again
// while somebody waits for an answer.
type question struct {
	next *answer // not asked yet; nil if nobody waits
}

type answer struct {
	done  chan struct{}
	token Token
	by    Holder
	err   error
}

// verify returns nil if a token that was above the register is one of the catalog's,
// and the register has risen to it, or higher.
func (g *Gate) verify(ctx context.Context, resource string, t given) error {
	switch {
	case g.cfg.Signed == nil:
		return g.verifyNewest(ctx, resource, t.token)
	case !g.cfg.Signed.trusts(t):
		return &TokenError{Guard: g.Guard(resource), Token: t.token.String(), Err: ErrUnsigned}
	default:
		return g.raise(ctx, RegisterState{Resource: resource, Token: t.token})
	}
}

// verifyNewest compares a token with the newest of the catalog, to which the register
// rises. It returns nil if they are equal.
func (g *Gate) verifyNewest(ctx context.Context, resource string, token Token) error {
	newest, by, err := g.newest(ctx, resource)
	if err != nil {
		// Not wrapped: what the catalog's client says is no word about this token.
		return &UndecidedError{Guard: g.Guard(resource), Err: fmt.Errorf("%w: %v", ErrUnverified, err)}
	}
	if token.Compare(newest) > 0 {
		return &TokenError{Guard: g.Guard(resource), Token: token.String(), Err: ErrNeverIssued}
	}
	if err := g.raise(ctx, RegisterState{Resource: resource, Token: newest, By: by}); err != nil {
		return err
	}
	if token.Compare(newest) < 0 {
		return g.refusal(token, RegisterState{Resource: resource, Token: newest, By: by})
	}
	return nil
}

// newest returns the newest token of the catalog, as it was read after newest was
// called. All that wait share one read.
func (g *Gate) newest(ctx context.Context, resource string) (Token, Holder, error) {
	mine, err := g.ask(resource)
	if err != nil {
		return Token{}, Holder{}, err
	}
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.asking--
	}()
	ctx, cancel := context.WithTimeout(ctx, g.cfg.ReadTimeout)
	defer cancel()
	select {
	case <-mine.done:
		return mine.token, mine.by, mine.err
	case <-ctx.Done():
		return Token{}, Holder{}, fmt.Errorf("no answer within %v: %w", g.cfg.ReadTimeout, context.Cause(ctx))
	}
}

var errCrowded = errors.New("too many requests wait for the catalog already")

// ask joins the question that is asked next.
func (g *Gate) ask(resource string) (*answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.questions[resource]
	switch {
	case g.closed:
		return nil, ErrGateClosed
	case g.asking >= maxAsking || q == nil && len(g.questions) >= maxAsking: // of some nobody waits for the answer any more
		return nil, errCrowded
	case q == nil:
		q = &question{}
		g.questions[resource] = q
		g.reads.Go(func() { g.read(resource, q) })
	}
	if q.next == nil {
		q.next = &answer{done: make(chan struct{})}
	}
	g.asking++
	return q.next, nil
}

// read answers a question until nobody asks it any more.
func (g *Gate) read(resource string, q *question) {
	for {
		g.lanes <- struct{}{} // reads end soon, so a lane comes free
		this := g.taken(resource, q)
		if this != nil {
			ctx, cancel := context.WithTimeout(g.base, g.cfg.ReadTimeout)
			this.token, this.by, this.err = g.cfg.Newest(ctx, resource)
			cancel()
			close(this.done)
		}
		<-g.lanes
		if this == nil {
			return
		}
		pause := time.NewTimer(readGap)
		select {
		case <-pause.C:
		case <-g.base.Done():
		}
		pause.Stop()
	}
}

// taken returns the next answer that is due. From here on nobody joins it.
func (g *Gate) taken(resource string, q *question) *answer {
	g.mu.Lock()
	defer g.mu.Unlock()
	this := q.next
	q.next = nil
	if this == nil {
		delete(g.questions, resource)
	}
	return this
}

// raise makes a register rise to what was verified, if it is lower: durably first,
// and only then for those who ask. It cancels the work under other tokens.
func (g *Gate) raise(ctx context.Context, to RegisterState) error {
	return g.change(ctx, to.Resource, func(now map[string]RegisterState) (bool, error) {
		if _, known := now[to.Resource]; !known && len(now) >= g.cfg.MaxResources {
			return false, fmt.Errorf("%s: %w, %d: %q has no register", g.cfg.Name, ErrTooManyResources, g.cfg.MaxResources, to.Resource)
		}
		if to.Token.Compare(now[to.Resource].Token) <= 0 {
			return false, nil
		}
		now[to.Resource] = to
		return true, nil
	})
}

// Reset empties the register of a resource, for an operator whose catalog bears a
// lower token than the register, such as after a backup was restored without
// `fencepost restored`. The next token to be admitted is the newest of the catalog;
// by signatures it is the first one that comes, so older holders have to be gone.
// Work that was admitted before goes on until then. It is no error if there is no
// such register.
//
// If no process has the file open, removing it resets all registers.
func (g *Gate) Reset(ctx context.Context, resource string) error {
	return g.change(ctx, resource, func(now map[string]RegisterState) (bool, error) {
		_, known := now[resource]
		delete(now, resource)
		return known, nil
	})
}

// An edit is a change of one register that is not saved yet.
type edit struct {
	resource string
	apply    func(map[string]RegisterState) (changed bool, err error)
	saved    bool // or it failed, with err
	err      error
}

// change has apply change the registers, makes that durable, and only then takes it
// over. Those that wait for their turn are saved together.
func (g *Gate) change(ctx context.Context, resource string, apply func(map[string]RegisterState) (changed bool, err error)) error {
	mine := &edit{resource: resource, apply: apply}
	g.mu.Lock()
	g.edits = append(g.edits, mine)
	g.mu.Unlock()
	select {
	case g.saving <- struct{}{}:
		defer func() { <-g.saving }()
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		g.edits = slices.DeleteFunc(g.edits, func(e *edit) bool { return e == mine })
		return g.notSaved(resource, context.Cause(ctx))
	}
	if !mine.saved {
		g.saveEdits()
	}
	return mine.err
}

func (g *Gate) notSaved(resource string, err error) error {
	return &UndecidedError{Guard: g.Guard(resource), Err: fmt.Errorf("%w: %w", ErrNotSaved, err)}
}

// saveEdits saves all edits that wait.
func (g *Gate) saveEdits() {
	g.mu.Lock()
	due := g.edits
	g.edits = nil
	g.mu.Unlock()
	all, err := g.saved()
	var changed []*edit
	for _, e := range due {
		e.saved, e.err = true, err
		if err != nil {
			continue
		}
		var did bool
		if did, e.err = e.apply(all); did {
			changed = append(changed, e)
		}
	}
	if g.file != nil && len(changed) > 0 {
		err = g.file.save(all)
	}
	for _, e := range changed {
		if err != nil {
			e.err = g.notSaved(e.resource, err)
			continue
		}
		to := all[e.resource] // zero if it was reset
		to.Resource = e.resource
		g.become(to)
	}
}

// saved returns the registers as they are.
func (g *Gate) saved() (map[string]RegisterState, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, fmt.Errorf("%s: %w", g.cfg.Name, ErrGateClosed)
	}
	all := make(map[string]RegisterState, len(g.registers)+1)
	for name, r := range g.registers {
		if !r.Token.IsZero() {
			all[name] = r.RegisterState
		}
	}
	return all, nil
}

// become sets a register. If it has a token, work under any other one is canceled,
// and is waited for before anything else is admitted.
func (g *Gate) become(to RegisterState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.registers[to.Resource]
	if r == nil {
		r = &register{inside: map[*Admission]struct{}{}}
		g.registers[to.Resource] = r
	}
	r.RegisterState = to
	for a := range r.inside {
		if to.Token.IsZero() || a.draining || a.token == to.Token {
			continue
		}
		a.draining = true
		if r.draining++; r.draining == 1 {
			r.drained = make(chan struct{})
		}
		a.refuse(&Error{Held: a.token, Current: to.Token, By: to.By, Guard: g.Guard(to.Resource)})
	}
	g.forget(r)
}
