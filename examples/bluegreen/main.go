// Bluegreen shows a database server being replaced by its next generation under
// load, twice, and checks against the store that nothing was lost. It needs no
// set-up: `go run ./examples/bluegreen`. See package demo, and -h.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fencepost/fencepost/examples/bluegreen/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := demo.Main(ctx, demo.Env{Args: os.Args[1:], Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(code)
}
