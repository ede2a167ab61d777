package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/httpfence"
)

const middlewareGoal = 20 // µs that the middleware adds to a request, at the median

// requests measures what httpfence adds to a request, over the loopback, beside the
// same handler without it: with a gate in memory, and over a file.
func requests(b *bench) (err error) {
	h, err := b.hold(fresh("gate"))
	if err != nil {
		return err
	}
	defer h.close()
	dir, err := os.MkdirTemp("", "fencepost-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := fence.GateConfig{Newest: catalog.NewestToken(h.store, catalog.Config{})}
	inMemory, err := fence.NewGate(cfg)
	if err != nil {
		return err
	}
	overFile, err := fence.OpenGate(filepath.Join(dir, "registers"), cfg)
	if err != nil {
		return errors.Join(err, inMemory.Close())
	}
	defer func() { err = errors.Join(err, inMemory.Close(), overFile.Close()) }()
	plain, err := serve(func(next http.Handler) http.Handler { return next }, h.Token)
	if err != nil {
		return err
	}
	defer plain.close()
	for _, way := range []struct {
		name string
		gate *fence.Gate
	}{{"request by httpfence, gate in memory", inMemory}, {"request by httpfence, gate over a file", overFile}} {
		guarded, err := serve(func(next http.Handler) http.Handler {
			return httpfence.Middleware(way.gate, httpfence.Config{Logger: slog.New(slog.DiscardHandler)}, next)
		}, h.Token)
		if err != nil {
			return err
		}
		err = b.request(way.name, plain, guarded)
		guarded.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) request(name string, plain, guarded *httpServer) error {
	c, err := versus(b.rounds, b.clients(plain.get), b.clients(guarded.get))
	if err != nil {
		return err
	}
	without, with := plain.between(), guarded.between()
	p50, p99 := with.p50-without.p50, with.p99-without.p99
	b.report(figure{
		Name: name + ", 32 clients", P50: p50, P99: p99, Ops: c.ours.ops, FloorUS: c.floor.p50, Ratio: 1 / c.ops,
		Note: fmt.Sprintf("times are what the middleware adds; a whole request takes %.0f µs", c.ours.p50),
	}.atMost(p50, middlewareGoal, " µs added"))
	return nil
}

// An httpServer has a handler that answers at once, behind a middleware of which it
// measures the time.
type httpServer struct {
	srv    *http.Server
	client *http.Client
	url    string
	served chan struct{}

	mu   sync.Mutex
	took []time.Duration // between handler and middleware, in and out
}

type enteredKey struct{}

// An entered notes when the handler began and ended.
type entered struct{ began, ended time.Time }

func serve(middleware func(http.Handler) http.Handler, token func() fence.Token) (*httpServer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	base := &http.Transport{MaxIdleConnsPerHost: guardClients}
	s := &httpServer{
		client: &http.Client{Transport: &httpfence.Transport{Base: base, Token: token}},
		url:    "http://" + ln.Addr().String(), served: make(chan struct{}),
	}
	inner := middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := r.Context().Value(enteredKey{}).(*entered)
		in.began = time.Now()
		_, _ = io.WriteString(w, "done")
		in.ended = time.Now()
	}))
	s.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := new(entered)
		r = r.WithContext(context.WithValue(r.Context(), enteredKey{}, in))
		came := time.Now()
		inner.ServeHTTP(w, r)
		left := time.Now()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.took = append(s.took, in.began.Sub(came)+left.Sub(in.ended))
	})}
	go func() {
		defer close(s.served)
		_ = s.srv.Serve(ln) // it ends by close
	}()
	return s, nil
}

func (s *httpServer) get(ctx context.Context, _ int) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(resp.Status))
	}
	return errors.Join(err, resp.Body.Close())
}

// between returns what was measured since the last call.
func (s *httpServer) between() timing {
	s.mu.Lock()
	defer s.mu.Unlock()
	took := slices.Clone(s.took)
	s.took = s.took[:0]
	return newTiming(took, time.Second)
}

func (s *httpServer) close() {
	s.client.CloseIdleConnections()
	_ = s.srv.Close()
	<-s.served
}
