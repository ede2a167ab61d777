package replicas

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options say how a server is started.
type Options struct {
	Generation int
	Name       string   // of its log; one per start
	Listen     string   // for clients; empty: a free port
	Admin      bool     // it has an admin API
	Supervised bool     // it runs under `fencepost run`
	Program    string   // empty: kvserver
	Args       []string // further flags
	Env        []string // further variables
}

// A Server is one started process of kvserver, or of `fencepost run` with a
// kvserver beneath it.
type Server struct {
	Options
	Address, AdminAddress string    // of clients, and of the admin API
	Started               time.Time // just before the process was

	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

func (s *Server) String() string { return fmt.Sprintf("g%d %s", s.Generation, s.Name) }

func (f *Set) environment() []string {
	return append(os.Environ(), "FENCEPOST_STORE="+f.Store)
}

// Start starts a server.
func (f *Set) Start(o Options) (*Server, error) {
	s := &Server{Options: o, Address: o.Listen, ended: make(chan struct{})}
	if s.Name == "" {
		s.Name = strconv.Itoa(len(f.all) + 1)
	}
	var err error
	if s.Address == "" {
		if s.Address, err = f.FreeAddress(); err != nil {
			return nil, err
		}
	}
	args := append([]string{"-generation", strconv.Itoa(o.Generation), "-listen", s.Address, "-name", s.Name}, o.Args...)
	if o.Admin {
		if s.AdminAddress, err = f.FreeAddress(); err != nil {
			return nil, err
		}
		args = append(args, "-admin", s.AdminAddress)
	}
	program := o.Program
	if program == "" {
		program = f.Server
	}
	if o.Supervised {
		program, args = f.Command, append([]string{"run", "--on-superseded", "exit", "--", program}, args...)
	}
	s.log = filepath.Join(f.Folder, s.Name+".log")
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	s.cmd = exec.Command(program, args...)
	s.cmd.Env = append(f.environment(), o.Env...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.Started = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	f.all = append(f.all, s)
	go func() {
		_ = s.cmd.Wait() // ProcessState has it
		close(s.ended)
	}()
	return s, nil
}

// FreeAddress returns an address at which nobody listens, and each only once. Its
// host is an address of loopback that only this set uses: no other process takes the
// port of a server that is to be started, and no client connects from it.
func (f *Set) FreeAddress() (string, error) {
	if f.given == nil {
		f.given = map[string]bool{}
		f.host = fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	for {
		ln, err := net.Listen("tcp", f.host)
		if err != nil {
			return "", err
		}
		address := ln.Addr().String()
		if err := ln.Close(); err != nil || !f.given[address] {
			f.given[address] = true
			return address, err
		}
	}
}

// Kill kills the process, and the server beneath it, and joins it.
func (s *Server) Kill() {
	if s.Supervised {
		if pid, err := s.child(); err == nil {
			defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }() // it may have ended with its parent
		}
	}
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// Signal sends a signal to the process that was started.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// KillChild kills the kvserver beneath `fencepost run`.
func (s *Server) KillChild() error {
	pid, err := s.child()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func (s *Server) child() (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 0 {
			return strconv.Atoi(fields[0])
		}
	}
	return 0, fmt.Errorf("%s runs no server", s)
}

// Alive reports whether the process that was started runs.
func (s *Server) Alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Exit waits for the end and returns the exit status, -1 after a signal.
func (s *Server) Exit(ctx context.Context) (int, error) {
	select {
	case <-s.ended:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(patience):
		return 0, fmt.Errorf("%s has not ended within %v:\n%s", s, patience, s.Log())
	}
}

// Log returns what the process has printed so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// The phases as kvserver's INFO names them.
const (
	Ready   = "ready-to-promote"
	Leading = "leading"
)

// Phase returns the phase that INFO names, such as [Ready]; empty if the server
// does not answer within timeout.
func (s *Server) Phase(timeout time.Duration) string {
	c, err := dial(s.Address, timeout)
	if err != nil {
		return ""
	}
	defer c.close()
	text, err := c.call(timeout, "INFO", "fencepost")
	_, phase, _ := strings.Cut(text, "fencepost_phase:")
	phase, _, _ = strings.Cut(phase, "\r\n")
	if err != nil {
		return ""
	}
	return phase
}

// Until waits until INFO names a phase.
func (s *Server) Until(ctx context.Context, phase string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		if s.Phase(time.Second) == phase {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ended:
			return fmt.Errorf("%s has ended, and was to be %s:\n%s", s, phase, s.Log())
		case <-late:
			return fmt.Errorf("%s is not %s within %v:\n%s", s, phase, patience, s.Log())
		}
	}
}
