package supervisors

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/exitcodes"
)

// examples are the files that this package is about.
const examples = "../../examples/supervisors"

// binariesEnv hands the folder of the built programs from TestMain to the tests.
const binariesEnv = "SUPERVISORS_TEST_BINARIES"

// The test binary also plays what is supervised: child ROLE LOG LAST writes a
// line to LOG, and ends as a row of the table says; from its LAST start on it
// stays up.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "child" {
		play(os.Args[2], os.Args[3], os.Args[4])
	}
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "supervisors-test-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./examples/kvserver", "./cmd/fencepost")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w: %s", err, out)
	}
	for name, value := range map[string]string{
		binariesEnv: dir,
		"GORACE":    "atexit_sleep_ms=0", // else the race detector makes every child a second slower
	} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

func binary(name string) string { return filepath.Join(os.Getenv(binariesEnv), name) }

// play never returns.
func play(role, log, last string) {
	exitcodes.Main(func(ctx context.Context) error {
		starts, err := startOf(log)
		if err != nil {
			return err
		}
		// A role that is early ends before it was ready.
		name, early := strings.CutPrefix(role, "early-")
		if !early {
			if err := exitcodes.Notify("READY=1"); err != nil {
				return err
			}
		}
		if limit, err := strconv.Atoi(last); err != nil || starts >= limit {
			<-ctx.Done()
			return ctx.Err()
		}
		return end(name)
	}, exitcodes.Options{Name: role})
}

// startOf notes the time of a start in a log, and returns the how manieth it is.
func startOf(log string) (int, error) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var now unix.Timespec // of a clock that nobody sets, and that all processes have
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintln(f, now.Nano()); err != nil {
		return 0, err
	}
	return starts(log), nil
}

// gaps are the times from each start in a log to the next.
func gaps(t *testing.T, log string) []time.Duration {
	t.Helper()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	var all []time.Duration
	var last int64
	for i, line := range strings.Fields(string(text)) {
		at, err := strconv.ParseInt(line, 10, 64)
		require.NoError(t, err)
		if i > 0 {
			all = append(all, time.Duration(at-last))
		}
		last = at
	}
	return all
}

func starts(log string) int {
	text, _ := os.ReadFile(log) // absent is none
	return bytes.Count(text, []byte("\n"))
}

func kill() error { return syscall.Kill(os.Getpid(), syscall.SIGKILL) }

// shortDir is a folder whose sockets have addresses that are short enough.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fp-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	require.Eventually(t, done, time.Minute, 20*time.Millisecond, what)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, name))
	require.NoError(t, err)
	return string(text)
}
