//go:build unix

package entrypoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/loopback"
)

// park stays up after a superseded child until told to stop, and answers on
// the child's admin address meanwhile.
func (s *supervisor) park(e ending) exitcodes.Code {
	admin := cmp.Or(e.record.Fields[exitcodes.AdminField], s.cfg.Admin)
	s.tell("%v: parked until told to stop, answering on %s%s", e, cmp.Or(admin, "no address"), s.counted())
	s.say("STATUS=parked: " + exitcodes.OneLine(e.record.Reason))
	s.sayReady() // a start is waited for, and there is nothing more to come
	ctx, cancel := context.WithCancel(context.Background())
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if admin == "" {
			return
		}
		if err := s.answer(ctx, admin, s.parkedHandler(e)); err != nil {
			s.tell("parked without answering: %v", err)
		}
	}()
	for s.stop == nil {
		select {
		case sig := <-s.signals:
			s.receive(sig)
		case <-s.deaths:
			s.reaper.Reap()
		case w := <-s.manager.words:
			s.hear(w)
		}
	}
	cancel()
	<-answered
	s.tell("signal %v while parked: done%s (exit 0)", s.stop, s.counted())
	return exitcodes.Success
}

// answer serves on address until ctx ends. The address may still be taken: it
// is tried again until the bind time-out.
func (s *supervisor) answer(ctx context.Context, address string, h http.Handler) error {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval = 20*time.Millisecond, time.Second
	listener, err := backoff.Retry(ctx, func() (net.Listener, error) {
		return net.Listen("tcp", address)
	}, backoff.WithBackOff(delays), backoff.WithMaxElapsedTime(s.cfg.BindTimeout))
	if ctx.Err() != nil && err != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listening on %s: %w", address, err)
	}
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: log.New(s.people, "", 0), // by itself it would wait for a reader of standard error
	}
	closed := context.AfterFunc(ctx, func() { _ = server.Close() }) // nothing is in flight that matters
	defer closed()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A parkedStatus is what /api/leader/status says while parked.
type parkedStatus struct {
	Phase    string           `json:"phase"` // always Superseded
	Parked   bool             `json:"parked"`
	Reason   string           `json:"reason"`
	Restarts int              `json:"restarts"` // of the child, before it was superseded
	Since    time.Time        `json:"since"`
	Record   exitcodes.Record `json:"record"` // of the child's ending
}

// parkedHandler answers as alive and never ready. It knows the ending of the
// child only, so that a probe costs nothing.
func (s *supervisor) parkedHandler(e ending) http.Handler {
	status := parkedStatus{
		Phase: "Superseded", Parked: true, Reason: exitcodes.OneLine(e.record.Reason),
		Restarts: s.restarts, Since: time.Now().UTC(), Record: *e.record,
	}
	notReady := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "parked: "+status.Reason, http.StatusServiceUnavailable)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "parked: %s\n", status.Reason)
	})
	mux.HandleFunc("/readyz", notReady)
	mux.HandleFunc("/readyz/", notReady)
	mux.HandleFunc("GET /api/leader/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status) // a client that left needs no answer
	})
	return loopback.Only(mux, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "parked: the admin API answers on loopback only", http.StatusForbidden)
	})
}
