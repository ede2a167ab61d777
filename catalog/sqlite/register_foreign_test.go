package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/teststop"
)

// foreign is a program in another language, over another library of SQLite. It does
// what its input says, and answers each line.
const foreign = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
mine = sys.argv[2]
if mine != "none":
    db.create_function("fencepost_given_token", 0, lambda: mine)
for line in sys.stdin:
    try:
        word = line.rstrip("\n")
        if word.startswith("give "):
            mine = word[5:]
        elif word == "guarded":
            db.execute("BEGIN IMMEDIATE")
            newest = db.execute("SELECT token FROM fencepost_token").fetchone()[0]
            if newest != mine:
                db.execute("ROLLBACK")
                print("stale", newest, flush=True)
                continue
        else:
            db.execute(word)
        print("done", flush=True)
    except Exception as e:
        print("failed", e, flush=True)
`

// A program runs foreign.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func startForeign(t *testing.T, path string, held fmt.Stringer) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.CommandContext(t.Context(), "python3", "-c", foreign, path, held.String())}
	in, err := p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.cmd.Stderr = os.Stderr
	require.NoError(t, p.cmd.Start(), "this test runs Python")
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	p.in, p.out = in, bufio.NewReader(out)
	return p
}

// does sends a line, and requires an answer.
func (p *program) does(line, answer string) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(p.t, err)
	requireLine(p.t, p.out, answer)
}

func TestAZombieInAnotherLanguageWritesNothingBehindARaise(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"WAL", "DELETE"} {
		path := appFile(t, journal)
		r := openRegister(t, path)
		require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}))
		zombie := startForeign(t, path, token(1, 1))
		zombie.does("guarded", "done")
		zombie.does("INSERT INTO orders VALUES (1)", "done")
		zombie.does("COMMIT", "done")
		require.NoError(t, zombie.cmd.Process.Signal(syscall.SIGSTOP))
		require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}), "a process that is stopped outside of a transaction keeps nobody waiting")
		require.NoError(t, zombie.cmd.Process.Signal(syscall.SIGCONT))
		zombie.does("guarded", "stale g2.e2")
		require.Equal(t, 1, rowsIn(t, appDB(t, path, "immediate"), "orders"))
	}
}

func TestAProcessThatIsStoppedWhileItWritesIsNamedByTheProofAndByTheRaise(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"WAL", "DELETE"} {
		path := appFile(t, journal)
		r := openRegister(t, path)
		require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}))
		zombie := startForeign(t, path, token(1, 1))
		zombie.does("guarded", "done")
		require.NoError(t, r.Prove(t.Context(), token(2, 2)), "one that goes on only has to be waited for")
		teststop.Stop(t, zombie.cmd.Process.Pid)
		named := fmt.Sprintf("process %d (python3", zombie.cmd.Process.Pid)
		for _, call := range []func(context.Context) error{
			func(ctx context.Context) error { return r.Prove(ctx, token(2, 2)) },
			func(ctx context.Context) error { return r.Raise(ctx, token(2, 2), fence.Holder{}) },
		} {
			err := failsBy(t, named, call)
			require.ErrorContains(t, err, "which is stopped: continue or kill it")
			require.ErrorIs(t, err, driver.ErrBlocked)
			require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
		}
		require.NoError(t, zombie.cmd.Process.Kill())
		require.Error(t, zombie.cmd.Wait())
		require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
	}
}

func TestAProcessThatReadsAFileWithoutAWALIsNamedByTheRaiseThatItKeepsWaiting(t *testing.T) {
	t.Parallel()
	path := appFile(t, "DELETE")
	r := openRegister(t, path)
	reader := startForeign(t, path, token(1, 1))
	reader.does("BEGIN", "done")
	reader.does("SELECT count(*) FROM orders", "done")
	require.NoError(t, r.Prove(t.Context(), token(1, 1)))
	failsBy(t, fmt.Sprintf("such as process %d (python3", reader.cmd.Process.Pid), func(ctx context.Context) error {
		return r.Raise(ctx, token(1, 1), fence.Holder{})
	})
	written, ended := make(chan struct{}), make(chan error, 1)
	ctx := step.With(t.Context(), func(p step.Point) {
		if p == step.RegisterWritten {
			close(written)
		}
	})
	go func() { ended <- r.Raise(ctx, token(1, 1), fence.Holder{}) }()
	<-written
	require.Never(t, func() bool { return len(ended) > 0 }, 20*time.Millisecond, time.Millisecond, "it waits")
	reader.does("COMMIT", "done")
	require.NoError(t, <-ended)
}
