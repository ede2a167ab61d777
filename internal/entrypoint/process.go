//go:build unix

package entrypoint

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

var errNotFound = exec.ErrNotFound

// start starts the command as the leader of its own process group. It does not
// use os.StartProcess, whose own waiting would compete with reap.
func (s *supervisor) start() error {
	path, err := exec.LookPath(s.cfg.Command[0])
	if err != nil {
		return err
	}
	started := time.Now()
	pid, err := syscall.ForkExec(path, s.cfg.Command, &syscall.ProcAttr{
		Env:   s.environ(),
		Files: []uintptr{s.cfg.Stdin.Fd(), s.cfg.Stdout.Fd(), s.cfg.Stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return err
	}
	s.kill = nil
	s.child = child{pid: pid, started: started}
	return nil
}

// environ is the child's environment, with its own place for the record, and
// for what it says to the service manager.
func (s *supervisor) environ() []string {
	env := s.cfg.Environ
	for name, value := range map[string]string{
		exitcodes.TerminationLogEnv: s.log.path, exitcodes.NotifySocketEnv: s.manager.name,
	} {
		env = slices.DeleteFunc(slices.Clone(env), func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// passing reports whether a start failed for want of resources, or because the
// program is being replaced, so that a later one may do better. A program that
// has run before and is not there any more is being replaced, too.
func passing(err error, ran bool) bool {
	among := func(errs ...error) bool {
		return slices.ContainsFunc(errs, func(target error) bool { return errors.Is(err, target) })
	}
	return among(syscall.EAGAIN, syscall.ENOMEM, syscall.ETXTBSY, syscall.EMFILE, syscall.ENFILE, syscall.EINTR) ||
		ran && among(syscall.ENOENT, syscall.EACCES, syscall.ENOEXEC, syscall.EIO, syscall.ESTALE)
}

// reap waits for every child that has ended, orphans included, and keeps the
// status of the one that was started here.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if pid == s.child.pid && s.child.status == nil {
			s.child.status = &status
			s.child.ended = time.Now()
		}
	}
}

// signalGroup sends sig to the child's whole group, unless that has ended: its
// id may then be another's.
func (s *supervisor) signalGroup(sig syscall.Signal) {
	if s.child.pid != 0 && !s.child.gone {
		_ = syscall.Kill(-s.child.pid, sig) // the last of the group may just have ended
	}
}

func (s *supervisor) groupIsThere() bool {
	return !errors.Is(syscall.Kill(-s.child.pid, 0), syscall.ESRCH)
}
