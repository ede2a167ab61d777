package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// endTime bounds how long a process may take to end once it is told to: the
// entrypoint gives its server three seconds.
const endTime = 8 * time.Second

// A process is one server under its entrypoint, `fencepost run`.
type process struct {
	name       string // blue or green
	generation int
	listen     string // for clients
	admin      string
	logPath    string

	cmd   *exec.Cmd
	ended chan struct{} // closed when the entrypoint has ended
	watch watch

	mu    sync.Mutex
	child int // the server's process, as far as it is known
}

// keepLog is how many bytes of log the servers keep, more than any run writes:
// the audit reads the log from its beginning.
const keepLog = "1099511627776"

// launch starts a server of a generation under an entrypoint. The store goes by
// the environment, since it may hold a password.
func (d *demo) launch(name, store string, generation int, dir string) (*process, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	p := &process{
		name: name, generation: generation, listen: addresses[0], admin: addresses[1],
		logPath: filepath.Join(dir, name+".log"), ended: make(chan struct{}),
	}
	logFile, err := os.Create(p.logPath)
	if err != nil {
		return nil, err
	}
	defer logFile.Close() // the child has its own
	p.cmd = exec.Command(d.binaries.fencepost, "run", "--admin", p.admin, "--stop-grace", "3s", "--",
		d.binaries.server, "-compact-after", keepLog, "-drain", "0s", "-generation", strconv.Itoa(generation), "-listen", p.listen, "-admin", p.admin)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = logFile, logFile, childEnviron(store)
	// A group of its own: Ctrl-C at the terminal is for this process, which
	// then ends the others in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // whoever cares reads ProcessState
	}()
	return p, nil
}

// childEnviron is the environment with this store and no other setting of ours.
func childEnviron(store string) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains([]string{
			"FENCEPOST_STORE", "FENCEPOST_STORE_FILE", "FENCEPOST_ADMIN", "FENCEPOST_GENERATION", "FENCEPOST_TERMINATION_LOG",
		}, name)
	})
	return append(env, "FENCEPOST_STORE="+store)
}

// freeAddresses returns loopback addresses at which nobody listens.
func freeAddresses(n int) (addresses []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close() // only when all are found, so that they differ
		addresses = append(addresses, ln.Addr().String())
	}
	return addresses, nil
}

func (p *process) String() string { return fmt.Sprintf("%s (generation %d)", p.name, p.generation) }

// running reports whether the entrypoint is there.
func (p *process) running() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s: fencepost run has ended: %v", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// whileRunning returns a context that ends with the entrypoint.
func (p *process) whileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.ended:
			cancel(p.running())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// findChild asks the server for its process id.
func (p *process) findChild(ctx context.Context) (int, error) {
	c, err := dial(ctx, p.listen)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	fields, err := c.info(dialTime, "server")
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(fields["process_id"])
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s says that its process is %q", p.name, fields["process_id"])
	}
	p.mu.Lock()
	p.child = pid
	p.mu.Unlock()
	return pid, nil
}

// signal sends a signal to the server itself, not to its entrypoint.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	pid := p.child
	p.mu.Unlock()
	if pid == 0 {
		return fmt.Errorf("the process of %s is not known", p.name)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("%v to %s, process %d: %w", sig, p.name, pid, err)
	}
	return nil
}

// stop ends the server and its entrypoint. The entrypoint kills a server that
// does not obey, one that is stopped by a signal too.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
		return nil
	case <-time.After(endTime):
	}
	err := p.signal(syscall.SIGKILL)
	err = errors.Join(err, p.cmd.Process.Kill())
	<-p.ended
	return errors.Join(fmt.Errorf("%s did not end within %v and was killed", p.name, endTime), err)
}

// restarts counts how often the entrypoint has started the server again.
func (p *process) restarts() int {
	log, err := os.ReadFile(p.logPath)
	if err != nil {
		return -1
	}
	n := 0
	for line := range bytes.Lines(log) {
		if bytes.HasPrefix(line, []byte("fencepost run: ")) && bytes.Contains(line, []byte(": restarting ")) {
			n++
		}
	}
	return n
}

// lastLines returns the end of the log, for people.
func (p *process) lastLines(n int) string {
	log, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error() + "\n"
	}
	lines := strings.SplitAfter(strings.TrimRight(string(log), "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	return "    " + strings.Join(lines, "    ") + "\n"
}
