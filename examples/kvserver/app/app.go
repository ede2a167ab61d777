// Package app is the program kvserver: a server of package kv, and a leader
// that says when it may serve.
//
// The client port is opened first and answers from then on; data commands are
// refused with READONLY until the process leads. When the token is lost or handed
// over, or a stop was asked for, commands under way are finished and only then is
// the catalog closed. What comes during a handover is held back, and goes on here
// or is forwarded to who leads then: for a drain period where that is the next
// generation, whereafter the process ends as package exitcodes says.
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
	"github.com/fencepost/fencepost/internal/spool"
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

	// Migrations are the catalog's, for variants whose data have versions.
	Migrations []catalog.Migration

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
	log := logTo(os.Stderr)
	exitcodes.Main(func(ctx context.Context) error {
		if err != nil {
			return err
		}
		return run(ctx, f, opts, log)
	}, exitcodes.Options{Name: Name, Flush: func(within time.Duration) { spool.Flush(log, within) }})
}

// logTo logs to w, and holds up nobody if that is not read.
func logTo(w io.Writer) *slog.Logger { return spool.Logger(slog.New(slog.NewTextHandler(w, nil))) }

// run serves until ctx ends or the token is lost, and joins all that it started.
func run(ctx context.Context, f flags, opts Options, log *slog.Logger) error {
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
	if opts.Wrap != nil {
		store = opts.Wrap(store)
	}
	p := &program{flags: f, log: log, address: advertised(f, ln.Addr().String())}
	p.server = kv.New(kv.Config{
		Info:         func() []kv.Field { return info(p.lead.Status()) },
		Standing:     func() string { return standing(p.lead.Status()) },
		ConfirmReads: f.confirmReads,
		Logger:       log,
	})
	if p.lead, err = leader.New(store, p.leaderConfig(opts)); err != nil {
		return err
	}
	log.Info("clients can connect", "address", ln.Addr().String(), "store", store.String())
	return p.serve(ctx, ln)
}

// A program is one run.
type program struct {
	flags   flags
	log     *slog.Logger
	address string // of the clients' port, as others reach it
	server  *kv.Server
	lead    *leader.Leader
}

// advertised is where others reach the clients' port. An address that names no
// host means something else everywhere: then it is this host's name.
func advertised(f flags, listens string) string {
	if f.advertise != "" {
		return f.advertise
	}
	host, port, err := net.SplitHostPort(listens)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return listens
	}
	if host, err = os.Hostname(); err != nil {
		return listens
	}
	return net.JoinHostPort(host, port)
}

func (p *program) leaderConfig(opts Options) leader.Config {
	f := p.flags
	return leader.Config{
		Catalog: catalog.Config{
			Generation:   f.generation,
			Holder:       fence.Holder{Name: f.name, Address: p.address, Build: build()},
			CompactAfter: f.compactAfter,
			AcceptLoss:   f.acceptLoss,
			StoreTimeout: cmp.Or(f.storeTimeout, opts.StoreTimeout),
			RetryBudget:  opts.RetryBudget,
			Migrations:   opts.Migrations,
			Logger:       p.log,
		},
		Admin:       f.admin,
		Peer:        f.peer,
		AutoPromote: f.autoPromote,
		Lease:       f.lease,
		Priority:    f.priority,
		Changed:     p.changed,
		Logger:      p.log,
	}
}

// serve runs the server and the leader until one of them ends. A process that
// was superseded goes on for its clients: what they send is forwarded, until the
// last one has left or the drain period is over.
func (p *program) serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var served error
	wg.Go(func() {
		if served = p.server.Serve(ctx, ln); served != nil {
			cancel(served)
		}
	})
	var watched *catalog.Catalog
	err := p.lead.Run(ctx, func(ctx context.Context, term *leader.Term) error {
		p.server.Lead(term.Catalog)
		term.Serving()
		if term.Catalog != watched { // and not once more behind a pause
			watched = term.Catalog
			wg.Go(func() { // the clients need not wait until this process has cleaned up
				<-term.Done()
				p.forward(term.Err())
			})
		}
		<-ctx.Done()
		p.server.Hold()
		return context.Cause(ctx)
	})
	p.end(ctx, err)
	cancel(nil)
	wg.Wait()
	return errors.Join(err, served)
}

// changed tells the server who leads, where commands that came here wait for
// that: this process stepped down.
func (p *program) changed(s leader.Status) {
	waits := s.Phase == leader.CatchingUp || s.Phase == leader.ReadyToPromote
	if waits && s.Leader != nil && s.Leader.Holder.Address != "" && s.Leader.Holder.Address != p.address {
		p.server.Redirect(s.Leader.Holder.Address)
	}
}

// forward sends what comes here to the process that err says took over, and
// reports whether it did: a newer generation, and there is a drain period.
func (p *program) forward(err error) bool {
	var fenced *fence.Error
	if !errors.As(err, &fenced) || !fenced.Superseded() || fenced.By.Address == "" || fenced.By.Address == p.address || p.flags.drain == 0 {
		return false
	}
	p.server.Forward(fenced.By.Address)
	return true
}

// end answers what is still there to be answered, once this process is out of
// the race.
func (p *program) end(ctx context.Context, err error) {
	if ctx.Err() == nil && p.forward(err) {
		p.log.Info("superseded; commands are forwarded", "for", p.flags.drain, "clients", p.server.Connected())
		p.drain(ctx)
		return
	}
	why, address := "(the process is ending)", ""
	var fenced *fence.Error
	if errors.As(err, &fenced) {
		why, address = why+": "+fenced.Error(), fenced.By.Address
	}
	p.server.Follow(why, address)
}

// drain waits until no client has been there for a while, in which one might come
// back, or the drain period or ctx is over.
func (p *program) drain(ctx context.Context) {
	const look, quiet = 10 * time.Millisecond, time.Second
	bounded, cancel := context.WithTimeout(ctx, p.flags.drain)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for last := time.Now(); time.Since(last) < quiet; {
		if p.server.Connected() > 0 {
			last = time.Now()
		}
		select {
		case <-tick.C:
		case <-bounded.Done():
			return
		}
	}
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
