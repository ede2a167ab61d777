package process

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Play plays a demo within a limit, and returns its exit status: 0 if everything held.
// What its processes log goes to stderr if verbose is set.
func Play(ctx context.Context, name string, limit time.Duration, stderr io.Writer, verbose bool, play func(ctx context.Context, logs io.Writer) (held bool, err error)) int {
	logs := io.Discard
	if verbose {
		logs = Lines(stderr)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	held, err := play(ctx, logs)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
	}
	if err != nil || !held {
		return 1
	}
	return 0
}
