//go:build unix

package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/process"
	"github.com/fencepost/fencepost/internal/spool"
	"github.com/fencepost/fencepost/leader"
)

// Run waits for its turn, runs cfg.Command while this process holds the token of
// the catalog in store, and returns when that is over, with everything ended that it
// started. It returns what leader.Leader.Run does, or an [*EndedError] with the
// command's own status. The end of ctx is a request to stop, which the command has
// cfg.StopGrace to obey.
//
// Run takes the process over: it receives its signals and waits for all of its
// children, so nothing else in the process can start any.
func Run(ctx context.Context, store driver.Store, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	if err := errors.Join(startable(cfg.Command[0]), tokenFileIsWritable(cfg.TokenFile)); err != nil {
		return err
	}
	h := &holder{cfg: cfg, log: cfg.Lead.Logger, stop: ctx.Done(), reaper: process.NewReaper(), signals: make(chan os.Signal, 16)}
	h.notices = spool.New(waitingNotices, h.notify)
	h.keeper.h = h
	if cfg.Prepare != "" {
		cfg.Lead.Prepare = h.prepare
	}
	lead, err := leader.New(store, cfg.Lead)
	if err != nil {
		return err
	}
	h.lead = lead
	return h.run(ctx)
}

// A holder is one call of Run.
type holder struct {
	cfg     Config
	log     *slog.Logger
	lead    *leader.Leader
	reaper  *process.Reaper
	keeper  keeper
	signals chan os.Signal // for the command
	stop    <-chan struct{}
	busy    sync.Mutex             // held while the command runs
	ran     bool                   // the command was started once
	notices *spool.Queue[[]string] // to the service manager, which may have stopped reading
}

var (
	errNotStarted = errors.New("the command was not started yet")
	errNotReady   = errors.New("the command is not ready yet")
)

func (h *holder) run(ctx context.Context) error {
	if err := process.AdoptOrphans(); err != nil {
		h.log.Warn("what leaves the command's group is not found", "err", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	reaping, joined := context.WithCancel(context.WithoutCancel(ctx))
	defer joined()
	wg.Go(func() { h.reap(reaping) })
	if passed := h.passed(); len(passed) > 0 {
		signal.Notify(h.signals, passed...) // for good: a late one must not decide how the process ends
	}
	// The leader is told to stop only once the command has ended: until then it
	// renews the lease.
	leading, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	wg.Go(func() {
		select {
		case <-ctx.Done():
			h.busy.Lock()
			defer h.busy.Unlock()
			cancel(context.Cause(ctx))
		case <-leading.Done():
		}
	})
	defer h.notices.Flush(farewell)
	defer h.keeper.end()
	h.keeper.send(0, 0) // before it is needed
	return h.lead.Run(leading, h.work)
}

// passed are the signals that go to the command. Those that were ignored when this
// process began, as by nohup, stay so.
func (h *holder) passed() []os.Signal {
	return slices.DeleteFunc(process.Forwarded(), func(s os.Signal) bool {
		return s == syscall.SIGTERM || s == syscall.SIGINT || signal.Ignored(s)
	})
}

// reap waits for children until ctx ends.
func (h *holder) reap(ctx context.Context) {
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, syscall.SIGCHLD)
	defer signal.Stop(deaths)
	for {
		h.reaper.Reap() // also what ended before
		select {
		case <-deaths:
		case <-ctx.Done():
			return
		}
	}
}

func (h *holder) tell(format string, args ...any) { h.log.Warn(fmt.Sprintf(format, args...)) }

// work runs the command for as long as this process leads.
func (h *holder) work(ctx context.Context, term *leader.Term) error {
	h.busy.Lock()
	defer h.busy.Unlock()
	term.NotServing(errNotStarted.Error())
	for {
		switch {
		case h.stopped():
			return nil // the work is done: the token is given back
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		again, err := h.term(ctx, term)
		if !again {
			return err
		}
		h.log.Warn("the command was killed when the lease had expired, and nobody has claimed since: it is started again")
		h.believe(ctx)
	}
}

func (h *holder) stopped() bool {
	select {
	case <-h.stop:
		return true
	default:
		return false
	}
}

// believe waits until the token is believed again, or ctx ends.
func (h *holder) believe(ctx context.Context) {
	for !h.lead.Held() {
		select {
		case <-time.After(h.cfg.Lead.Lease / looks):
		case <-ctx.Done():
			return
		case <-h.stop:
			return
		}
	}
}

const (
	waitingNotices = 1024
	farewell       = 250 * time.Millisecond // for the service manager at the end
)

// say tells the service manager, and does not wait until it is read.
func (h *holder) say(assignments ...string) { h.notices.Put(assignments) }

func (h *holder) notify(assignments []string, _ int) {
	if err := h.cfg.Lead.Notify(assignments...); err != nil {
		h.log.Debug("the service manager was not told", "err", err)
	}
}
