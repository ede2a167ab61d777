package cli_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/cli"
)

// afterFirstLine is a standard output that calls its function once something
// was written.
type afterFirstLine func()

func (f afterFirstLine) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func mainWith(ctx context.Context, path string, stdout, stderr io.Writer, args ...string) exitcodes.Code {
	return cli.Main(ctx, cli.Env{
		Args: args, Stdout: stdout, Stderr: stderr, Getenv: func(name string) string { return on(path)[name] },
	})
}

// bytesOf returns what is in a catalog's file and in its log; a log that is
// not there is an empty one.
func bytesOf(t *testing.T, path string) [2]string {
	t.Helper()
	db, err := os.ReadFile(path)
	require.NoError(t, err)
	wal, err := os.ReadFile(path + "-wal")
	if err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	return [2]string{string(db), string(wal)}
}

func TestACommandThatShowsSomethingChangesNoByte(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	look := func() {
		before := bytesOf(t, path)
		for _, args := range []string{
			"status", "history", "status --json", "history --json", "dump", "dump --log", "preflight --generation 2", "preflight --generation 2 --json", "reap --dry-run",
			"work status", "work status --json", "work list", "work list --state dead --json", "work check",
		} {
			got := run(t, on(path), strings.Fields(args)...)
			require.Equal(t, exitcodes.Success, got.code, got.stderr)
			require.Equal(t, before, bytesOf(t, path), args)
		}
	}
	look()
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, "blue", "", func(c *catalog.Catalog) error {
		require.NoError(t, update(c, 10))
		require.NotEmpty(t, bytesOf(t, path)[1], "a holder that is there has a log")
		look()
		return nil
	}))
}

func TestACommandThatShowsSomethingCreatesNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, command := range []string{"work status", "work list", "work check", "status", "history", "dump", "dump --log", "preflight --generation 2"} {
		require.Equal(t, exitcodes.Success, run(t, on(filepath.Join(dir, "c.db")), strings.Fields(command)...).code)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestThousandCallsOfGenerationNextGiveThousandNumbers(t *testing.T) {
	stores := map[string]func() driver.Store{
		"memory": func() driver.Store { return memory.New() },
		"sqlite": func() driver.Store {
			s, err := sqlite.Open(filepath.Join(t.TempDir(), "c.db"), sqlite.Config{})
			require.NoError(t, err)
			return s
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open()
			t.Cleanup(func() { require.NoError(t, store.Close()) })
			board := catalog.NewBoard(store, catalog.Config{})
			requireDistinct(t, 1000, 1000, func() (string, error) {
				g, err := board.NextGeneration(t.Context())
				return g.String(), err
			})
		})
	}
}

func TestProcessesThatAskForTheNextGenerationAtOnceGetDifferentNumbers(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	requireDistinct(t, 100, 10, func() (string, error) {
		got := run(t, on(path), "generation", "next", "--timeout", "60s")
		if got.code != exitcodes.Success {
			return "", fmt.Errorf("exit %d: %s", got.code, got.stderr)
		}
		return got.stdout, nil
	})
	status := object(t, run(t, on(path), "status", "--json").stdout)
	require.Equal(t, 101.0, status["allocated_generation"], "one above each, from generation 1 that leads")
}

// requireDistinct calls fn n times, from so many goroutines at once, and
// requires n different answers.
func requireDistinct(t *testing.T, n, atOnce int, fn func() (string, error)) {
	t.Helper()
	var all sync.Map
	var callers sync.WaitGroup
	errs := make(chan error, n)
	for range atOnce {
		callers.Go(func() {
			for range n / atOnce {
				answer, err := fn()
				if _, twice := all.LoadOrStore(answer, true); twice && err == nil {
					err = fmt.Errorf("%q was given out twice", strings.TrimSpace(answer))
				}
				errs <- err
			}
		})
	}
	callers.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

func TestANumberAboveTheLargestIsNotHandedOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, hold(t.Context(), "sqlite:"+path, generation.Max, "last", "", func(*catalog.Catalog) error { return nil }))
	got := run(t, on(path), "generation", "next")
	require.Equal(t, exitcodes.Failure, got.code)
	require.Contains(t, got.stderr, "above the largest generation")
}

func TestTextOfTheStoreCantMoveATerminal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, "evil\x1b[2J\nname", "a\treason\r", func(*catalog.Catalog) error { return nil }))
	for _, command := range []string{"status", "history", "preflight --generation 2", "fence --reason drill"} {
		got := run(t, on(path), strings.Fields(command)...)
		require.Equal(t, exitcodes.Success, got.code)
		require.NotContains(t, got.stdout, "\x1b")
		require.NotContains(t, got.stdout, "\r")
		require.NotContains(t, got.stdout, "\t")
		require.Contains(t, got.stdout, `\x1b[2J\n`)
	}
}
