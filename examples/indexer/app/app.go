// Package app is the program indexer: a web server of a package registry, the jobs
// that keep its index equal to it, and a leader that says when both may run.
//
// The web server answers once a change and its jobs are committed; it never waits for
// the index. Only the process that leads answers; the others name it.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/examples/indexer/gitindex"
	"github.com/fencepost/fencepost/examples/indexer/registry"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/spool"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/work"
)

// Name is the program's name.
const Name = "indexer"

// Main is the whole program. It never returns.
func Main() {
	command, f, err := parse(os.Args[1:], os.Getenv, os.Stdout)
	if errors.Is(err, errAnswered) {
		os.Exit(int(exitcodes.Success))
	}
	if command == guardCommand && err == nil {
		os.Exit(guard(f, os.Stderr))
	}
	log := spool.Logger(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	exitcodes.Main(func(ctx context.Context) error {
		switch {
		case err != nil:
			return err
		case command == initCommand:
			return initIndex(ctx, f)
		default:
			return serve(ctx, f, log)
		}
	}, exitcodes.Options{Name: Name, Flush: func(within time.Duration) { spool.Flush(log, within) }})
}

// initIndex makes the index, guarded by a hook that calls this program.
func initIndex(ctx context.Context, f flags) error {
	hook, err := hookScript(f)
	if err != nil {
		return err
	}
	return gitindex.Init(ctx, f.index, hook)
}

// hookScript returns the index's update hook. A store that is named by the environment
// alone stays there, since its URL may hold a password.
func hookScript(f flags) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	command := []string{quoted(self), guardCommand}
	if f.store != "" {
		store, err := absolute(f.store)
		if err != nil {
			return "", err
		}
		command = append(command, "-store", quoted(store))
	}
	return fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", strings.Join(command, " ")), nil
}

// absolute makes the path of a SQLite file absolute, since git calls the hook in the
// folder of the index.
func absolute(store string) (string, error) {
	path, isFile := strings.CutPrefix(store, "sqlite:")
	if !isFile || filepath.IsAbs(path) {
		return store, nil
	}
	path, err := filepath.Abs(path)
	return "sqlite:" + path, err
}

// quoted quotes a word for sh.
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// guardTimeout bounds how long a push waits for the catalog.
const guardTimeout = 10 * time.Second

// guard is the update hook. It returns the status that tells git whether to go on.
func guard(f flags, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	store, err := storeurl.Open(ctx, f.store, storeurl.Config{})
	if err == nil {
		err = gitindex.Guard(ctx, f.args, catalog.NewestToken(store, catalog.Config{}))
		err = errors.Join(err, store.Close())
	}
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, exitcodes.OneLine(err.Error())) // nobody is left to be told
	return 1
}

// serve runs the web server and the leader until one of them ends.
func serve(ctx context.Context, f flags, log *slog.Logger) (err error) {
	checkout, err := gitindex.Open(gitindex.Config{Index: f.index, Checkout: f.checkout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, checkout.Close()) }()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return exitcodes.WithCode(fmt.Errorf("no client can connect: %w: give another address with -listen", err), exitcodes.Config)
	}
	defer ln.Close()
	store, err := storeurl.Open(ctx, f.store, storeurl.Config{Logger: log, Lease: f.lease})
	if err != nil {
		return err
	}
	defer store.Close()
	s := &server{checkout: checkout, log: log}
	s.lead, err = leader.New(store, leader.Config{
		Catalog: catalog.Config{
			Generation: f.generation,
			Holder:     fence.Holder{Name: cmp.Or(f.name, ln.Addr().String()), Address: ln.Addr().String()},
		},
		Admin: f.admin, AutoPromote: f.autoPromote, Lease: f.lease, Logger: log,
	})
	if err != nil {
		return err
	}
	log.Info("clients can connect", "address", ln.Addr().String(), "store", store.String())
	return s.serve(ctx, ln)
}

// A server is one process of the service.
type server struct {
	checkout *gitindex.Checkout
	log      *slog.Logger
	lead     *leader.Leader

	mu   sync.RWMutex // held for reading by each request that uses what follows
	term *term        // nil: this process does not lead
}

// A term is what requests need while this process leads.
type term struct {
	ctx   context.Context // ends when the work has to
	c     *catalog.Catalog
	queue *work.Queue
}

// serve answers until ctx ends or the token is lost.
func (s *server) serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	web := &http.Server{Handler: s.routes(), ReadTimeout: requestTimeout, WriteTimeout: 2 * requestTimeout, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	var served error
	var wg sync.WaitGroup
	wg.Go(func() {
		if served = web.Serve(ln); errors.Is(served, http.ErrServerClosed) {
			served = nil
		}
		cancel(served)
	})
	err := s.lead.Run(ctx, s.work)
	_ = web.Close() // requests that are under way have been answered: see work
	wg.Wait()
	return errors.Join(err, served)
}

// prepareTimeout bounds how long the preparation keeps the checkout to itself.
const prepareTimeout = time.Minute

// work runs the jobs and lets requests in, until ctx ends. The checkout is prepared
// in the background: jobs that don't need it run meanwhile.
func (s *server) work(ctx context.Context, lead *leader.Term) error {
	queue, err := work.New(lead.Catalog, work.Config{Kinds: registry.Kinds(lead.Catalog, s.checkout), Logger: s.log})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
		defer cancel()
		if err := s.checkout.Prepare(ctx, lead.Token()); err != nil && ctx.Err() == nil {
			s.log.Warn("the checkout could not be prepared; the first sync does it", "err", err)
		}
	})
	s.begin(&term{ctx: ctx, c: lead.Catalog, queue: queue})
	defer s.begin(nil)
	lead.Serving()
	return queue.Run(ctx)
}

// begin lets requests in, or waits until the last one has been answered.
func (s *server) begin(t *term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = t
}
