package gitindex

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// settings are those of an index, whatever its users' own settings say.
const settings = `[core]
	hooksPath = hooks
[receive]
	denyNonFastForwards = true
	denyDeletes = true
[gc]
	autoDetach = false
[transfer]
	fsckObjects = true
`

// appendTo appends text to a file.
func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Init makes an index in a new folder, with hook as its update hook: a shell script
// that ends in a call of [Guard].
func Init(ctx context.Context, index, hook string) error {
	g, err := findGit()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(index); err == nil {
		return exitcodes.WithCode(fmt.Errorf("%s is there already: remove it if it is no index, or name another folder", index), exitcodes.Usage)
	}
	// The folder has its name only once it is complete.
	dir, err := os.MkdirTemp(filepath.Dir(index), ".index-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // does nothing once it has been renamed
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if _, err := g.run(ctx, "", "init", "--quiet", "--bare", "--initial-branch", "main", "--template", "", dir); err != nil {
		return err
	}
	if err := appendTo(filepath.Join(dir, "config"), settings); err != nil {
		return err
	}
	tree, err := g.run(ctx, dir, "hash-object", "-t", "tree", "-w", os.DevNull)
	if err != nil {
		return err
	}
	first, err := g.run(ctx, dir, "commit-tree", "-m", "an empty index", tree)
	if err != nil {
		return err
	}
	if _, err := g.run(ctx, dir, "update-ref", branch, first); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "hooks"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "hooks", "update"), []byte(hook), 0o755); err != nil {
		return err
	}
	return os.Rename(dir, index)
}

// Newest reads the newest token of a catalog: see catalog.NewestToken.
type Newest func(ctx context.Context, resource string) (fence.Token, fence.Holder, error)

// Guard decides about one push, as the update hook of the repository in the current
// folder: args are those that git gives to the hook. It returns nil if the push may
// land, and else why not: a *[fence.Error], *[fence.TokenError] or
// *[fence.UndecidedError].
func Guard(ctx context.Context, args []string, newest Newest) error {
	if len(args) != 3 {
		return fmt.Errorf("the hook was called with %d arguments, want a ref, its old and its new commit: git calls it as its update hook", len(args))
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	name, ref, commit := guardName(dir), args[0], args[2]
	if ref != branch {
		return fmt.Errorf("refused by %s: %.64q is pushed, want %s: an index has one branch", name, ref, branch)
	}
	if strings.Trim(commit, "0") == "" {
		return fmt.Errorf("refused by %s: the branch can't be deleted", name)
	}
	g, err := findGit()
	if err != nil {
		return err
	}
	g.env = os.Environ() // git tells its hooks where the pushed objects are
	text, err := g.run(ctx, "", "log", "-1", "--format="+trailerFormat, commit)
	if err != nil {
		return err
	}
	gate, err := fence.NewGate(fence.GateConfig{Name: "git index", Newest: newest})
	if err != nil {
		return err
	}
	var tokens []string
	if text != "" {
		tokens = []string{text}
	}
	admitted, err := gate.AdmitText(ctx, filepath.Base(dir), tokens)
	if err != nil {
		return errors.Join(err, gate.Close())
	}
	admitted.Release()
	return gate.Close()
}

// guardName is how refusals name the guard of an index.
func guardName(index string) string { return "git index " + filepath.Base(index) }
