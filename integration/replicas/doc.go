// Package replicas runs real processes of kvserver and of the command fencepost, for
// tests and for the bench, and measures how long their clients wait.
package replicas

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// patience bounds what must happen soon.
const patience = 90 * time.Second

// Programs are kvserver and fencepost, as they are built.
type Programs struct{ Server, Command string }

// Build builds both programs into folder. Root is the folder of the library's
// module.
func Build(ctx context.Context, root, folder string) (Programs, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", folder+string(filepath.Separator), "./examples/kvserver", "./cmd/fencepost")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("go build: %w: %s", err, out)
	}
	return Programs{Server: filepath.Join(folder, "kvserver"), Command: filepath.Join(folder, "fencepost")}, nil
}

// A Set is the processes of one service, which share a store.
type Set struct {
	Programs
	Store  string // the URL
	Folder string // of the logs

	all   []*Server
	host  string          // at which its servers listen
	given map[string]bool // addresses
}

// Fencepost runs the command with args and the set's store, and returns what it
// printed and its exit status.
func (f *Set) Fencepost(ctx context.Context, args ...string) (out string, code int, err error) {
	cmd := exec.CommandContext(ctx, f.Command, args...)
	cmd.Env = f.environment()
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return string(text), 0, err
	}
	return strings.TrimSpace(string(text)), cmd.ProcessState.ExitCode(), nil
}

// Must runs the command with args, and returns an error unless it ends with 0.
func (f *Set) Must(ctx context.Context, args ...string) error {
	out, code, err := f.Fencepost(ctx, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("fencepost %s ended with %d: %s", strings.Join(args, " "), code, out)
	}
	return err
}

// End kills all processes that still run, and joins them.
func (f *Set) End() {
	for _, s := range f.all {
		s.Kill()
	}
}

// Logs returns the logs of all processes, one after the other.
func (f *Set) Logs() string {
	var text strings.Builder
	for _, s := range f.all {
		fmt.Fprintf(&text, "--- %s\n%s", s, s.Log())
	}
	return text.String()
}
