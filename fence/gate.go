package fence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fencepost/fencepost/exitcodes"
)

var (
	// ErrUnverified means that a token could not be compared with its catalog,
	// which did not answer. Nothing is known of the token.
	ErrUnverified = errors.New("the token could not be verified against its catalog")

	// ErrDraining means that work under another token has not ended yet.
	ErrDraining = errors.New("work under another token has not ended yet")

	// ErrNotSaved means that a register could not be made durable.
	ErrNotSaved = errors.New("the register could not be saved")

	// ErrResource means that a name can't be one of a resource: it is empty,
	// longer than MaxResourceName, or not printable.
	ErrResource = errors.New("not the name of a resource")

	// ErrTooManyResources means that a Gate has as many registers as it may.
	ErrTooManyResources = errors.New("the gate has as many resources as it may")

	// ErrGateClosed means that a Gate was closed.
	ErrGateClosed = errors.New("the gate is closed")
)

// MaxResourceName is the length of the longest name of a resource, in bytes.
const MaxResourceName = 200

// An UndecidedError says that a guard can neither admit nor refuse a token now. It
// wraps [ErrUnverified], [ErrDraining] or [ErrNotSaved], and is no fence: nothing
// was let through, and nothing is known about who leads. Its disposition is retry.
type UndecidedError struct {
	Guard string
	Err   error
}

func (e *UndecidedError) Error() string {
	return fmt.Sprintf("not decided by %s: %v: try again", e.Guard, e.Err)
}

// Unwrap returns why.
func (e *UndecidedError) Unwrap() error { return e.Err }

// Disposition is retry.
func (e *UndecidedError) Disposition() exitcodes.Disposition { return exitcodes.Retry }

// A GateConfig says how a Gate works. Either Newest or Signed is required.
type GateConfig struct {
	// Name is how refusals name the guard, before the resource. Default: "gate".
	Name string

	// Newest reads the newest token of the catalog that the resource belongs to,
	// from the store itself and not from a cache, and returns who holds it. It
	// ends with ctx. catalog.NewestToken returns such a function.
	//
	// A Gate asks for the newest token, and not whether a given one is good: so
	// all that wait share one answer; a token that was issued, but is no longer the
	// newest, is refused; and a refusal can say who leads.
	Newest func(ctx context.Context, resource string) (Token, Holder, error)

	// Signed verifies tokens by their signature instead, for a server that can't
	// read the catalog. It needs a file that is there, see [OpenGate]: an empty register
	// rises for the signed token of any holder, of older ones too. All resources belong to the
	// catalog of which Signed knows the signatures. Refusals don't know who leads.
	Signed *Verifier

	// ReadTimeout bounds how long a token waits to be verified. Default: 2 s.
	ReadTimeout time.Duration

	// DrainTimeout bounds how long a newer token waits until work under another
	// one has ended. Default: 1 s.
	DrainTimeout time.Duration

	// MaxResources bounds the registers, 4096 at most. Default: 1024.
	MaxResources int
}

const mostResources = 4096

func (c GateConfig) withDefaults() GateConfig {
	if c.Name == "" {
		c.Name = "gate"
	}
	if c.ReadTimeout == 0 {
		c.ReadTimeout = 2 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = time.Second
	}
	if c.MaxResources == 0 {
		c.MaxResources = 1024
	}
	return c
}

func (c GateConfig) validate() error {
	var errs []error
	if !isName(c.Name) {
		errs = append(errs, fmt.Errorf("Name is %.64q, want 1 to %d printable bytes", c.Name, MaxResourceName))
	}
	if (c.Newest == nil) == (c.Signed == nil) {
		errs = append(errs, errors.New("want one of Newest and Signed: a register rises only for a token that was verified, see catalog.NewestToken"))
	}
	if c.ReadTimeout < 0 || c.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("ReadTimeout is %v and DrainTimeout %v, want neither below 0", c.ReadTimeout, c.DrainTimeout))
	}
	if c.MaxResources < 0 || c.MaxResources > mostResources {
		errs = append(errs, fmt.Errorf("MaxResources is %d, want 1 to %d", c.MaxResources, mostResources))
	}
	if err := errors.Join(errs...); err != nil {
		return exitcodes.WithCode(fmt.Errorf("fence: gate: %w", err), exitcodes.Config)
	}
	return nil
}

