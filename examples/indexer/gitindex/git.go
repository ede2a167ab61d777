package gitindex

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

// ErrNoGit means that the command git is not there.
var ErrNoGit = errors.New("git is not installed, or not in PATH")

// branch is the one branch of an index.
const branch = "refs/heads/main"

// endTime is how long git may take to clean up once its context has ended. It removes
// its lock files then.
const endTime = 5 * time.Second

// A git runs the command git, without the settings of its user or system.
type git struct {
	path string
	env  []string
	hold *os.File // held open by git and all that it starts; may be nil
}

// findGit finds the command. Its error asks for the code for configuration.
func findGit() (git, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		return git{}, exitcodes.WithCode(fmt.Errorf("%w: the index is a git repository: install git (on Debian: apt install git): %w", ErrNoGit, err), exitcodes.Config)
	}
	g := git{path: path, env: []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=indexer", "GIT_AUTHOR_EMAIL=indexer@localhost",
		"GIT_COMMITTER_NAME=indexer", "GIT_COMMITTER_EMAIL=indexer@localhost",
	}}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") && !strings.HasPrefix(v, "LC_ALL=") {
			g.env = append(g.env, v)
		}
	}
	return g, nil
}

// run runs git in a folder and returns what it prints. If ctx ends, git and its
// children are asked to stop, so that they leave no lock files.
func (g git) run(ctx context.Context, dir string, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, g.path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, g.env, &stdout, &stderr
	if g.hold != nil {
		cmd.ExtraFiles = []*os.File{g.hold}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = endTime
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, oneLine(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// maxOutput bounds how much of git's messages an error shows, in bytes.
const maxOutput = 1 << 10

// oneLine joins the lines of git's messages, and shortens them.
func oneLine(text string) string {
	return exitcodes.OneLine(strings.ToValidUTF8(text[:min(len(text), maxOutput)], ""))
}
