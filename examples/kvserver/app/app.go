// Package app is the program kvserver: a server of package kv, and a leader
// that says when it may serve.
//
// The client port is opened first and answers from then on; data commands are
// refused with READONLY until the process leads. When the token is lost, or a
// stop was asked for, commands under way are finished and only then is the
// catalog closed; the process ends as package exitcodes says.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/leader"
)

// Name is the program's name.
const Name = "kvserver"

// Options are what a variant of the program may change. The zero value is the
// program itself.
type Options struct {
	// Wrap stands between the catalog and the store, for tests that break the
	// store on purpose.
	Wrap func(driver.Store) driver.Store

	// StoreTimeout and RetryBudget are the catalog's, for tests that don't wait
	// for as long as it does by default.
	StoreTimeout, RetryBudget time.Duration
}

// Main is the whole program. It never returns.
func Main(opts Options) {
	f, err := parseFlags(os.Args[1:], os.Getenv, os.Stdout)
	if errors.Is(err, errAnswered) {
		os.Exit(int(exitcodes.Success))
	}
	exitcodes.Main(func(ctx context.Context) error {
		if err != nil {
			return err
		}
		return run(ctx, f, opts, os.Stderr)
	}, exitcodes.Options{Name: Name})
}

// run serves until ctx ends or the token is lost, and joins all that it started.
func run(ctx context.Context, f flags, opts Options, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return exitcodes.WithCode(fmt.Errorf("no client can connect: %w: give another address with -listen", err), exitcodes.Config)
	}
	defer ln.Close()
	store, err := storeurl.Open(ctx, f.store, storeurl.Config{Logger: log})
	if err != nil {
		return err
	}
	defer store.Close()
	if opts.Wrap != nil {
		store = opts.Wrap(store)
	}
	config := leaderConfig(f, log)
	config.Catalog.StoreTimeout, config.Catalog.RetryBudget = opts.StoreTimeout, opts.RetryBudget
	lead, err := leader.New(store, config)
	if err != nil {
		return err
	}
	log.Info("clients can connect", "address", ln.Addr().String(), "store", store.String())
	return serve(ctx, ln, lead, kv.New(kv.Config{
		Info:         func() []kv.Field { return info(lead.Status()) },
		Standing:     func() string { return standing(lead.Status()) },
		ConfirmReads: f.confirmReads,
		Logger:       log,
	}))
}

func leaderConfig(f flags, log *slog.Logger) leader.Config {
	return leader.Config{
		Catalog: catalog.Config{
			Generation:   f.generation,
			Holder:       fence.Holder{Name: f.name, Build: build()},
			CompactAfter: f.compactAfter,
			Logger:       log,
		},
		Admin:       f.admin,
		AutoPromote: f.autoPromote,
		Logger:      log,
	}
}

// serve runs the server and the leader until one of them ends.
func serve(ctx context.Context, ln net.Listener, lead *leader.Leader, server *kv.Server) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var served error
	wg.Go(func() {
		if served = server.Serve(ctx, ln); served != nil {
			cancel(served)
		}
	})
	err := lead.Run(ctx, func(ctx context.Context, c *catalog.Catalog) error {
		server.Lead(c)
		<-ctx.Done()
		why := context.Cause(ctx)
		server.Follow(fmt.Sprintf("(the process is ending): %v", why), "")
		return why
	})
	cancel(nil)
	wg.Wait()
	return errors.Join(err, served)
}

// build names what was built, as far as the toolchain noted it.
func build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision, modified string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+modified"
		}
	}
	return cmp.Or(revision, info.Main.Version) + modified
}
