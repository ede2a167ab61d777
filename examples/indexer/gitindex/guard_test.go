package gitindex

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestADelayedWorkerThatAppliesAnOldPlanBehindANewerOneIsRefusedByItsToken(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	old := x.claim(t, "g1.e1")
	blue, green := x.checkout(t, "blue"), x.checkout(t, "green")
	put(t, blue, old, "left-pad", "1.0.0\n")
	next := x.claim(t, "g2.e2")

	// Before green has reached the index, the hook knows of it.
	_, err := blue.Sync(t.Context(), old, "left-pad", []byte("an old plan\n"))
	isRemote(t, err, "refused by git index index.git: held g1.e1, the newest is g2.e2 of green")

	put(t, green, next, "left-pad", "1.0.0\n2.0.0\n")
	_, err = blue.Sync(t.Context(), old, "left-pad", []byte("an old plan\n"))
	var stale *fence.Error
	require.ErrorAs(t, err, &stale)
	require.Equal(t, fence.Error{Held: old, Current: next, Guard: "git index index.git"}, *stale)
	require.NotErrorIs(t, err, fence.ErrSuperseded, "a guard's word is a hint")
	_, err = blue.Sync(t.Context(), old, "left-pad", nil)
	require.ErrorAs(t, err, &stale, "a clean-up by the old worker")
	x.has(t, map[string]string{"left-pad": "1.0.0\n2.0.0\n"})
}

// Blue's push of a yank was admitted by the hook and is delayed there. Meanwhile green
// claims, and the package is unyanked: the index has what green wants, so that a sync
// which pushes only changes would push nothing.
func TestAPushThatWasAdmittedAndIsDelayedDoesNotLandBehindTheNextHoldersSync(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	old := x.claim(t, "g1.e1")
	blue, green := x.checkout(t, "blue"), x.checkout(t, "green")
	put(t, blue, old, "left-pad", "good\n")

	reached := x.hold(t, blue)
	done := behind(func() error { _, err := blue.Sync(t.Context(), old, "left-pad", []byte("yanked\n")); return err })
	release := reached()
	next := x.claim(t, "g2.e2")
	put(t, green, next, "left-pad", "good\n")
	release()
	require.Error(t, <-done)
	x.has(t, map[string]string{"left-pad": "good\n"})
}

func TestTheHookRefusesWhatIsNotTheNewestHoldersPushToTheBranch(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g2.e5")
	c := x.checkout(t, "c")
	first := put(t, c, token, "left-pad", "1\n")
	run := func(args ...string) error {
		_, err := c.git.run(t.Context(), c.cfg.Checkout, args...)
		return err
	}
	push := func(message, to string) error {
		require.NoError(t, run("commit", "--quiet", "--allow-empty", "--message", message))
		return run("push", "--quiet", "--force", "origin", "HEAD:"+to)
	}
	isRemote(t, push("by hand", branch), "no token was given")
	isRemote(t, push("x\n\nFencing-Token: g2.e4", branch), "held g2.e4, the newest is g2.e5 of green")
	isRemote(t, push("x\n\nFencing-Token: g2.e6", branch), "the token was never issued")
	isRemote(t, push("x\n\nFencing-Token: g9223372036854775807.e9223372036854775807", branch), "the token was never issued")
	isRemote(t, push("x\n\nFencing-Token: 7", branch), "refused by git index index.git")
	isRemote(t, push("x\n\nFencing-Token: g2.e5\nFencing-Token: g2.e5", branch), "refused by git index index.git")
	isRemote(t, push("x\n\nFencing-Token: g2.e5", "refs/heads/other"), "an index has one branch")
	isRemote(t, push("x\n\nFencing-Token: g2.e5", "refs/tags/other"), "an index has one branch")
	isRemote(t, run("push", "--quiet", "origin", ":"+branch), "deletion prohibited")
	require.NoError(t, os.Remove(x.catalog))
	isRemote(t, push("x\n\nFencing-Token: g2.e5", branch), "could not be verified")
	x.claim(t, "g2.e5")
	require.NoError(t, run("reset", "--quiet", "--hard", first+"^"))
	isRemote(t, push("x\n\nFencing-Token: g2.e5", branch), "denying non-fast-forward")
	require.Equal(t, first, put(t, c, token, "left-pad", "1\n"))
	require.ErrorContains(t, Guard(t.Context(), nil, nil), "0 arguments")
}

func TestAnIndexWithoutItsHookIsNotUsed(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	token := x.claim(t, "g1.e1")
	c := x.checkout(t, "c")
	hook := filepath.Join(x.path, "hooks", "update")
	require.NoError(t, os.Chmod(hook, 0o644)) // git passes over it
	for range 2 {
		_, err := c.Sync(t.Context(), token, "left-pad", []byte("1\n"))
		require.ErrorIs(t, err, ErrUnguarded)
	}
	x.has(t, map[string]string{})
	refs, err := c.git.run(t.Context(), x.path, "for-each-ref", "--format=%(refname)")
	require.NoError(t, err)
	require.Equal(t, branch, refs)
	require.NoError(t, os.Chmod(hook, 0o755))
	put(t, c, token, "left-pad", "1\n")
}

func TestAnIndexIsNotMadeOverWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := Init(t.Context(), dir, "")
	require.ErrorContains(t, err, "is there already")
	require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(err))
	require.Error(t, Init(t.Context(), filepath.Join(dir, "none", "index.git"), ""))
}

func TestAMissingGitIsToldAsConfiguration(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Open(Config{Index: "i", Checkout: "c"})
	require.ErrorIs(t, err, ErrNoGit)
	require.ErrorContains(t, err, "apt install git")
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.ErrorIs(t, Init(t.Context(), filepath.Join(t.TempDir(), "i"), ""), ErrNoGit)
}
