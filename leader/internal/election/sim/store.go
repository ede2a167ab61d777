package sim

import (
	"context"
	"errors"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// The notes of the board, as package leader names them.
const (
	intentKey    = "promote"
	contenderKey = "promote/contender"
	beatKey      = "holder"
	offerKey     = "holder/offer"
)

// A beat is what a holder says of itself.
type beat struct {
	election.Heartbeat
	token fence.Token
	from  *process // its address and its identity; nil: a tool's
}

// An intent is what operators want.
type intent struct {
	generation generation.Generation
	aborted    []generation.Generation
}

// A contender is the sign of life of a promoted process.
type contender struct{ election.Contender }

// A board is what one look has found, with the versions of the notes.
type board struct {
	beat      beat
	offer     election.Offer
	intent    intent
	contender contender
	versions  [4]int64 // by slot
}

// slot numbers the notes.
func slot(key string) int {
	switch key {
	case intentKey:
		return 0
	case contenderKey:
		return 1
	case beatKey:
		return 2
	default:
		return 3
	}
}

var (
	errStore      = errors.New("the store failed")
	errTimeout    = errors.New("the store did not answer; what was sent may land")
	errRefused    = errors.New("a condition of the claim does not hold")
	errSuperseded = errors.New("a higher generation holds the token")
)

// call sends a call to the store, where effect happens at one instant. Done runs
// in the process with the answer, at most a timeout later.
func (p *process) call(timeout time.Duration, write bool, effect func() error, done func(error)) {
	w := p.w
	there, back := w.latency(), w.latency()
	switch w.fate(p, write) {
	case answered:
		w.in(there, func() {
			err := effect()
			w.in(back, func() { p.run(func() { done(err) }) })
		})
		return
	case failed:
		p.after(there+back, func() { done(errStore) })
		return
	case answerLost:
		w.in(there, func() { _ = effect() })
	case landsLate:
		w.in(w.between(timeout/2, 2*timeout), func() { _ = effect() })
	}
	p.after(timeout, func() { done(errTimeout) })
}

// A fate is what happens to a call.
type fate uint8

const (
	answered fate = iota
	failed
	requestLost
	answerLost
	landsLate
)

func (w *world) fate(p *process, write bool) fate {
	switch {
	case w.cutStore[p.host] || w.state == hanging:
		if write && w.one(10) {
			return landsLate
		}
		return requestLost
	case w.state == failing:
		return failed
	case w.lossy && w.one(6):
		if !write {
			return failed
		}
		return fate(w.rng.IntN(4)) + failed
	default:
		return answered
	}
}

// latency is how long a message takes.
func (w *world) latency() time.Duration {
	if w.slow {
		return w.between(time.Millisecond, 150*time.Millisecond)
	}
	return w.between(200*time.Microsecond, 2*time.Millisecond)
}

// read returns the board. Here and below nothing fails: what may go wrong is call's.
func (w *world) read() (b board) {
	notes, err := w.store.Notes(context.Background(), "")
	if err != nil {
		panic(err)
	}
	for _, n := range notes {
		b.versions[slot(n.Key)] = n.Version
		switch v := w.values[n.Version].(type) {
		case beat:
			b.beat = v
		case election.Offer:
			b.offer = v
		case intent:
			b.intent = v
		case contender:
			b.contender = v
		}
	}
	return b
}

// post replaces a note if it is at version.
func (w *world) post(key string, version int64, value any) (int64, error) {
	next, err := w.store.Post(context.Background(), driver.Note{Key: key, Value: []byte("{}"), Version: version})
	if err != nil {
		return 0, err
	}
	w.values[next] = value
	if o, ok := value.(election.Offer); ok {
		w.offer = o
		w.say("board: offer %+v at version %d", value, next)
	}
	return next, nil
}

// update replaces a note, whatever its version.
func (w *world) update(key string, change func(board) any) {
	b := w.read()
	if value := change(b); value != nil {
		_, _ = w.post(key, b.versions[slot(key)], value)
	}
}

// An attempt is a claim that was sent.
type attempt struct {
	id         driver.ID
	generation generation.Generation
	by         *process // nil: a tool
	base       driver.ID
	cond       election.Conditions
	notes      []driver.Note
	ask        *ask // the handover that it follows; nil: none
	promoted   bool // its generation was promoted as it was decided
}

// land tries to install a claim, on the conditions that package catalog knows.
func (w *world) land(a *attempt) error {
	ctx := context.Background()
	claiming, err := w.store.Claim(ctx)
	if err != nil {
		return err
	}
	defer claiming.Abandon()
	head := claiming.Head()
	newest, mine := head.Claim, a.generation
	switch own := newest.Token.Generation == mine; {
	case newest.Token.Generation > mine:
		return errSuperseded
	case a.cond.Never && !head.IsZero(), a.cond.Lower && own, own && newest.ID != a.base,
		!a.cond.Over.IsZero() && newest.ID != a.cond.Over:
		return errRefused
	}
	token, err := newest.Token.Next(mine)
	if err != nil {
		return err
	}
	claim := driver.Claim{
		Token: token, ID: a.id, Revision: head.Revision + 1, DataVersion: 1, ReadableBy: 1,
		PriorClaim: newest.ID, PriorCommit: head.Commit,
	}
	before := w.read()
	rec := driver.Record{Revision: claim.Revision, ID: a.id, Token: token}
	if err := claiming.Install(ctx, claim, rec, a.notes...); err != nil {
		return errRefused
	}
	w.landed(a, head, before, claim)
	return nil
}

// landed notes a new claim, and wakes all processes.
func (w *world) landed(a *attempt, prior driver.Head, b board, claim driver.Claim) {
	w.say("claim %v lands: %s", claim.Token, a.cond.Reason)
	w.checkClaim(a, claim, prior, b)
	w.head, w.makers[a.id] = claim.Head(), a.by
	w.claims++
	for _, p := range w.living {
		if p != a.by && !w.cutStore[p.host] && w.state == up && !w.one(20) {
			w.in(w.latency(), func() { p.run(func() { p.sees(w.head) }) })
		}
	}
}

// commit appends a record under the holder's claim.
func (w *world) commit(prior driver.Head, rec driver.Record) error {
	err := w.store.Append(context.Background(), prior, rec)
	if err != nil {
		return err
	}
	w.checkCommit(rec)
	w.head = w.head.After(rec)
	if w.one(4) {
		w.touched = max(w.touched, rec.Revision)
	}
	return nil
}
