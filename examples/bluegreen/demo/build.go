package demo

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/fencepost/fencepost"

// binaries are the programs that the demo runs.
type binaries struct{ server, fencepost string }

// findBinaries takes the programs that the command line names, and builds the
// others from the source of this module.
func (d *demo) findBinaries(ctx context.Context) (binaries, error) {
	b := binaries{server: d.opts.server, fencepost: d.opts.fencepost}
	var build []string
	if b.server == "" {
		build = append(build, "./examples/kvserver")
	}
	if b.fencepost == "" {
		build = append(build, "./cmd/fencepost")
	}
	if len(build) == 0 {
		return b, nil
	}
	source, err := goTool(ctx, "", "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return b, fmt.Errorf("the source of %s is not here: run this within its module, or name -server and -fencepost: %w", module, err)
	}
	d.progress.say("building %s (the first time takes a while)", strings.Join(build, " and "))
	args := append([]string{"build", "-o", d.dir + string(filepath.Separator)}, build...)
	if _, err := goTool(ctx, strings.TrimSpace(source), args...); err != nil {
		return b, err
	}
	b.server = cmp.Or(b.server, filepath.Join(d.dir, "kvserver"))
	b.fencepost = cmp.Or(b.fencepost, filepath.Join(d.dir, "fencepost"))
	return b, nil
}

// goTool runs the Go tool in a folder and returns what it prints.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
