package cli_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

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
	for _, command := range []string{"work status", "work list", "work check", "status", "status --json", "history", "reap --dry-run", "dump", "dump --log", "preflight --generation 2"} {
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

// The names and reasons are as evil as they can be: ESC, the CSI of C1, DEL, a
// carriage return, a right-to-left override, a tab and a line end.
func TestTextOfTheStoreCantMoveATerminal(t *testing.T) {
	t.Parallel()
	const evil = "evil\x1b[2J\u009b2J\x7f\r\u202e\n\tname"
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, evil, evil, func(c *catalog.Catalog) error {
		return c.Update(t.Context(), func(tx *catalog.Tx) error { return catalog.Bytes(evil).Set(tx, evil, []byte(evil)) })
	}))
	for _, command := range []string{
		"promote --generation 2 --force --no-wait --by EVIL --reason EVIL", "abort --generation 3 --by EVIL --reason EVIL",
		"status", "history", "dump", "dump --log", "preflight --generation 2", "preflight --generation 1", "preflight --generation 3",
		"promote --generation 1 --no-wait", "promote --generation 3 --no-wait", "promote --generation 2 --timeout 1ms",
		"fence --reason EVIL", "restored --above g1.e9 --reason EVIL", "restored --above g1.e2 --reason EVIL", "restored --dismiss=EVIL",
		"abort --generation 1", "explain EVIL", "EVIL", "status --store sqlite:EVIL", "generation reserve EVIL", "work status", "work list", "history",
	} {
		args := strings.Fields(command)
		for i, arg := range args {
			args[i] = strings.ReplaceAll(arg, "EVIL", evil)
		}
		for _, args := range [][]string{args, append(slices.Clone(args), "--json")} {
			got := run(t, on(path), args...)
			for _, r := range got.stdout + got.stderr {
				require.True(t, r == '\n' || unicode.IsPrint(r), "%q: %q", args, got)
			}
			require.True(t, utf8.ValidString(got.stdout+got.stderr), "%q", args)
			if command == "history" {
				require.Equal(t, 0, strings.Count(got.stdout, "\u202e"))
				require.Contains(t, got.stdout, `\u202e`)
			}
		}
	}
}