// A Gate keeps the highest token that was seen for each of several resources, and
// admits work only under that one. It is the guard for whatever has no transaction
// in which the token could be checked.
//
// A register rises only to a token that was verified: the newest of the catalog,
// as it was read after the token had come, or one that a process of the service has
// signed. So a forged token changes nothing. A token that equals the register is
// admitted without verification.
//
// An empty register is verified against the catalog too, so a Gate that was started
// anew admits nobody but the newest holder. By signatures it admits whichever holder
// comes first, and from then on none below, so the file must not be lost.
//
// To admit is not enough: work that was admitted may still be under way when the
// register rises. So the register's rise cancels the context of all work under
// another token, and the work that made it rise is admitted only after the others
// have been released. Whatever is done between Admit and Release, and not later,
// therefore comes before all that is done under the newer token.
//
// What a Gate does not decide: whether a newer token exists of which it has not
// heard. Until the new holder's first request, the old one is admitted. A new
// holder that must not find later work of an older one sends a request to each
// resource before its own work begins. A resource also has one Gate, so one process:
// several servers that write the same data each have their own registers, and the new
// holder has to reach all of them first, or the data need a guard of their own.
//
// Its methods may be called concurrently.
type Gate struct {
	cfg  GateConfig
	file *gateFile // nil in memory

	base   context.Context // of the reads
	cancel context.CancelFunc
	reads  sync.WaitGroup
	lanes  chan struct{} // one for each read under way
	saving chan struct{} // holds one while registers are saved

	mu        sync.Mutex
	closed    bool
	registers map[string]*register
	questions map[string]*question
	asking    int     // requests that wait for an answer
	edits     []*edit // that wait to be saved
}

// A register is one resource's.
type register struct {
	RegisterState
	inside   map[*Admission]struct{}
	draining int           // of inside, those under another token
	drained  chan struct{} // closed when none is left; nil if there are none
}

// A RegisterState is what a Gate knows of a resource.
type RegisterState struct {
	Resource string
	Token    Token // the highest that was verified; zero if it was reset
	By       Holder
	Inside   int // admissions that were not released yet
	Draining int // of these, those under another token
}

// NewGate returns a Gate whose registers are kept in memory: after a restart they
// are empty, and nothing is admitted until the catalog can be read. It needs Newest.
func NewGate(cfg GateConfig) (*Gate, error) {
	if cfg.Signed != nil {
		return nil, exitcodes.WithCode(errors.New("fence: gate: Signed needs a file, see OpenGate: in memory a register is empty after a restart, and rises for an older holder"),
			exitcodes.Config)
	}
	return newGate(cfg)
}

func newGate(cfg GateConfig) (*Gate, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := &Gate{
		cfg: cfg, lanes: make(chan struct{}, maxReads), saving: make(chan struct{}, 1),
		registers: map[string]*register{}, questions: map[string]*question{},
	}
	g.base, g.cancel = context.WithCancel(context.Background())
	return g, nil
}

// String names the gate.
func (g *Gate) String() string { return g.cfg.Name }

// DrainTimeout returns that of the configuration, or the default.
func (g *Gate) DrainTimeout() time.Duration { return g.cfg.DrainTimeout }

// Guard returns how refusals name the guard of a resource.
func (g *Gate) Guard(resource string) string { return g.cfg.Name + " " + resource }

// An Admission is leave to work under a token, until it is released.
type Admission struct {
	gate     *Gate
	resource string
	token    Token
	draining bool // another token's work waits for it
	ctx      context.Context
	cancel   context.CancelCauseFunc
	fenced   context.Context // ends when the token is stale, and only then
	fence    context.CancelCauseFunc
}

// Context is the context of the work. It is canceled when a newer token is
// admitted to the resource, with the refusal as its cause, and by Release.
func (a *Admission) Context() context.Context { return a.ctx }

// Stale returns the refusal that canceled the context, a *[Error], or nil.
func (a *Admission) Stale() error { return context.Cause(a.fenced) }

// OnStale has f called in its own goroutine when a newer token is admitted to the
// resource, also if the context has ended before. It works as [context.AfterFunc]
// does: stop reports whether f will not be called.
func (a *Admission) OnStale(f func()) (stop func() bool) { return context.AfterFunc(a.fenced, f) }

func (a *Admission) refuse(err error) {
	a.fence(err)
	a.cancel(err)
}

// Token is the one under which the work was admitted.
func (a *Admission) Token() Token { return a.token }

// Release says that the work has ended, and nothing of it goes on. It may be called
// again.
func (a *Admission) Release() {
	a.gate.release(a)
	a.cancel(nil)
}

// Admit lets work on resource begin under token, or says why not:
//
//   - *[Error]: the register has a higher token, which the error names. Any lower
//     token counts as stale, since a Gate keeps no history;
//   - *[TokenError]: the token is zero; it was never issued, since it is above the
//     newest of the catalog, or has a lower generation than the register and not a
//     lower epoch; or it is above the register and has no signature, if Signed is set;
//   - *[UndecidedError]: the catalog could not be read, the register could not be
//     saved, or work under an older token has not ended within DrainTimeout;
//   - one that wraps [ErrResource], [ErrTooManyResources] or [ErrGateClosed].
//
// The caller releases the admission. Ctx bounds the wait and is the parent of the
// admission's context.
func (g *Gate) Admit(ctx context.Context, resource string, token Token) (*Admission, error) {
	if err := g.checkResource(resource); err != nil {
		return nil, err
	}
	if token.IsZero() {
		return nil, &TokenError{Guard: g.Guard(resource), Err: ErrMissing}
	}
	if _, err := token.MarshalText(); err != nil {
		return nil, &TokenError{Guard: g.Guard(resource), Token: token.String(), Err: fmt.Errorf("%w: %w", ErrMalformed, err)}
	}
	return g.admit(ctx, resource, given{token: token})
}

