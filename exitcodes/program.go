package exitcodes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/internal/closing"
	"github.com/fencepost/fencepost/internal/stacks"
)

// ErrStopRequested is the cause of the context of [Main]'s work once SIGTERM
// or SIGINT asked for a stop. Work that returns it, or context.Canceled, ends
// the process with [Success], or with 129 where SIGHUP asked.
var ErrStopRequested = errors.New("stop requested")

// errHangup is a stop after which the service is to come back.
var errHangup = fmt.Errorf("%w by signal %v", ErrStopRequested, syscall.SIGHUP)

// A program is the work of one Main, from start to ending.
type program struct {
	opts   Options
	ctx    context.Context // of the work; carries the program itself
	cancel context.CancelCauseFunc
	forced <-chan time.Time // fires when the work's time is over; nil until the context ends
	stop   time.Time        // when the first signal came that asks for a stop; zero before
	cut    bool             // a second signal asked for the end at once

	telling notices // to the service manager

	mu     sync.Mutex
	fields map[string]string // for the ending record
}

type programKey struct{}

// Annotate adds a field to the ending record of the program whose [Main] made
// ctx, such as the address at which it answers its admin API, under
// [AdminField]. A later value replaces an earlier one. It does nothing with
// any other context. A record that is too large drops all such fields.
func Annotate(ctx context.Context, key, value string) {
	p, ok := ctx.Value(programKey{}).(*program)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fields[key] = value
}

// End begins the ending of the program whose [Main] made ctx because of err,
// from anywhere within its work: the context ends with err as its cause, the
// work has its grace to return, and err decides the exit status together with
// what the work returns. The first cause stays. It reports whether ctx belongs
// to a Main, and does nothing for a nil err.
func End(ctx context.Context, err error) bool {
	p, ok := ctx.Value(programKey{}).(*program)
	if ok && err != nil {
		p.cancel(err)
	}
	return ok
}

func newProgram(opts Options) *program {
	p := &program{opts: opts, fields: make(map[string]string)}
	ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), programKey{}, p))
	p.ctx = closing.New(ctx, func() time.Time { return time.Now().Add(p.workTime()) })
	p.cancel = func(cause error) {
		cancel(cause)
		_, _ = p.ctx.Deadline() // the time counts from now
	}
	return p
}

// The bounds of the time for saying how the process ends.
const (
	leastWords = 250 * time.Millisecond
	mostWords  = time.Second
)

// workTime is how long the work may take to return. The rest of the grace is for
// the last words.
func (p *program) workTime() time.Duration { return p.opts.Grace - min(p.opts.Grace/4, mostWords) }

// lastWords is how long it may take to say how the process ends.
func (p *program) lastWords() time.Duration {
	if p.cut {
		return leastWords
	}
	return max(leastWords, min(p.opts.Grace/4, mostWords))
}

// StopWindow is how long after the first stop signal further ones belong to the same
// request, since supervisors send one to a process and one to its group.
const StopWindow = 250 * time.Millisecond

// again reports whether a signal asks for a stop once more, and is to end the
// process at once. The first one does not, nor do those that belong to it.
func (p *program) again() bool {
	if p.stop.IsZero() {
		p.stop = time.Now()
		return false
	}
	return time.Since(p.stop) >= StopWindow
}

// await runs the work until it returns, its grace is over, or a second signal
// arrives, and says how the process ends.
func (p *program) await(run func(context.Context) error, signals <-chan os.Signal) ending {
	done := make(chan error, 1)
	go p.work(run, done)
	ended := p.ctx.Done()
	for {
		select {
		case err := <-done:
			return p.judge(err)
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				p.cancel(errHangup)
				continue
			}
			if p.again() {
				return p.cutShort(sig)
			}
			p.cancel(fmt.Errorf("%w by signal %v", ErrStopRequested, sig))
		case <-ended:
			ended = nil
			p.forced = time.After(p.workTime())
			why := context.Cause(p.ctx)
			p.telling.Go(func() { notifyStopping(why, p.opts.Grace) })
		case <-p.forced:
			return p.overdue()
		}
	}
}

// work calls run and hands on what it returns; a Go panic and a goroutine that
// ends itself become errors.
func (p *program) work(run func(context.Context) error, done chan<- error) {
	err := errors.New("the work ended its own goroutine with runtime.Goexit")
	defer func() {
		if value := recover(); value != nil {
			err = &goPanic{value: value, stacks: stacks.All("")}
		}
		done <- err
	}()
	err = run(p.ctx)
}

// judge says how a process ends whose work returned err. After the context
// ended, errors that only report this say nothing new.
func (p *program) judge(err error) ending {
	if p.ctx.Err() == nil {
		return p.ending(err, voices(err))
	}
	cause := context.Cause(p.ctx)
	stopped := errors.Is(cause, ErrStopRequested)
	if err == nil || !stopped && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	var heard []voice
	for _, v := range voices(err) {
		if !v.echoes() {
			heard = append(heard, v)
		}
	}
	if len(heard) == 0 && !stopped {
		heard = voices(cause)
	}
	// A SIGTERM that came with it, in whatever order, asks for more.
	hungUp := errors.Is(cause, errHangup) && p.stop.IsZero()
	if hungUp && len(heard) == 0 {
		err = cause
	}
	e := p.ending(err, heard)
	e.record.StopRequested = stopped && !hungUp
	if hungUp && len(heard) == 0 {
		e.record.Code = 128 + Code(syscall.SIGHUP)
	}
	return e
}

// echoes reports whether v says no more than that the work was cancelled.
func (v voice) echoes() bool {
	cancelled := errors.Is(v.err, ErrStopRequested) || errors.Is(v.err, context.Canceled)
	return cancelled && v.disposition <= Retry
}

// overdue is the ending of work that did not return within its grace.
func (p *program) overdue() ending {
	e := p.judge(nil)
	e.remark = fmt.Sprintf("the work did not return within %v and was cut off", p.workTime())
	e.show(stacks.All("exitcodes.(*program).work"))
	return e
}

// cutShort is the ending by a second signal: at once, with 128 and the
// signal's number, as shells count.
func (p *program) cutShort(sig os.Signal) ending {
	p.cut = true
	e := p.judge(nil)
	e.remark = fmt.Sprintf("signal %v while stopping ended the process at once", sig)
	e.record.Disposition, e.record.Superseded = None.String(), false
	e.record.Code = Failure
	if number, ok := sig.(syscall.Signal); ok {
		e.record.Code = 128 + Code(number)
	}
	return e
}

func (p *program) ending(err error, heard []voice) ending {
	e := endingOf(err, decide(heard))
	p.mu.Lock()
	defer p.mu.Unlock()
	e.record.Fields = maps.Clone(p.fields)
	return e
}

// A goPanic is a panic of the work, as an error.
type goPanic struct {
	value  any
	stacks []byte // of all goroutines, where it happened
}

func (g *goPanic) Error() string            { return fmt.Sprintf("go panic: %v", g.value) }
func (g *goPanic) Disposition() Disposition { return Panic }
func (g *goPanic) Stacks() []byte           { return g.stacks }
