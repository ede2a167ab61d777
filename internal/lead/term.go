//go:build unix

package lead

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/process"
	"github.com/fencepost/fencepost/leader"
)

// looks is how many times in the time of a lease it is asked whether the lease has
// expired, and the keeper is told.
const looks = 20

// A term is one run of the command. One goroutine runs it.
type term struct {
	*holder
	leads   *leader.Term
	token   fence.Token
	env     []string
	group   *process.Group
	records *process.Records
	words   <-chan process.Word
	said    chan struct{} // closed when the command says READY=1
	isReady bool          // said is closed
	idle    func()        // ends what the command is busy with; nil: with nothing

	end      end
	asked    bool          // the command was sent the stop signal
	deadline time.Time     // by when a handover needs the command's end
	held     chan struct{} // closed when the hold hook is over; nil: none runs
	tasks    sync.WaitGroup
	cancel   context.CancelFunc // of tasks
}

// An end is why the command is being ended.
type end uint8

const (
	none     end = iota
	handover     // the token is to be handed over
	stop         // this process is to stop
	lost         // the token is lost, or must not be believed
)

// term runs the command once. Again reports that it was killed because nobody
// renewed the lease in time, and that this process may still hold the token.
func (h *holder) term(ctx context.Context, leads *leader.Term) (again bool, err error) {
	t := &term{holder: h, leads: leads, token: leads.Claim().Token, said: make(chan struct{})}
	if t.env, err = h.cfg.environ(t.token); err != nil {
		return false, err
	}
	file, err := writeToken(h.cfg.TokenFile, t.token)
	if err != nil {
		return false, err
	}
	defer file.remove()
	t.records = process.NewRecords("")
	defer t.records.Close(0) // nothing is passed on
	socket, words, hush, err := process.Listen()
	if err == nil {
		defer hush()
		t.words = words
	} else if h.cfg.Ready.Notify {
		return false, exitcodes.WithCode(fmt.Errorf("the command can't say that it is ready: %w", err), exitcodes.Config)
	}
	t.notServing(errNotReady)
	if t.group, err = t.start(socket); err != nil {
		return false, unstartable(h.cfg.Command[0], err, h.ran)
	}
	h.ran = true
	h.log.Info("the command runs", "token", t.token.String(), "process", t.group.PID())
	t.run(ctx)
	t.busy("")
	t.notServing(errNotStarted)
	return t.conclude(ctx)
}

func (t *term) notServing(err error) { t.leads.NotServing(err.Error()) }

func (t *term) start(socket string) (*process.Group, error) {
	if err := t.records.Clear(); err != nil {
		t.log.Debug("the command can't leave an ending record", "err", err)
	}
	t.dropSignals()
	left := t.left()
	g, err := t.reaper.Start(process.Spec{
		Command: t.cfg.Command,
		Environ: process.With(t.env, map[string]string{
			exitcodes.NotifySocketEnv: socket, exitcodes.TerminationLogEnv: t.records.Path(),
		}),
		Files:     [3]*os.File{t.cfg.Stdin, t.cfg.Stdout, t.cfg.Stderr},
		StopGrace: t.cfg.StopGrace, KillGrace: t.cfg.KillGrace,
		DieWithParent: true, Tell: t.tell,
	})
	if err == nil {
		t.keeper.watch(g.PID(), left)
	}
	return g, err
}

// dropSignals drops those that came while no command ran: a signal that comes before
// the command has a handler for it ends it.
func (h *holder) dropSignals() {
	for {
		select {
		case sig := <-h.signals:
			h.log.Info("a signal came while no command ran, and is not passed on", "signal", sig.String())
		default:
			return
		}
	}
}

// left is for how long the token may be believed without asking.
func (t *term) left() time.Duration {
	return time.Duration(t.lead.Status().LeaseLeft * float64(time.Second))
}

// run returns once nothing of the command and its hooks is left.
func (t *term) run(ctx context.Context) {
	losing, done := t.leads.Context(context.WithoutCancel(ctx)) // ctx may end before, for less
	defer done(nil)
	var working context.Context
	working, t.cancel = context.WithCancel(ctx)
	defer t.endStrays() // once no hook runs that could leave any
	defer t.tasks.Wait()
	defer func() { t.cancel() }()
	t.tasks.Go(func() { t.becomeReady(working) })
	look := time.NewTicker(t.cfg.Lead.Lease / looks)
	defer look.Stop()
	ended, stopped, loss := ctx.Done(), t.holder.stop, losing.Done()
	for t.group.Look(); !t.group.Gone(); t.group.Look() {
		select {
		case <-loss:
			loss = nil
			t.lose(context.Cause(losing))
		case <-ended:
			ended = nil
			t.obey(ctx)
		case <-stopped:
			stopped = nil
			t.halt(stop, t.cfg.StopGrace)
		case <-t.held:
			t.held = nil
			t.halt(handover, time.Until(t.deadline))
		case <-look.C:
			t.renew()
		case sig := <-t.signals:
			t.group.Signal(sig.(syscall.Signal))
		case w := <-t.words:
			t.hear(w)
		case <-t.group.News():
		case <-t.group.Poll():
		case <-t.group.Due():
			t.group.Force()
		}
	}
	t.keeper.rest()
}

// endStrays ends what has left the groups of the command and of hooks.
func (t *term) endStrays() {
	if !t.reaper.EndStrays(t.cfg.KillGrace) {
		t.tell("what has left the command's group is still there %v after SIGKILL: it is left behind", t.cfg.KillGrace)
	}
}

