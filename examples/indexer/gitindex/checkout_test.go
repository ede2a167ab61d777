package gitindex

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestASyncOfWhatIsThereAlreadyPushesOnceForEachToken(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	c := x.checkout(t, "c")
	require.NoError(t, c.Prepare(t.Context(), token))
	first := put(t, c, token, "left-pad", "1\n")
	require.Equal(t, first, put(t, c, token, "left-pad", "1\n"))
	require.NoError(t, c.Prepare(t.Context(), token))
	require.Equal(t, first, put(t, c, token, "none", ""))
	token = x.claim(t, "g1.e2")
	second := put(t, c, token, "left-pad", "1\n")
	require.NotEqual(t, first, second)
	require.Equal(t, second, put(t, c, token, "left-pad", "1\n"))
	put(t, c, token, "left-pad", "")
	x.has(t, map[string]string{})
}

func TestWhatAPredecessorLeftHalfDoneIsHarmless(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	c := x.checkout(t, "c")
	put(t, c, token, "left-pad", "1\n")
	file := func(parts ...string) string {
		return filepath.Join(append([]string{c.cfg.Checkout}, parts...)...)
	}
	leave := func(content string, parts ...string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(file(parts...)), 0o755))
		require.NoError(t, os.WriteFile(file(parts...), []byte(content), 0o600))
	}
	want := map[string]string{"left-pad": "1\n"}
	for i, damage := range []func(){
		func() { leave("half", "le", "left-pad"); leave("half", "ot", "other"); leave("x", ".gitignore") },
		func() { // a commit that was not pushed
			leave("half", "le", "left-pad")
			_, err := c.git.run(t.Context(), c.cfg.Checkout, "commit", "--quiet", "--all", "--message", "half")
			require.NoError(t, err)
		},
		func() {
			leave("", ".git", "index.lock")
			leave("", ".git", "refs", "heads", "main.lock")
			c.ready = false
		},
		func() { leave("", ".git", "HEAD"); c.ready = false },
		func() { leave("nonsense", ".git", "index"); c.ready = false },
		func() { require.NoError(t, os.RemoveAll(file(".git"))); c.ready = false },
		func() {
			require.NoError(t, os.RemoveAll(file()))
			require.NoError(t, os.WriteFile(file(), nil, 0o600))
			c.ready = false
		},
		func() {
			_, err := c.git.run(t.Context(), c.cfg.Checkout, "config", "remote.origin.url", "elsewhere")
			require.NoError(t, err)
			c.ready = false
		},
	} {
		name := strings.Repeat("n", i+1)
		want[name] = "2\n"
		damage()
		put(t, c, token, name, "2\n")
	}
	x.has(t, want)
}

func TestAnIndexThatIsAwayIsAnErrorAndIsNeverMadeAnew(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	prepared, fresh := x.checkout(t, "prepared"), x.checkout(t, "fresh")
	put(t, prepared, token, "left-pad", "1\n")
	away := x.path + ".away"
	require.NoError(t, os.Rename(x.path, away))
	for _, c := range []*Checkout{prepared, fresh, prepared} {
		_, err := c.Sync(t.Context(), token, "left-pad", []byte("2\n"))
		require.ErrorIs(t, err, ErrUnreachable)
	}
	require.NoFileExists(t, x.path)
	require.DirExists(t, prepared.cfg.Checkout)
	require.NoError(t, os.Mkdir(x.path, 0o755)) // such as a mount point without its volume
	_, err := prepared.Sync(t.Context(), token, "left-pad", []byte("2\n"))
	require.ErrorIs(t, err, ErrUnreachable)
	require.NoError(t, os.Remove(x.path))
	require.NoError(t, os.Rename(away, x.path))
	put(t, fresh, token, "left-pad", "2\n")
	put(t, prepared, token, "left-pad", "3\n")
	x.has(t, map[string]string{"left-pad": "3\n"})
}

