package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A claim that runs its migrations under the store's lock keeps everybody out,
// and may take as long as MigrationTimeout. A claimer that has the better right
// asks it to give way: the claimer of a higher generation, and a person who
// raises the token. It asks again and again while it waits, because a request
// counts only if it came after the claim under way began: one that a dead
// process left behind breaks nothing.
const (
	preemptAfter = 100 * time.Millisecond // a claim that waits for longer asks
	preemptEvery = 500 * time.Millisecond // and again
)

// preemptKey is the note that carries the request, unless the store is a
// driver.Preempter.
const preemptKey = "preempt"

// maxBy bounds who a request says to be from, in characters, so that the request
// stays below driver.MaxRequest however they are encoded.
const maxBy = 100

// A preemption is a request to the claim under way to give way.
type preemption struct {
	ID         driver.ID             `json:"id"` // of this request
	Generation generation.Generation `json:"generation"`
	Operator   bool                  `json:"operator,omitempty"` // it is a person's
	By         string                `json:"by"`                 // for people
	At         time.Time             `json:"at,omitzero"`        // by the clock of the asker, for reapers; zero, or that of an earlier request, if an older build asks
}

// outranks reports whether a claim of generation g has to give way.
func (p preemption) outranks(g generation.Generation) bool { return p.Operator || p.Generation > g }

// errPreempted is the end of a claim that gave way.
var errPreempted = errors.New("the claim gave way")

func preempted(p preemption) error {
	who := fmt.Sprintf("a claim of generation %v", p.Generation)
	if p.Operator {
		who = "an operator, who raises the token"
	}
	return exitcodes.With(fmt.Errorf("catalog: %w to %s, by %s: nothing was written", errPreempted, who, p.By), exitcodes.Retry)
}

// A preempter sends and receives such requests.
type preempter struct {
	store driver.Store
	cfg   Config
	last  driver.ID // the request that was the newest before
}

// request asks the claim under way, again and again until ctx ends.
func (p *preempter) request(ctx context.Context, from preemption) {
	for elapse(ctx, preemptAfter); ctx.Err() == nil; elapse(ctx, preemptEvery) {
		from.ID, from.At = driver.NewID(), time.Now().UTC().Truncate(time.Second)
		if err := p.send(ctx, from); err != nil && ctx.Err() == nil {
			p.cfg.Logger.InfoContext(ctx, "the claim under way was not asked to give way", "store", p.store.String(), "err", err)
		}
	}
}

func (p *preempter) send(ctx context.Context, from preemption) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StoreTimeout)
	defer cancel()
	if by := []rune(from.By); len(by) > maxBy {
		from.By = string(by[:maxBy])
	}
	if carrier, ok := driver.As[driver.Preempter](p.store); ok {
		text, err := json.Marshal(from)
		if err == nil {
			err = carrier.Preempt(ctx, text)
		}
		return err
	}
	_, err := UpdateNote(ctx, NewBoard(p.store, p.cfg), preemptKey, func(n *preemption) error { *n = from; return nil })
	return err
}

// newest returns the newest request; the zero value if there is none.
func (p *preempter) newest(ctx context.Context) (found preemption, err error) {
	carrier, ok := driver.As[driver.Preempter](p.store)
	if !ok {
		notes, err := callStore(ctx, p.cfg.StoreTimeout, func(ctx context.Context) ([]driver.Note, error) { return p.store.Notes(ctx, preemptKey) })
		for _, n := range notes {
			if n.Key == preemptKey {
				_ = json.Unmarshal(n.Value, &found) // what can't be read asks for nothing
			}
		}
		return found, err
	}
	text, err := callStore(ctx, p.cfg.StoreTimeout, carrier.Preempted)
	if len(text) > 0 {
		_ = json.Unmarshal(text, &found) // likewise
	}
	return found, err
}

// begin forgets the requests from before the claim under way.
func (p *preempter) begin(ctx context.Context) error {
	found, err := p.newest(ctx)
	p.last = found.ID
	return err
}

// check returns an error if a request that outranks g has come since begin.
func (p *preempter) check(ctx context.Context, g generation.Generation) error {
	found, err := p.newest(ctx)
	if err != nil || found.ID == p.last {
		return err
	}
	p.last = found.ID
	if found.outranks(g) {
		return preempted(found)
	}
	return nil
}

// beginClaim begins a claim of the store. While another one is under way that may
// have to give way to this one, that one is asked to.
func (c *claimer) beginClaim(ctx context.Context, from preemption, current fence.Token) (driver.Claiming, error) {
	waiting, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if c.opts.Retrying != nil {
		wg.Go(func() { c.tellOfWaiting(waiting) })
	}
	if !current.IsZero() && (from.Operator || from.Generation > current.Generation) {
		wg.Go(func() { (&preempter{store: c.store, cfg: c.cfg}).request(waiting, from) })
	}
	return c.store.Claim(ctx)
}

// tellEvery is how often the caller is told of a claim that the store does not let begin.
const tellEvery = time.Second

// tellOfWaiting tells the caller until ctx ends. A store may wait for another session for
// as long as the claim has time, and says only then who that is.
func (c *claimer) tellOfWaiting(ctx context.Context) {
	err := fmt.Errorf("%s: %w, since %s", c.store, ErrClaimWaits, time.Now().UTC().Format(time.RFC3339))
	for elapse(ctx, tellEvery); ctx.Err() == nil; elapse(ctx, tellEvery) {
		c.opts.Retrying(err)
	}
}
