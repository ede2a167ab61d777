//go:build unix

package process

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/identity"
)

// Unstartable is the status of a process whose command can't be started because
// of err.
func Unstartable(err error) exitcodes.Code {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return NotFound
	}
	return NotExecutable
}

// A Spec is a command and how it is to be ended.
type Spec struct {
	Command []string // the program, looked up in PATH, and its arguments
	Path    string   // of the program, where Command only names it; empty: it is looked up
	Environ []string
	Files   [3]*os.File // its standard input, output and error

	StopGrace time.Duration // for the rest of the group once the command has ended
	KillGrace time.Duration // from SIGKILL until what is still there is left behind

	// DieWithParent has the kernel kill the command, and only it, when this process
	// ends by whatever means (Linux).
	DieWithParent bool

	Tell func(format string, args ...any) // takes a line for people
}

// A Reaper starts commands and waits for every child of this process. Its methods
// may be called concurrently.
type Reaper struct {
	mu     sync.Mutex // a command is known before it can be reaped
	groups map[int]*Group
	before map[int]bool // children that it did not start
}

// NewReaper returns a Reaper.
func NewReaper() *Reaper {
	r := &Reaper{groups: make(map[int]*Group), before: make(map[int]bool)}
	for _, pid := range children() {
		r.before[pid] = true
	}
	return r
}

// Start starts a command as the leader of its own process group. It does not use
// os.StartProcess, whose own waiting would compete with Reap.
func (r *Reaper) Start(s Spec) (*Group, error) {
	path := s.Path
	if path == "" {
		found, err := exec.LookPath(s.Command[0])
		if err != nil {
			return nil, err
		}
		path = found
	}
	attr := &syscall.ProcAttr{Env: s.Environ, Sys: &syscall.SysProcAttr{Setpgid: true}}
	for _, f := range s.Files {
		attr.Files = append(attr.Files, f.Fd())
	}
	if !s.DieWithParent {
		return r.fork(path, s, attr)
	}
	type result struct {
		g   *Group
		err error
	}
	forked := make(chan result, 1)
	go func() { // for the kernel the parent is the thread
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		dieWithParent(attr.Sys)
		g, err := r.fork(path, s, attr)
		forked <- result{g, err}
		if err == nil {
			<-g.exited
		}
	}()
	done := <-forked
	return done.g, done.err
}

func (r *Reaper) fork(path string, s Spec, attr *syscall.ProcAttr) (*Group, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	started := time.Now()
	pid, err := syscall.ForkExec(path, s.Command, attr)
	if err != nil {
		return nil, err
	}
	g := &Group{spec: s, pid: pid, started: started, exited: make(chan struct{}), news: make(chan struct{}, 1)}
	g.who, _ = identity.Child(pid) // nobody reaps it meanwhile; without one, less is known of its end
	r.groups[pid] = g
	return g, nil
}

// Reap waits for every child that has ended, orphans included. It is to be called
// upon SIGCHLD.
func (r *Reaper) Reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reap()
	for _, g := range r.groups {
		g.wake()
	}
}

func (r *Reaper) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		delete(r.before, pid)
		if g := r.groups[pid]; g != nil {
			delete(r.groups, pid)
			g.status, g.ended = status, time.Now()
			close(g.exited)
			g.wake()
		}
	}
}

// pollStrays is how often it is looked whether strays have ended.
const pollStrays = 5 * time.Millisecond

// EndStrays kills what was started beneath this process, and has left its group and
// its parent, until nothing of it is left (Linux, and once AdoptOrphans was called). It
// reports false if something is still there when the grace is over.
func (r *Reaper) EndStrays(grace time.Duration) bool {
	over := time.After(grace)
	for r.killStrays() {
		select {
		case <-time.After(pollStrays):
		case <-over:
			return false
		}
	}
	return true
}

func (g *Group) wake() {
	select {
	case g.news <- struct{}{}:
	default: // one is there already
	}
}

// Passing reports whether a start failed for want of resources, or because the
// program is being replaced, so that a later one may do better. A program that
// has run before and is not there any more is being replaced, too.
func Passing(err error, ran bool) bool {
	among := func(errs ...error) bool {
		return slices.ContainsFunc(errs, func(target error) bool { return errors.Is(err, target) })
	}
	return among(syscall.EAGAIN, syscall.ENOMEM, syscall.ETXTBSY, syscall.EMFILE, syscall.ENFILE, syscall.EINTR) ||
		ran && among(syscall.ENOENT, syscall.EACCES, syscall.ENOEXEC, syscall.EIO, syscall.ESTALE)
}

// Forwarded are the signals that a process which stands before a command hands
// on to it.
func Forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	}
}
