// Twostores shows a service whose catalog is in etcd, and whose data are in PostgreSQL
// and in a SQLite file: its old process is stopped before it writes to both, and goes on
// behind its successor. See package demo, and -h.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fencepost/fencepost/examples/twostores/demo"
)

func main() {
	if os.Getenv(demo.ShopVar) != "" {
		demo.Shop()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := demo.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
