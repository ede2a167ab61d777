//go:build unix

package lead_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/cli"
	"github.com/fencepost/fencepost/internal/process"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testpipe"
)

// The test binary is the command fencepost, too.
func TestMain(m *testing.M) {
	args := os.Args[1:]
	if len(args) > 0 && (args[0] == "fencepost" || args[0] == "lead-keeper") {
		if args[0] == "fencepost" {
			args = args[1:]
		}
		os.Exit(int(cli.Main(context.Background(), cli.Env{
			Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		})))
	}
	if len(args) > 0 && plays(args) {
		return
	}
	// Beneath nohup, SIGHUP is ignored, and so are others in a shell's background.
	// A process inherits that, and not that a signal is caught.
	deaf := slices.DeleteFunc(process.Forwarded(), func(s os.Signal) bool { return !signal.Ignored(s) })
	signal.Notify(make(chan os.Signal, 1), append(deaf, syscall.SIGCHLD)...) // with none it would be all
	os.Exit(m.Run())
}

// A service is a catalog and a folder in which its processes leave traces. Its
// commands hold a lock, with all that they start: one that finds it taken ends with
// 77.
type service struct {
	t      *testing.T
	dir    string
	store  string
	unread bool // nobody reads what its processes log, record and tell the service manager
}

const overlap = 77

func newService(t *testing.T) *service {
	dir := t.TempDir()
	return &service{t: t, dir: dir, store: "sqlite:" + filepath.Join(dir, "catalog.db")}
}

func (s *service) path(name string) string { return filepath.Join(s.dir, name) }

// A lead is one process of the command.
type lead struct {
	*service
	name   string
	cmd    *exec.Cmd
	ended  chan struct{}
	record string
}

// shell is a command that runs a script, to which $E is the file of its events.
func (s *service) shell(name, script string) []string {
	lock := fmt.Sprintf("exec 9>>%s; flock -n 9 || exit %d\n", s.path("lock"), overlap)
	if s.unread { // a shell says on standard error which signal ended its child, and would wait for a reader
		lock = "exec 2>/dev/null\n" + lock
	}
	return []string{"--", "sh", "-c", "E=" + s.path(name+".events") + "\n" + lock + script}
}

// begin starts lead with these arguments.
func (s *service) begin(name string, generation int, args ...string) *lead {
	return s.beginUnder(name, nil, append([]string{"fencepost", "lead", "--generation", fmt.Sprint(generation), "--name", name}, args...), nil)
}

func (s *service) beginUnder(name string, under, args, env []string) *lead {
	s.t.Helper()
	l := &lead{service: s, name: name, ended: make(chan struct{}), record: s.path(name + ".record")}
	line := append(append(under, os.Args[0]), args...)
	l.cmd = exec.Command(line[0], line[1:]...)
	l.cmd.Env = append(os.Environ(), storeurl.EnvVar+"="+s.store, exitcodes.TerminationLogEnv+"="+l.record, "GORACE=atexit_sleep_ms=0", "TMPDIR="+s.dir)
	l.cmd.Env = append(l.cmd.Env, env...)
	out, err := os.Create(s.path(name + ".log"))
	require.NoError(s.t, err)
	l.cmd.Stdout, l.cmd.Stderr = out, out
	if s.unread {
		_, l.cmd.Stderr = testpipe.Full(s.t)
		l.cmd.Env = append(l.cmd.Env, exitcodes.NotifySocketEnv+"="+testpipe.FullSocket(s.t), exitcodes.TerminationLogEnv+"="+testpipe.FIFO(s.t))
	}
	require.NoError(s.t, l.cmd.Start())
	require.NoError(s.t, out.Close())
	go func() {
		defer close(l.ended)
		_ = l.cmd.Wait() // the status is read where it matters
	}()
	s.t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		<-l.ended
		if s.t.Failed() {
			s.t.Logf("%s:\n%s\nevents:\n%s", name, l.log(), l.events())
		}
	})
	return l
}

func (s *service) read(name string) string {
	text, _ := os.ReadFile(s.path(name)) // absent is empty
	return string(text)
}

func (l *lead) log() string    { return l.read(l.name + ".log") }
func (l *lead) events() string { return l.read(l.name + ".events") }

func (l *lead) eventually(is func() bool, what string) {
	l.t.Helper()
	require.Eventually(l.t, is, time.Minute, 5*time.Millisecond, "%s: %s", l.name, what)
}

// happens waits for an event of the command.
func (l *lead) happens(event string) {
	l.t.Helper()
	l.eventually(func() bool { return strings.Contains(l.events(), event+"\n") }, event)
}

// says waits for a text in the log.
func (l *lead) says(text string) {
	l.t.Helper()
	l.eventually(func() bool { return strings.Contains(l.log(), text) }, text)
}

// stopUntilItEnds asks again and again: what comes soon after the first one belongs to
// the same request.
func (l *lead) stopUntilItEnds() {
	for {
		_ = l.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-l.ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *lead) signal(sig syscall.Signal) {
	l.t.Helper()
	require.NoError(l.t, l.cmd.Process.Signal(sig))
}

// ends waits for the end, and requires its status.
func (l *lead) ends(code int) {
	l.t.Helper()
	select {
	case <-l.ended:
	case <-time.After(time.Minute):
		require.Fail(l.t, l.name+" does not end")
	}
	require.Equal(l.t, code, l.cmd.ProcessState.ExitCode(), l.log())
}

// free waits until no command holds the lock any more.
func (s *service) free() {
	s.t.Helper()
	s.unlocked("lock")
}

// locked is the beginning of a hook that holds a lock of its own, with all that it
// starts.
func (s *service) locked(name string) string {
	return fmt.Sprintf("exec 8>>%s; flock -n 8 || exit %d; ", s.path(name), overlap)
}

func (s *service) unlocked(name string) {
	s.t.Helper()
	f, err := os.OpenFile(s.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(s.t, err)
	defer f.Close()
	require.Eventually(s.t, func() bool {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
	}, time.Minute, 5*time.Millisecond, "something that has %s is alive", name)
}

// watched waits until the command is watched by the keeper, as it is before lead says
// that it serves.
func (s *service) watched() {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return strings.Contains(s.command(0, "status"), "leads and serves") }, time.Minute, 20*time.Millisecond)
}

// healthy waits until a probe says yes.
func (s *service) healthy(question, admin string) {
	s.t.Helper()
	path := map[string]string{"live": "/livez", "standby": "/readyz/standby", "leader": "/readyz/leader"}[question]
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	require.Eventually(s.t, func() bool {
		resp, err := client.Get("http://" + admin + path)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, time.Minute, 5*time.Millisecond, question)
	s.command(0, "health", question, "--admin", admin)
}

// command runs fencepost, and requires its status.
func (s *service) command(code int, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"fencepost"}, args...)...)
	cmd.Env = append(os.Environ(), storeurl.EnvVar+"="+s.store, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(s.t, err)
	}
	require.Equal(s.t, code, cmd.ProcessState.ExitCode(), string(out))
	return string(out)
}

func (s *service) promote(generation int) {
	s.t.Helper()
	s.command(0, "promote", "--force", "--timeout", "50s", "--generation", fmt.Sprint(generation))
}

// address is one on which nobody listens.
func address(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// Scripts.
const (
	obeys  = `trap 'echo asked >>$E; exit 0' TERM; echo up >>$E; while :; do sleep 0.02; done`
	defies = `trap 'echo asked >>$E' TERM; echo up >>$E; while :; do sleep 0.02; done`
)
