// Generations shows how what each generation of a service has made for itself, a folder
// and a PostgreSQL schema, is removed once it is superseded: by the holder and by many
// tools at once, and beside a stopped process that goes on behind its successor. See
// package demo, and -h.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fencepost/fencepost/examples/generations/demo"
)

func main() {
	if os.Getenv(demo.RoleVar) != "" {
		demo.Process()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := demo.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