// obey ends the command as the end of ctx asks.
func (t *term) obey(ctx context.Context) {
	why := context.Cause(ctx)
	if !errors.Is(why, leader.ErrHandingOver) {
		t.lose(why)
		return
	}
	t.notServing(leader.ErrHandingOver)
	t.deadline = time.Now().Add(t.cfg.stopTime())
	held := make(chan struct{})
	t.held = held
	t.cancel() // the resume hook is over
	holding, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	t.tasks.Go(func() {
		defer close(held)
		t.hook(holding, "hold", t.cfg.Hold, min(t.cfg.HookTimeout, t.cfg.stopTime()/2))
	})
}

// halt asks the command to end, and gives it a grace. It asks once, since many
// programs take a second stop signal for the order to end at once: a stop behind a
// handover, or a handover behind a stop, only makes the grace shorter.
func (t *term) halt(why end, grace time.Duration) {
	t.end = max(t.end, why)
	t.cancel()
	t.notServing(errStopping)
	grace = max(0, min(grace, t.cfg.StopGrace))
	if t.asked {
		t.group.Hurry(grace)
	} else {
		t.asked = true
		t.group.Stop(t.cfg.StopSignal, grace)
	}
	t.log.Info("the command is stopped", "signal", t.cfg.StopSignal.String(), "grace", grace.Round(time.Millisecond), "for", t.end.String())
}

// lose kills the command at once: another process may have the token. It logs only
// then, since a reader of the log may have stopped reading.
func (t *term) lose(why error) {
	known := t.end == lost
	t.end = lost
	t.cancel()
	t.notServing(why)
	t.group.Kill()
	if !known {
		t.log.Warn("the command is killed", "because", why)
	}
}

func (e end) String() string {
	return [...]string{"its own sake", "a handover", "a stop of this process", "the loss of the token"}[e]
}

var (
	errExpired  = errors.New("the lease has expired")
	errStopping = errors.New("the command is being stopped")
)

// renew tells the keeper for how long the command may go on.
func (t *term) renew() {
	left := t.left()
	if left <= 0 || !t.lead.Held() || t.keeper.late() {
		t.lose(errExpired)
		return
	}
	t.keeper.watch(t.group.PID(), left)
}

// speaks reports whether a word comes from a command and what it has started, and
// not from another user of this host. A process may have ended since, such as a
// helper of a script, so its user alone will do.
func speaks(w process.Word, group int) bool {
	if w.UID == os.Geteuid() {
		return true
	}
	pgid, err := syscall.Getpgid(w.PID) // a command may run as another user
	return err == nil && pgid == group
}

// hear takes what the command says.
func (t *term) hear(w process.Word) {
	if !speaks(w, t.group.PID()) {
		return
	}
	for _, line := range w.Lines() {
		name, text, _ := strings.Cut(line, "=")
		switch {
		case line == "READY=1" && !t.isReady:
			t.isReady = true
			close(t.said)
		case name == "STATUS":
			t.say(fmt.Sprintf("STATUS=leads as %v: %s", t.token, text))
		case name == "EXTEND_TIMEOUT_USEC":
			t.say(line)
		case name == busyWord:
			t.busy(text)
		}
	}
}

// busyWord is the variable by which the command says what it is busy with; empty: with
// nothing.
const busyWord = "X_FENCEPOST_BUSY"

// busy passes on what the command is busy with.
func (t *term) busy(what string) {
	if before := t.idle; before != nil {
		defer before() // behind the new word, so that nobody sees an idle moment
	}
	t.idle = nil
	if what != "" {
		t.idle = t.leads.Busy(what)
	}
}

// becomeReady waits until the command is ready, and has requests come again.
func (t *term) becomeReady(ctx context.Context) {
	if t.awaitReady(ctx) != nil || ctx.Err() != nil {
		return
	}
	t.leads.Serving()
	t.log.Info("the command is ready", "token", t.token.String(), "after", time.Since(t.group.Started()).Round(time.Millisecond))
	t.say(fmt.Sprintf("STATUS=leads as %v, and the command is ready", t.token))
	t.hook(ctx, "resume", t.cfg.Resume, t.cfg.HookTimeout)
}

// conclude says what the command's end means to the leader.
func (t *term) conclude(ctx context.Context) (again bool, err error) {
	g := t.group
	t.log.Info("the command has ended", "status", g.Code(), "after", g.Ended().Sub(g.Started()).Round(time.Millisecond))
	err = own(g, t.records.Read(g.Code()))
	switch t.end {
	case lost:
		return ctx.Err() == nil && t.leads.Err() == nil, context.Cause(ctx)
	case handover:
		return false, context.Cause(ctx)
	case stop:
		if g.KilledBy() == t.cfg.StopSignal || g.Code() == 128+exitcodes.Code(t.cfg.StopSignal) {
			return false, nil // it has obeyed
		}
		return false, err
	}
	if g.KilledBy() == syscall.SIGKILL && t.keeper.late() {
		return ctx.Err() == nil && t.leads.Err() == nil, context.Cause(ctx) // the keeper's doing, while this process did not run
	}
	// It may have been refused by a guard: then the head says why, and decides.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.Lead.Lease/3)
	defer cancel()
	_ = t.leads.Confirm(bounded) // what it finds, the leader asks the catalog for
	return false, err
}
