package testpg

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/teststop"
)

// A Server is a private PostgreSQL server, which a test may stop and break.
// User postgres needs no password there, every other user one (scram).
type Server struct {
	URL string // of database postgres, as user postgres

	t   testing.TB
	dir string
}

// An Option changes a server before its first start.
type Option func(*options)

type options struct{ conf []string }

// Setting adds a line to the server's configuration, such as
// "synchronous_standby_names = '*'".
func Setting(line string) Option {
	return func(o *options) { o.conf = append(o.conf, line) }
}

// NewServer starts a server of the test's own, to be stopped at its end.
func NewServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s := &Server{t: t, dir: folder(t)}
	s.configure(o.conf)
	s.Start()
	return s
}

// folder returns a folder that the user whom the server runs as can reach; a
// test's own temporary folder can have too long a name for a socket.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv(FolderVariable), "testpg-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755)) //nolint:gosec // the server runs as another user
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func (s *Server) configure(conf []string) {
	text := strings.Join(conf, "\n") + "\n"
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, "extra.conf"), []byte(text), 0o644)) //nolint:gosec // as above
}

// Start starts the server, again on the same port after Stop.
func (s *Server) Start() {
	s.t.Helper()
	s.t.Cleanup(s.Stop)
	s.URL = strings.TrimSpace(s.script("start"))
}

// Stop shuts the server down and waits until it has gone.
func (s *Server) Stop() {
	s.t.Helper()
	s.script("stop")
}

func (s *Server) script(verb string) string {
	s.t.Helper()
	out, err := exec.Command(scriptPath(), verb, s.dir).Output() //nolint:gosec // our own script
	if exit, ok := err.(*exec.ExitError); ok {
		require.NoError(s.t, err, string(exit.Stderr))
	}
	require.NoError(s.t, err)
	return string(out)
}

func scriptPath() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "scripts", "postgres.sh")
}

// Address returns the server's host and port.
func (s *Server) Address() string {
	u, err := url.Parse(s.URL)
	require.NoError(s.t, err)
	return u.Host
}

// Crash ends the server at once, as a crash does: nothing is written any more,
// and no standby is waited for.
func (s *Server) Crash() {
	s.t.Helper()
	s.script("crash")
}

// Pause stops a backend as SIGSTOP does, until the function that it returns is
// called, or the test ends.
func Pause(t testing.TB, pid int) (resume func()) {
	t.Helper()
	require.NotZero(t, pid)
	teststop.Stop(t, pid)
	resume = func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(resume)
	return resume
}