// AdmitText is Admit for the texts that came with a request as its token: it wants
// exactly one, as [Token.String] or [Signer.Text] writes it.
func (g *Gate) AdmitText(ctx context.Context, resource string, texts []string) (*Admission, error) {
	if err := g.checkResource(resource); err != nil {
		return nil, err
	}
	t, err := givenBy(g.Guard(resource), texts)
	if err != nil {
		return nil, err
	}
	return g.admit(ctx, resource, t)
}

func (g *Gate) checkResource(name string) error {
	if !isName(name) {
		return fmt.Errorf("%s: %w: %.64q, want 1 to %d printable bytes", g.cfg.Name, ErrResource, name, MaxResourceName)
	}
	return nil
}

func (g *Gate) admit(ctx context.Context, resource string, t given) (*Admission, error) {
	for late := (<-chan time.Time)(nil); ; {
		a, drained, err := g.join(ctx, resource, t.token)
		switch {
		case a != nil || err != nil:
			return a, err
		case drained == nil: // the token is above the register
			if err := g.verify(ctx, resource, t); err != nil {
				return nil, err
			}
			continue
		}
		if late == nil {
			timer := time.NewTimer(g.cfg.DrainTimeout)
			defer timer.Stop()
			late = timer.C
		}
		if err := g.drain(ctx, resource, drained, late); err != nil {
			return nil, err
		}
	}
}

// join admits a token that equals the register. It returns nothing if the token is
// above it, and a channel if work under another token has to end first.
func (g *Gate) join(ctx context.Context, resource string, token Token) (*Admission, <-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, fmt.Errorf("%s: %w", g.cfg.Name, ErrGateClosed)
	}
	r := g.registers[resource]
	if r == nil {
		return nil, nil, nil
	}
	switch order := token.Compare(r.Token); {
	case order < 0:
		return nil, nil, g.refusal(token, r.RegisterState)
	case order > 0:
		return nil, nil, nil
	case r.draining > 0:
		return nil, r.drained, nil
	}
	a := &Admission{gate: g, resource: resource, token: token}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.fenced, a.fence = context.WithCancelCause(context.Background())
	r.inside[a] = struct{}{}
	return a, nil, nil
}

// refusal says why a token below that of a register is refused. Claims raise the
// epoch each time, so that of an older generation is lower.
func (g *Gate) refusal(token Token, r RegisterState) error {
	if token.Generation < r.Token.Generation && token.Epoch >= r.Token.Epoch {
		return &TokenError{Guard: g.Guard(r.Resource), Token: token.String(), Err: ErrNeverIssued}
	}
	return &Error{Held: token, Current: r.Token, By: r.By, Guard: g.Guard(r.Resource)}
}

// drain waits until the work under other tokens has ended.
func (g *Gate) drain(ctx context.Context, resource string, drained <-chan struct{}, late <-chan time.Time) error {
	undecided := func(err error) error { return &UndecidedError{Guard: g.Guard(resource), Err: err} }
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return undecided(fmt.Errorf("%w: %w", ErrDraining, context.Cause(ctx)))
	case <-late:
		g.mu.Lock()
		defer g.mu.Unlock()
		left := 0
		if r := g.registers[resource]; r != nil {
			left = r.draining
		}
		return undecided(fmt.Errorf("%w: %d of it after %v, though its contexts are canceled: work must end with its context; a restart of this process ends it",
			ErrDraining, left, g.cfg.DrainTimeout))
	}
}

// release forgets an admission.
func (g *Gate) release(a *Admission) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.registers[a.resource]
	if r == nil {
		return
	}
	if _, inside := r.inside[a]; !inside {
		return
	}
	delete(r.inside, a)
	if a.draining {
		r.leave()
	}
	g.forget(r)
}

// leave counts one that was waited for.
func (r *register) leave() {
	if r.draining--; r.draining == 0 {
		close(r.drained)
		r.drained = nil
	}
}

// forget removes a register that was reset, once nobody is inside.
func (g *Gate) forget(r *register) {
	if r.Token.IsZero() && len(r.inside) == 0 {
		delete(g.registers, r.Resource)
	}
}

// Registers returns what the gate knows, in no order.
func (g *Gate) Registers() (all []RegisterState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.registers {
		seen := r.RegisterState
		seen.Inside, seen.Draining = len(r.inside), r.draining
		all = append(all, seen)
	}
	return all
}

// Close refuses further work and joins the reads under way. Over a file, it
// releases the file's lock. Work that was admitted goes on: the caller ends it
// first.
func (g *Gate) Close() error {
	g.mu.Lock()
	before := g.closed
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.reads.Wait()
	g.saving <- struct{}{} // whoever saves has ended; nobody else begins
	defer func() { <-g.saving }()
	if g.file == nil || before {
		return nil
	}
	return g.file.close()
}

// isName reports whether a text is short and can be shown as it is.
func isName(s string) bool {
	if s == "" || len(s) > MaxResourceName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
