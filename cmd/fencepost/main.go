// Fencepost shows and moves the fencing token of a single-writer service. See
// fencepost --help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fencepost/fencepost/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := cli.Main(ctx, cli.Env{
		Args:   os.Args[1:],
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Getenv: os.Getenv,
	})
	stop()
	os.Exit(int(code))
}
