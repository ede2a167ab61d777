// Package kvserver_test runs the program kvserver, as it is built, under the
// clients that people have: redis-cli, redis-benchmark and go-redis.
package kvserver_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/examples/kvserver/app"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

// patience bounds what must happen soon.
const patience = time.Minute

// binaryEnv hands the built program from TestMain to the tests.
const binaryEnv = "KVSERVER_TEST_BINARY"

// impatientEnv makes the test binary the program itself, with a budget of
// seconds where it is half a minute by default.
const impatientEnv = "KVSERVER_TEST_IMPATIENT"

// dataEnv makes the test binary a build of the program whose data have versions:
// the newest that it knows, and the oldest that a build must know behind it, as in
// "2,1".
const dataEnv = "KVSERVER_TEST_DATA"

func TestMain(m *testing.M) {
	if versions := os.Getenv(dataEnv); versions != "" {
		app.Main(app.Options{Migrations: migrationsTo(versions)})
	}
	if os.Getenv(impatientEnv) != "" {
		app.Main(app.Options{StoreTimeout: time.Second, RetryBudget: 2 * time.Second})
	}
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// migrationsTo are those of a build, as dataEnv names it.
func migrationsTo(versions string) (all []catalog.Migration) {
	var newest, readableBy uint64
	if _, err := fmt.Sscanf(versions, "%d,%d", &newest, &readableBy); err != nil {
		panic(err)
	}
	for v := uint64(1); v <= newest; v++ {
		all = append(all, catalog.Migration{Version: v, ReadableBy: min(v, readableBy), Up: func(*catalog.Tx) error { return nil }})
	}
	return all
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "kvserver")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "kvserver")
	build := exec.Command("go", "build", "-o", dir+"/", "./examples/kvserver", "./cmd/fencepost")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	if err := os.Setenv(binaryEnv, binary); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// onEveryStore runs a test on each store that the library has.
func onEveryStore(t *testing.T, test func(t *testing.T, store string)) {
	for _, store := range []struct {
		name string
		url  func(testing.TB) string
	}{
		{"sqlite", func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "kv.db") }},
		{"postgres", testpg.URL},
		{"etcd", testetcd.URL},
	} {
		t.Run(store.name, func(t *testing.T) {
			t.Parallel() // most of the time is spent waiting
			test(t, store.url(t))
		})
	}
}

// server is a running kvserver.
type server struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string
	log     *strings.Builder // complete once done is closed
	done    chan struct{}
}

// start starts the program and waits until clients can connect. The test's end
// stops it.
func start(t *testing.T, store string, args ...string) *server {
	t.Helper()
	return run(t, os.Getenv(binaryEnv), store, args)
}

// startImpatient starts the program with a small budget, and has it leave its
// ending record at a path.
func startImpatient(t *testing.T, store, record string, args ...string) *server {
	t.Helper()
	return run(t, os.Args[0], store, args, impatientEnv+"=1", exitcodes.TerminationLogEnv+"="+record)
}

func run(t *testing.T, binary, store string, args []string, env ...string) *server {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(append(os.Environ(), "FENCEPOST_STORE="+store), env...)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s := &server{t: t, cmd: cmd, log: new(strings.Builder), done: make(chan struct{})}
	address := make(chan string, 1)
	go s.read(stderr, address)
	t.Cleanup(s.kill)
	select {
	case s.address = <-address:
	case <-s.done:
		require.Fail(t, "kvserver ended", s.log.String())
	}
	return s
}

// read keeps the log, hands out the address in it, and awaits the end.
func (s *server) read(stderr io.Reader, address chan<- string) {
	defer close(s.done)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		fmt.Fprintln(s.log, lines.Text())
		if _, rest, ok := strings.Cut(lines.Text(), " address="); ok {
			address <- strings.Fields(rest)[0]
		}
	}
	_ = s.cmd.Wait() // ProcessState has it
}

// kill ends the program if it still runs, and shows its log after a failure.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
	if s.t.Failed() {
		s.t.Log(s.log.String())
	}
}

// leads waits until the program serves.
func (s *server) leads() *server {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return strings.Contains(s.cli("INFO", "fencepost"), "fencepost_phase:leading\r\n")
	}, patience, 10*time.Millisecond)
	return s
}

// exitCode waits for the end and returns the exit status.
func (s *server) exitCode() int {
	select {
	case <-s.done:
	case <-time.After(patience):
		require.Fail(s.t, "kvserver did not end")
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *server) stop() int {
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	return s.exitCode()
}

// tool runs one of Redis' programs against the server.
func (s *server) tool(name string, args ...string) (string, error) {
	host, port, err := net.SplitHostPort(s.address)
	require.NoError(s.t, err)
	path, err := exec.LookPath(name)
	require.NoError(s.t, err, "%s is missing: run make test, which installs redis-tools", name)
	out, err := exec.CommandContext(s.t.Context(), path, append([]string{"-h", host, "-p", port}, args...)...).CombinedOutput()
	return string(out), err
}

// cli returns what redis-cli prints for one command.
func (s *server) cli(args ...string) string {
	s.t.Helper()
	out, err := s.tool("redis-cli", append([]string{"--no-auth-warning"}, args...)...)
	require.NoError(s.t, err, out)
	return strings.TrimRight(out, "\n")
}
