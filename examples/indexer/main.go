// Indexer is a small package registry whose index, a git repository on disk, is kept
// equal to the registry by durable jobs: under quick changes, promotions, kills and
// outages of the index. See README.md, `indexer -h`, and `indexer demo -h`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fencepost/fencepost/examples/indexer/app"
	"github.com/fencepost/fencepost/examples/indexer/demo"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "demo" {
		app.Main()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := demo.Main(ctx, os.Args[2:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
