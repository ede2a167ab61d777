// Guarded shows why a token in the catalog is not enough, and what a guard does
// about it: a shop whose stock is in a PostgreSQL table is replaced by its next
// generation while the old process is stopped in the middle of a sale, and then
// goes on. See package demo, and -h.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fencepost/fencepost/examples/guarded/demo"
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
