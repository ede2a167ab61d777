package gitindex

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
)

// The variables by which the other parts of a test are started.
const (
	workerVar = "GITINDEX_WORKER" // the folder of the index
	newestVar = "GITINDEX_NEWEST" // the file that stands for the catalog: it holds the newest token
	holdVar   = "GITINDEX_HOLD"   // a pipe from which the hook reads until its end, once it has admitted a push
)

func TestMain(m *testing.M) {
	if catalog := os.Getenv(newestVar); catalog != "" {
		os.Exit(hook(catalog))
	}
	if dir := os.Getenv(workerVar); dir != "" {
		os.Exit(worker(dir))
	}
	os.Exit(m.Run())
}

// worker plays a process that syncs a package, in the folder of an index of a test.
func worker(dir string) int {
	c, err := Open(Config{Index: filepath.Join(dir, "index.git"), Checkout: filepath.Join(dir, "c")})
	if err == nil {
		_, err = c.Sync(context.Background(), fence.Token{Generation: 1, Epoch: 1}, "left-pad", []byte("by the worker\n"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// hook plays the update hook.
func hook(catalog string) int {
	err := Guard(context.Background(), os.Args[1:], func(context.Context, string) (fence.Token, fence.Holder, error) {
		text, err := os.ReadFile(catalog)
		if err != nil {
			return fence.Token{}, fence.Holder{}, err
		}
		token, err := fence.Parse(string(text))
		return token, fence.Holder{Name: "green"}, err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if pipe := os.Getenv(holdVar); pipe != "" {
		_, _ = os.ReadFile(pipe)
	}
	return 0
}

// An index is one of a test, with the catalog beside it.
type index struct{ dir, path, catalog string }

func newIndex(t *testing.T) index {
	t.Helper()
	dir := t.TempDir()
	x := index{dir: dir, path: filepath.Join(dir, "index.git"), catalog: filepath.Join(dir, "catalog")}
	script := fmt.Sprintf("#!/bin/sh\n%s='%s' exec '%s' \"$@\"\n", newestVar, x.catalog, os.Args[0])
	require.NoError(t, Init(t.Context(), x.path, script))
	return x
}

// claim makes a token the newest.
func (x index) claim(t *testing.T, text string) fence.Token {
	t.Helper()
	token, err := fence.Parse(text)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(x.catalog, []byte(text), 0o600))
	return token
}

// checkout opens a process's copy.
func (x index) checkout(t *testing.T, name string) *Checkout {
	t.Helper()
	c, err := Open(Config{Index: x.path, Checkout: filepath.Join(x.dir, name)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// hold has the next pushes of c wait behind the hook. The function that it returns waits
// until one is there, and returns what lets it go on.
func (x index) hold(t *testing.T, c *Checkout) (reached func() (release func())) {
	t.Helper()
	pipe, env := x.pipe(t), c.git.env
	c.git.env = append(env[:len(env):len(env)], holdVar+"="+pipe)
	return func() func() {
		release := waitAt(t, pipe)
		return func() {
			release()
			c.git.env = env
		}
	}
}

// pipe makes a pipe at which a hook waits.
func (x index) pipe(t *testing.T) string {
	t.Helper()
	pipe := filepath.Join(x.dir, "hold")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	return pipe
}

// waitAt waits until a hook waits at a pipe, and returns what lets it go on.
func waitAt(t *testing.T, pipe string) (release func()) {
	t.Helper()
	f, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the reader
	require.NoError(t, err)
	return func() { require.NoError(t, f.Close()) }
}

// behind calls fn in the background.
func behind(fn func() error) (done chan error) {
	done = make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// has checks what the index has.
func (x index) has(t *testing.T, want map[string]string) {
	t.Helper()
	files, err := Read(t.Context(), x.path)
	require.NoError(t, err)
	require.Equal(t, want, files)
}

// put has a package synced.
func put(t *testing.T, c *Checkout, token fence.Token, name, content string) string {
	t.Helper()
	commit, err := c.Sync(t.Context(), token, name, []byte(content))
	require.NoError(t, err)
	return commit
}

// isRemote checks that a push was refused by the hook, in these words.
func isRemote(t *testing.T, err error, words string) {
	t.Helper()
	require.ErrorContains(t, err, "remote:")
	require.Contains(t, strings.ReplaceAll(err.Error(), "remote: ", ""), words)
}