func TestAnIndexThatTakesNoPushIsAnErrorAndIsSyncedLater(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	c := x.checkout(t, "c")
	put(t, c, token, "left-pad", "1\n")
	lock := filepath.Join(x.path, filepath.FromSlash(branch)+".lock")
	require.NoError(t, os.WriteFile(lock, nil, 0o600)) // as a full or read-only disk does to root too
	_, err := c.Sync(t.Context(), token, "left-pad", []byte("2\n"))
	require.ErrorContains(t, err, "main.lock")
	x.has(t, map[string]string{"left-pad": "1\n"})
	require.NoError(t, os.Remove(lock))
	put(t, c, token, "left-pad", "2\n")
	x.has(t, map[string]string{"left-pad": "2\n"})
}

func TestAGitThatOutlivesItsKilledProcessKeepsOthersOutOfTheCheckout(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	pipe := x.pipe(t)
	killed := exec.CommandContext(t.Context(), os.Args[0])
	killed.Env = append(os.Environ(), workerVar+"="+x.dir, holdVar+"="+pipe)
	require.NoError(t, killed.Start())
	release := waitAt(t, pipe)
	require.NoError(t, killed.Process.Kill())
	require.Error(t, killed.Wait())

	next := x.checkout(t, "c")
	_, err := next.Sync(t.Context(), token, "left-pad", []byte("2\n"))
	require.ErrorIs(t, err, ErrBusy)
	release()
	require.Eventually(t, func() bool {
		_, err := next.Sync(t.Context(), token, "other", []byte("2\n"))
		return err == nil
	}, time.Minute, time.Millisecond)
	x.has(t, map[string]string{"left-pad": "by the worker\n", "other": "2\n"})
	_, err = x.checkout(t, "c").Sync(t.Context(), token, "other", nil)
	require.ErrorIs(t, err, ErrBusy, "a process that lives keeps others out too")
}

func TestALinkInTheIndexLeadsNowhere(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	c := x.checkout(t, "c")
	put(t, c, token, "other", "1\n")
	require.NoError(t, os.Symlink(x.dir, filepath.Join(c.cfg.Checkout, "le")))
	_, err := c.push(t.Context(), token, "a link")
	require.NoError(t, err)
	_, err = c.Sync(t.Context(), token, "left-pad", []byte("1\n"))
	require.Error(t, err)
	require.NoFileExists(t, filepath.Join(x.dir, "left-pad"))
}

func TestACanceledSyncEndsItsGitAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	c := x.checkout(t, "c")
	put(t, c, token, "left-pad", "1\n")
	reached := x.hold(t, c)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := behind(func() error { _, err := c.Sync(ctx, token, "left-pad", []byte("2\n")); return err })
	release := reached()
	hurried, hurry := context.WithCancelCause(t.Context())
	hurry(os.ErrClosed)
	require.ErrorIs(t, c.Prepare(hurried, token), os.ErrClosed, "it waits for the other call no longer than its context")
	cancel(os.ErrDeadlineExceeded)
	require.ErrorIs(t, <-done, os.ErrDeadlineExceeded)
	release()
	put(t, c, token, "left-pad", "3\n")
	x.has(t, map[string]string{"left-pad": "3\n"})
}

func TestANameThatIsNoNameOfAPackageIsNoFileEither(t *testing.T) {
	t.Parallel()
	c, err := Open(Config{Index: "i", Checkout: t.TempDir()})
	require.NoError(t, err)
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".git", "A", "é", "a\n", "a b", "1", "-a", "a.", "a\x00", strings.Repeat("a", MaxName+1)} {
		_, err := c.Sync(t.Context(), fence.Token{}, name, nil)
		require.ErrorIs(t, err, ErrName, "%q", name)
	}
	for _, name := range []string{"a", "a-", "left-pad", "x2", strings.Repeat("a", MaxName)} {
		require.NoError(t, CheckName(name))
	}
	require.Equal(t, filepath.Join("a", "a"), Path("a"))
	_, err = Open(Config{})
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
}
