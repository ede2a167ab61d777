package gitindex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

var (
	// ErrUnreachable means that the index can't be read now.
	ErrUnreachable = errors.New("the index can't be reached")

	// ErrBusy means that another process uses the folder of the checkout, or a git
	// that a killed process has left.
	ErrBusy = errors.New("the checkout is in use")

	// ErrUnguarded means that the index takes a push which its hook must refuse, so
	// that an old holder could change it. Nothing was changed.
	ErrUnguarded = errors.New("the index is not guarded")
)

// trailer is the name under which a commit bears its token.
const trailer = "Fencing-Token"

// A Config says where an index is. Both fields are required.
type Config struct {
	// Index is the folder of the repository.
	Index string

	// Checkout is the folder of this process's copy. It is made if it is missing.
	// Two processes can't share one.
	Checkout string
}

// A Checkout is one process's copy of an index. Its methods may be called
// concurrently and run one after the other.
type Checkout struct {
	cfg Config
	git git

	busy  chan struct{} // holds one while a call uses the folder
	ready bool          // the folder is in order, as far as is known

	guarded bool // the index has refused a push that it must refuse
}

// Open returns a Checkout. It reads and starts nothing. An error means that the
// configuration is wrong, or that git is missing.
func Open(cfg Config) (*Checkout, error) {
	if cfg.Index == "" || cfg.Checkout == "" {
		return nil, exitcodes.WithCode(errors.New("gitindex: both Index and Checkout are required"), exitcodes.Config)
	}
	var err error
	for _, path := range []*string{&cfg.Index, &cfg.Checkout} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	g, err := findGit()
	return &Checkout{cfg: cfg, git: g, busy: make(chan struct{}, 1)}, err
}

// Close lets another process use the folder.
func (c *Checkout) Close() error {
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	c.ready = false
	if c.git.hold == nil {
		return nil
	}
	hold := c.git.hold
	c.git.hold = nil
	return hold.Close()
}

// Prepare makes the folder ready and puts token into the index, so that the first
// Sync is as fast as any. It is not required.
func (c *Checkout) Prepare(ctx context.Context, token fence.Token) error {
	_, err := c.update(ctx, token, "prepare", func() (bool, error) { return false, nil })
	return err
}

// Sync makes the index's file of a package equal to content and returns the commit
// with which the index bears it under token. A package without content has no file.
// An error that holds a *[fence.Error] means that the index bears a higher token; any
// other one means that the outcome is not known, and that Sync can be called again.
func (c *Checkout) Sync(ctx context.Context, token fence.Token, name string, content []byte) (commit string, err error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	return c.update(ctx, token, "sync "+name, func() (bool, error) { return c.write(Path(name), content) })
}

// update lets edit change the newest state of the index, and pushes what comes of it.
// Edit reports whether it has changed something.
func (c *Checkout) update(ctx context.Context, token fence.Token, subject string, edit func() (bool, error)) (commit string, err error) {
	select {
	case c.busy <- struct{}{}:
		defer func() { <-c.busy }()
	case <-ctx.Done():
		return "", fmt.Errorf("another call uses the checkout: %w", context.Cause(ctx))
	}
	defer func() { c.ready = err == nil }()
	if !c.ready {
		if err := c.prepare(ctx); err != nil {
			return "", err
		}
	}
	if err := c.reset(ctx); err != nil {
		return "", err
	}
	commit, newest, err := c.tip(ctx, "HEAD")
	if err != nil {
		return "", err
	}
	if err := c.prove(ctx); err != nil {
		return "", err
	}
	if token.Compare(newest) < 0 {
		return "", &fence.Error{Held: token, Current: newest, Guard: guardName(c.cfg.Index)}
	}
	changed, err := edit()
	if err != nil {
		return "", err
	}
	if !changed && newest == token {
		return commit, nil
	}
	return c.push(ctx, token, subject)
}

// hookDeclined is in what git says, in words alone, if a hook has refused a push.
const hookDeclined = "(hook declined)"

// prove tries once whether the index has its hook: it pushes to a branch that the hook
// refuses. A hook is lost easily, as when a repository is cloned or copied without its
// permissions, and git says nothing then.
func (c *Checkout) prove(ctx context.Context) error {
	if c.guarded {
		return nil
	}
	const other = branch + "-unguarded"
	if _, err := c.git.run(ctx, c.cfg.Checkout, "push", "--quiet", "origin", "HEAD:"+other); err != nil {
		if strings.Contains(err.Error(), hookDeclined) {
			c.guarded = true
			return nil
		}
		return err
	}
	_, err := c.git.run(ctx, c.cfg.Index, "update-ref", "-d", other)
	return errors.Join(fmt.Errorf("%w: %s has no update hook that git runs: make an index by indexer init, or copy its hooks", ErrUnguarded, c.cfg.Index), err)
}

