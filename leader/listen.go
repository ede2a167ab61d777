package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

// A listening is an address on which this process answers, or none.
type listening struct {
	mu   sync.Mutex
	addr string
}

// address returns where it listens, or nothing.
func (a *listening) address() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addr
}

// serve listens at address, unless that is empty, and serves. The function that
// it returns closes the listener, ends what is being answered, and joins.
func (a *listening) serve(ctx context.Context, l *Leader, name, address string, h http.Handler) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, exitcodes.WithCode(fmt.Errorf("leader: the %s API can't listen: %w: give it another address", name, err), exitcodes.Config)
	}
	a.mu.Lock()
	a.addr = ln.Addr().String()
	a.mu.Unlock()
	exitcodes.Annotate(ctx, name, a.addr)
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	srv := &http.Server{
		Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(l.log.Handler(), slog.LevelWarn), // by itself it writes to standard error
	}
	srv.RegisterOnShutdown(cancel) // the listener is closed by then
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			l.log.Error("an API broke off", "api", name, "err", err)
		}
	})
	return func() {
		defer cancel()
		bounded, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer done()
		if srv.Shutdown(bounded) != nil {
			_ = srv.Close() // its requests had their time
		}
		wg.Wait()
	}, nil
}

// listen opens the admin API and what is for processes of other hosts.
func (l *Leader) listen(ctx context.Context) (stop func(), err error) {
	stopAdmin, err := l.admin.serve(ctx, l, "admin", l.cfg.Admin, l.Handler())
	if err != nil {
		return nil, err
	}
	stopPeer, err := l.peer.serve(ctx, l, "peer", l.cfg.Peer, l.peerHandler())
	if err != nil {
		stopAdmin()
		return nil, err
	}
	return func() { stopPeer(); stopAdmin() }, nil
}
