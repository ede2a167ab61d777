package identity

import (
	"errors"
	"fmt"
)

var (
	// errGone means that no process has a pid.
	errGone = errors.New("no process has this pid")

	// errUnknown means that a system can't tell who a process is.
	errUnknown = errors.New("this system does not tell processes apart")
)

// A view is what this process sees of itself and of others. The functions are the
// operating system's, or a test's.
type view struct {
	self func() (Process, error)
	// signal asks whether a process has pid, and sends it no signal. It returns errGone
	// if none has. Any other error, such as of rights, proves nothing.
	signal func(pid int) error
	stat   func(pid int) (stat, error)
}

// A stat is what /proc/PID/stat says of a process.
type stat struct {
	state   byte   // such as S for asleep, Z for a zombie
	threads int    // including a main thread that has ended
	start   uint64 // as in Process
}

// Self returns the identity of this process. It reads some files of /proc each time,
// which takes about 50 µs.
func Self() (Process, error) { return system().self() }

// Child returns the identity of a child of this process that was not waited for
// yet, so that no other process can have its pid.
func Child(pid int) (Process, error) { return system().child(pid) }

// Ended reports whether p is proven to have ended, and how that is known, or why it
// is not. It asks the operating system each time, and nobody else.
func (p Process) Ended() (proven bool, why string) { return system().ended(p) }

func (v view) child(pid int) (Process, error) {
	p, err := v.self()
	if err != nil {
		return Process{}, err
	}
	s, err := v.stat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("identity: child %d: %w", pid, err)
	}
	p.pid, p.start = pid, s.start
	return p, nil
}

func (v view) ended(p Process) (proven bool, why string) {
	me, err := v.comparable(p)
	switch {
	case err != nil:
		return false, err.Error()
	case p == me:
		return false, "it is this process"
	case errors.Is(v.signal(p.pid), errGone):
		return true, fmt.Sprintf("no process has its pid, %d, any more", p.pid)
	}
	s, err := v.stat(p.pid)
	switch {
	case err != nil && errors.Is(v.signal(p.pid), errGone): // it ended in between
		return true, fmt.Sprintf("no process has its pid, %d, any more", p.pid)
	case err != nil:
		return false, fmt.Sprintf("the process with its pid, %d, can't be seen: %v", p.pid, err)
	case p.times != me.times:
		return false, fmt.Sprintf("the process with its pid, %d, is of another time namespace, and may be another one", p.pid)
	case s.start != p.start:
		return true, fmt.Sprintf("its pid, %d, belongs to another process now", p.pid)
	case s.hasEnded():
		return true, fmt.Sprintf("of process %d only the exit status is left", p.pid)
	default:
		return false, fmt.Sprintf("process %d is there", p.pid)
	}
}

// comparable returns this process's own identity if the pid of p means to it what
// it means to p. The inode of a pid namespace is given to a new one only after every
// process of the old one has ended, so that it can't mislead.
func (v view) comparable(p Process) (me Process, err error) {
	me, err = v.self()
	switch {
	case err != nil:
		return me, fmt.Errorf("it is not known who this process is: %w", err)
	case p.boot != me.boot:
		return me, errors.New("it runs on another host, or ran before this one was booted")
	case p.host != me.host:
		return me, errors.New("it runs under another host name")
	case p.pids != me.pids:
		return me, errors.New("it runs in another pid namespace")
	}
	return me, nil
}

// hasEnded reports whether nothing of the process runs any more. A main thread that
// ends before the others is a zombie too, and the process goes on.
func (s stat) hasEnded() bool {
	switch s.state {
	case 'Z', 'X', 'x':
		return s.threads <= 1
	}
	return false
}
