package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/step"
)

// The variables by which a child learns which part it plays, and on which file.
const (
	partVar  = "FENCEPOST_SQLITE_PART"
	pathVar  = "FENCEPOST_SQLITE_PATH"
	pointVar = "FENCEPOST_SQLITE_POINT"
	umaskVar = "FENCEPOST_SQLITE_UMASK"
)

// parts are what a child does with a Store. Each is done once what it is named
// after is done.
var parts = map[string]func(context.Context, driver.Store) error{
	"writes": func(ctx context.Context, s driver.Store) error {
		c, err := catalog.Open(ctx, s, catalog.Config{Generation: 1})
		if err != nil {
			return err
		}
		if err := put(ctx, c, fmt.Sprint("by ", os.Getpid()), []byte("v")); err != nil {
			return err
		}
		return c.Close()
	},
	"claims": func(ctx context.Context, s driver.Store) error {
		c, err := catalog.Open(ctx, s, catalog.Config{Generation: 1})
		if err == nil {
			err = c.Close()
		}
		if errors.Is(err, fence.ErrFenced) {
			return nil // another child was faster
		}
		return err
	},
	"notes": func(ctx context.Context, s driver.Store) error {
		_, err := s.Post(ctx, driver.Note{Key: fmt.Sprint("note of ", os.Getpid()), Value: []byte("{}")})
		return err
	},
	"follows": func(ctx context.Context, s driver.Store) error {
		f, err := catalog.Follow(ctx, s, catalog.Config{})
		if err != nil {
			return err
		}
		return f.Close()
	},
	"looks": func(ctx context.Context, s driver.Store) error {
		_, err := s.Head(ctx)
		return err
	},
}

// play is the child's side: it says that it is done, and closes the Store once
// its input ends.
func play(part string) (status int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if point := os.Getenv(pointVar); point != "" {
		ctx = step.With(ctx, func(p step.Point) {
			if string(p) == point {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing returns from that
				select {}
			}
		})
	}
	if mask := os.Getenv(umaskVar); mask != "" {
		var bits int
		if _, err := fmt.Sscanf(mask, "%o", &bits); err != nil {
			return fail(err)
		}
		syscall.Umask(bits)
	}
	s, err := sqlite.Open(os.Getenv(pathVar), sqlite.Config{})
	if err != nil {
		return fail(err)
	}
	if err := parts[part](ctx, s); err != nil {
		return fail(err)
	}
	fmt.Println("done")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fail(err)
	}
	if err := s.Close(); err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "child:", err)
	return 1
}

// A player is a child under way.
type player struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// plays starts a child. Change may change the command first.
func plays(t *testing.T, part, path string, change ...func(*exec.Cmd)) *player {
	t.Helper()
	p := &player{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0])}
	p.cmd.Env = append(os.Environ(), partVar+"="+part, pathVar+"="+path)
	p.cmd.Stderr = os.Stderr
	for _, change := range change {
		change(p.cmd)
	}
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewReader(stdout)
	require.NoError(t, p.cmd.Start())
	return p
}

// done waits until the child has done its part.
func (p *player) done() *player {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	require.NoError(p.t, err)
	require.Equal(p.t, "done\n", line)
	return p
}

// ends lets the child close its Store and end.
func (p *player) ends() {
	p.t.Helper()
	require.NoError(p.t, p.stdin.Close())
	require.NoError(p.t, p.cmd.Wait())
}

// dies kills the child.
func (p *player) dies() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Kill())
	require.Error(p.t, p.cmd.Wait())
}

// diesAt sets the point at which a child kills itself.
func diesAt(point step.Point) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, pointVar+"="+string(point)) }
}

// alone copies the database file, and nothing beside it, to a folder of its own.
func alone(t *testing.T, path string) string {
	t.Helper()
	// Another process reads the file: to close it here would release this one's
	// locks.
	copied := filepath.Join(t.TempDir(), "copy.db")
	out, err := exec.CommandContext(t.Context(), "cp", path, copied).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return copied
}