// push commits what was changed, under token, and pushes it.
func (c *Checkout) push(ctx context.Context, token fence.Token, subject string) (commit string, err error) {
	if _, err := c.git.run(ctx, c.cfg.Checkout, "add", "--all"); err != nil {
		return "", err
	}
	message := fmt.Sprintf("%s\n\n%s: %s\n", subject, trailer, token)
	if _, err := c.git.run(ctx, c.cfg.Checkout, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", message); err != nil {
		return "", err
	}
	if commit, err = c.git.run(ctx, c.cfg.Checkout, "rev-parse", "HEAD"); err != nil {
		return "", err
	}
	_, err = c.git.run(ctx, c.cfg.Checkout, "push", "--quiet", "origin", "HEAD:"+branch)
	return commit, err
}

// reset brings the folder to the newest state of the index, whatever is in it.
func (c *Checkout) reset(ctx context.Context) error {
	if _, err := c.git.run(ctx, c.cfg.Checkout, "fetch", "--quiet", "--prune", "--no-tags", "origin", "+refs/heads/*:refs/remotes/origin/*"); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if _, err := c.git.run(ctx, c.cfg.Checkout, "reset", "--quiet", "--hard", "refs/remotes/origin/main"); err != nil {
		return err
	}
	_, err := c.git.run(ctx, c.cfg.Checkout, "clean", "--quiet", "-d", "-x", "--force", "--force")
	return err
}

// tip returns a commit's name and token. One without a token has the zero token.
func (c *Checkout) tip(ctx context.Context, of string) (commit string, token fence.Token, err error) {
	text, err := c.git.run(ctx, c.cfg.Checkout, "log", "-1", "--format=%H "+trailerFormat, of)
	if err != nil {
		return "", token, err
	}
	commit, bears, _ := strings.Cut(text, " ")
	if bears == "" {
		return commit, token, nil
	}
	if token, err = fence.Parse(bears); err != nil {
		return "", token, fmt.Errorf("the newest commit of the index, %s: %w", commit, err)
	}
	return commit, token, nil
}

// trailerFormat has git log print the token of a commit.
const trailerFormat = "%(trailers:key=" + trailer + ",valueonly,separator=%x2C)"

// write writes the file of a package into the folder, or removes it, and reports
// whether that has changed it. It follows no link out of the folder.
func (c *Checkout) write(path string, content []byte) (changed bool, err error) {
	root, err := os.OpenRoot(c.cfg.Checkout)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	old, err := root.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(content) == 0:
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	case err == nil && len(content) == 0:
		return true, root.Remove(path)
	case err == nil && bytes.Equal(old, content):
		return false, nil
	}
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	return true, root.WriteFile(path, content, 0o644)
}

// prepare makes the folder a clone of the index. It uses what is there if it can.
func (c *Checkout) prepare(ctx context.Context) error {
	if _, err := c.git.run(ctx, "", "ls-remote", "--quiet", "--exit-code", c.cfg.Index, branch); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := c.lock(); err != nil {
		return err
	}
	if err := c.reuse(ctx); err == nil {
		return nil
	} else if ctx.Err() != nil {
		return err
	}
	if err := os.RemoveAll(c.cfg.Checkout); err != nil {
		return err
	}
	_, err := c.git.run(ctx, "", "clone", "--quiet", "--no-hardlinks", "--branch", "main",
		"--config", "gc.autoDetach=false", "--config", "core.autocrlf=false", c.cfg.Index, c.cfg.Checkout)
	return err
}

// reuse makes the folder usable if it is a clone of the index.
func (c *Checkout) reuse(ctx context.Context) error {
	config := filepath.Join(c.cfg.Checkout, ".git")
	if err := removeLocks(config); err != nil {
		return err
	}
	url, err := c.git.run(ctx, c.cfg.Checkout, "config", "--local", "remote.origin.url")
	if err != nil {
		return err
	}
	if url != c.cfg.Index {
		return fmt.Errorf("a clone of %s", url)
	}
	return c.reset(ctx)
}

// removeLocks removes the lock files that a killed git has left. Nobody else uses the
// folder: lock has made sure of that.
func removeLocks(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "objects":
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".lock"):
			return os.Remove(path)
		default:
			return nil
		}
	})
}

// lock makes sure that nobody else uses the folder. Every git that this process starts
// keeps the lock too, so one that outlives a killed process keeps others out until it
// has ended.
func (c *Checkout) lock() error {
	if c.git.hold != nil {
		return nil
	}
	path := c.cfg.Checkout + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return fmt.Errorf("%w: %s by another process, or by a git that a killed one has left: give each process a folder of its own: %w", ErrBusy, c.cfg.Checkout, err)
	}
	c.git.hold = f
	return nil
}
