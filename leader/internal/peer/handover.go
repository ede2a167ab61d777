package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

// An Ask is the request that the holder of a claim hand over to a generation.
type Ask struct {
	Claim      driver.ID
	Address    string // of the holder
	Generation generation.Generation

	// Acknowledge is how long the holder may take to answer, the connection
	// included. Only time counts during which Reads succeeds. A holder of an older
	// build answers once its work has ended, and needs as long as that may take.
	Acknowledge time.Duration

	// Reads reads the store once, and returns whether that failed: a holder asks the
	// store before it acknowledges. It is called several times while the answer is
	// awaited, within its context. Nil: the store counts as answering.
	Reads func(context.Context) error

	// Migrations is how much longer than usual the handover may take, for a holder
	// of an older build, which knows no progress.
	Migrations time.Duration
}

// How often the holder is told of progress at most, and how long one such
// request may take.
const (
	progressEvery   = 100 * time.Millisecond
	progressTimeout = time.Second
)

// A Handover is a holder's that has acknowledged. It must be closed.
type Handover struct {
	ask      Ask
	nonce    string
	ctx      context.Context // of the connection
	cancel   context.CancelCauseFunc
	wg       sync.WaitGroup
	answer   *answer
	progress chan struct{} // holds one if there is progress to tell of

	settled chan struct{} // closed when paused or failed is set
	paused  Paused
	failed  error
	resumed chan struct{} // closed when the holder waits no longer
}

// AskHandover asks, and returns once the holder has acknowledged. Its errors
// match ErrNotAcknowledged, ErrRefused, ErrNotPromoted, ErrBusy or ErrNotHolder, or are
// those of the connection.
func AskHandover(ctx context.Context, a Ask) (*Handover, error) {
	query := url.Values{"generation": {a.Generation.String()}, acknowledgeParam: {"1"}}
	if a.Migrations > 0 {
		query.Set(migrationsParam, a.Migrations.String())
	}
	q := newQuestion(http.MethodPost, handoverPath, a.Claim, query)
	asking, cancel := context.WithCancelCause(ctx)
	got, err := answered(asking, cancel, q, a)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	h := &Handover{
		ask: a, nonce: q.nonce, ctx: asking, cancel: cancel, answer: got,
		progress: make(chan struct{}, 1), settled: make(chan struct{}), resumed: make(chan struct{}),
	}
	h.wg.Go(h.read)
	if got.first.Acknowledged {
		h.wg.Go(h.tell)
	}
	return h, nil
}

// answered waits for the first line, for as long as a.Acknowledge allows.
func answered(ctx context.Context, cancel context.CancelCauseFunc, q question, a Ask) (*answer, error) {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if exhaust(waiting, a.Acknowledge, a.Reads) {
			cancel(ErrNotAcknowledged)
		}
	})
	got, err := q.ask(ctx, a.Address)
	stop()
	wg.Wait()
	if errors.Is(context.Cause(ctx), ErrNotAcknowledged) {
		if err == nil {
			got.Close()
		}
		err = fmt.Errorf("leader: the process at %s %w within %v", a.Address, ErrNotAcknowledged, a.Acknowledge)
		return nil, err
	}
	return got, err
}

// read takes the lines behind the first one, until the answer ends.
func (h *Handover) read() {
	defer close(h.resumed)
	v, err := h.answer.first, error(nil)
	if v.Acknowledged {
		v, err = h.answer.next()
	}
	if err = ended(v, err); err != nil {
		h.failed = fmt.Errorf("leader: the process at %s %w", h.ask.Address, err)
		close(h.settled)
		return
	}
	h.paused = Paused{Revision: v.Revision, Version: v.Version}
	close(h.settled)
	_, _ = h.answer.next() // a line or the end: both say that the holder waits no longer
}

// ended returns what a line says of the end of the handover: nil if it says
// where the work has ended.
func ended(v line, err error) error {
	if err == nil && v.Error != "" {
		err = fmt.Errorf("%.*q", maxWhy, v.Error)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrResumed, err)
	}
	return nil
}

// Paused returns where the holder's work has ended, as soon as it has. Its error
// matches ErrResumed if the holder or the connection has ended first.
func (h *Handover) Paused(ctx context.Context) (Paused, error) {
	select {
	case <-h.settled:
		return h.paused, h.failed
	case <-ctx.Done():
		return Paused{}, fmt.Errorf("leader: the work of the process at %s has not ended: %w", h.ask.Address, context.Cause(ctx))
	}
}

// Resumed returns a channel that is closed when the holder waits no longer: it
// has said so, the connection has ended, or the Handover is closed.
func (h *Handover) Resumed() <-chan struct{} { return h.resumed }

// Progress tells the holder that the successor is still at work. It returns at
// once and may be called often; calls are coalesced.
func (h *Handover) Progress() {
	select {
	case h.progress <- struct{}{}:
	default: // it is going to be told
	}
}

// tell sends what Progress has asked for. A try that fails is no loss: the next
// one follows, and the end of the connection says the rest.
func (h *Handover) tell() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-h.progress:
		case <-h.resumed:
			return
		}
		bounded, cancel := context.WithTimeout(h.ctx, progressTimeout)
		resp, err := newQuestionNamed(h.nonce, http.MethodPost, progressPath, h.ask.Claim, nil).send(bounded, h.ask.Address)
		if err == nil {
			resp.Body.Close()
		}
		cancel()
		pause.Reset(progressEvery)
		select {
		case <-pause.C:
		case <-h.resumed:
			return
		}
	}
}

// Close takes the request back, and joins what waits for the answer. A holder
// that is not fenced by then resumes its work.
func (h *Handover) Close() {
	h.cancel(nil)
	h.answer.Close()
	h.wg.Wait()
}
