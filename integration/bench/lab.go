package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/examples/kvserver/app"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
	"github.com/fencepost/fencepost/integration/replicas"
)

// A workshop builds kvserver and fencepost when they are first needed, once for all
// sections and stores.
type workshop struct {
	folder string
	built  replicas.Programs
}

func (w *workshop) programs(ctx context.Context) (replicas.Programs, error) {
	if w.folder != "" {
		return w.built, nil
	}
	var err error
	if w.folder, err = os.MkdirTemp("", "fencepost-bench-programs"); err != nil {
		return w.built, err
	}
	w.built, err = replicas.Build(ctx, "..", w.folder)
	return w.built, err
}

func (w *workshop) close() { _ = os.RemoveAll(w.folder) } // a temporary folder, or none

// withSet runs fn with a service of its own, whose processes end with it.
func (b *bench) withSet(fn func(*replicas.Set) error) error {
	programs, err := b.workshop.programs(b.ctx)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp(b.workshop.folder, "logs")
	if err != nil {
		return err
	}
	f := &replicas.Set{Programs: programs, Store: b.backend.url(fresh("outage")), Folder: folder}
	defer f.End()
	if err := fn(f); err != nil {
		return fmt.Errorf("%w\n%s", err, f.Logs())
	}
	return nil
}

// slowVar makes this program a kvserver with a migration that takes so long. What
// it reads is named by slowReadsVar: a key of the server, or nothing.
const (
	slowVar      = "FENCEPOST_BENCH_MIGRATION"
	slowReadsVar = "FENCEPOST_BENCH_MIGRATION_READS"
)

// slowServer is a kvserver with a migration that takes long.
func slowServer(spec string) {
	took, err := time.ParseDuration(spec)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(64)
	}
	app.Main(app.Options{Migrations: []catalog.Migration{{Version: 1, Name: "slow", Up: func(tx *catalog.Tx) error {
		if k := os.Getenv(slowReadsVar); k != "" {
			if _, _, err := catalog.Bytes(kv.Collection).Get(tx, k); err != nil {
				return err
			}
		}
		time.Sleep(took)
		return nil
	}}}})
}
