package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// admin serves the API by which a process is watched and promoted. It is for
// this host only:
//
//	GET  /api/leader/status   the Status, as JSON
//	POST /api/leader/promote  {"generation": N}: write the durable intent
//	GET  /livez               200 while the process is not Failed
//	GET  /readyz/standby      200 while it has read everything, or leads
//	GET  /readyz/leader       200 while it leads
//
// The three kinds of health are apart because a rolling update deadlocks where
// a new process is only called ready once it leads.
type admin struct {
	leader *Leader
	mu     sync.Mutex
	addr   string
}

func newAdmin(l *Leader) *admin { return &admin{leader: l} }

// address returns where the API listens, or nothing.
func (a *admin) address() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addr
}

// start listens and serves. The function that it returns stops both, and joins.
func (a *admin) start(ctx context.Context) (stop func(), err error) {
	if a.leader.cfg.Admin == "" {
		return func() {}, nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", a.leader.cfg.Admin)
	if err != nil {
		return nil, exitcodes.WithCode(fmt.Errorf("leader: the admin API can't listen: %w: give it another address", err), exitcodes.Config)
	}
	a.mu.Lock()
	a.addr = ln.Addr().String()
	a.mu.Unlock()
	exitcodes.Annotate(ctx, "admin", a.addr)
	srv := &http.Server{Handler: a.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			a.leader.log.Error("the admin API broke off", "err", err)
		}
	})
	return func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(bounded) != nil {
			_ = srv.Close() // its requests had their time
		}
		wg.Wait()
	}, nil
}

// Handler returns the admin API, to be served under an address of the
// application's. It refuses requests that do not come from this host.
func (l *Leader) Handler() http.Handler { return l.admin.handler() }

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/leader/status", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, a.leader.Status())
	})
	mux.HandleFunc("POST /api/leader/promote", a.promote)
	health := func(path string, good func(Phase) bool) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			s := a.leader.Status()
			code := http.StatusOK
			if !good(s.Phase) {
				code = http.StatusServiceUnavailable
			}
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, "%v: %s\n", s.Phase, s.Reason) // nobody is left to be told
		})
	}
	health("/livez", func(p Phase) bool { return p != Failed })
	health("/readyz/standby", func(p Phase) bool { return p == ReadyToPromote || p == Promoting || p == Leading })
	health("/readyz/leader", func(p Phase) bool { return p == Leading })
	return onlyLoopback(http.NewCrossOriginProtection().Handler(mux))
}

// promote writes the intent. It names the generation that the caller means: a
// request that reaches the wrong process is refused.
func (a *admin) promote(w http.ResponseWriter, r *http.Request) {
	l := a.leader
	want, err := wanted(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if mine := l.cfg.Catalog.Generation; want != mine {
		refuse(w, http.StatusConflict, fmt.Errorf("this process is of generation %v, and generation %v is to be promoted: ask one of its processes", mine, want))
		return
	}
	intent, err := Promote(r.Context(), l.store, l.cfg.Catalog, want, "the admin API")
	var overtaken *OvertakenError
	switch {
	case errors.Is(err, fence.ErrSuperseded), errors.As(err, &overtaken):
		refuse(w, http.StatusConflict, err)
		return
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	select {
	case l.promoted <- struct{}{}:
	default: // it is going to look already
	}
	reply(w, http.StatusAccepted, map[string]any{"intent": intent, "status": l.Status()})
}

// wanted reads the generation from the body or from the query.
func wanted(r *http.Request) (generation.Generation, error) {
	if q := r.URL.Query().Get("generation"); q != "" {
		return generation.Parse(q)
	}
	var body struct {
		Generation generation.Generation `json:"generation"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 4096)).Decode(&body); err != nil {
		return 0, fmt.Errorf(`leader: the body must be {"generation": N}: %w`, err)
	}
	return generation.Parse(strconv.FormatUint(uint64(body.Generation), 10))
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // nobody is left to be told
}

func refuse(w http.ResponseWriter, code int, err error) {
	reply(w, code, map[string]string{"error": err.Error()})
}

// onlyLoopback refuses whatever does not come from this host, and requests
// whose Host is a name that some other site made a browser look up here.
func onlyLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.RemoteAddr) || !loopback(r.Host) {
			refuse(w, http.StatusForbidden, errors.New("leader: the admin API answers on loopback only"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// loopback reports whether an address, with or without a port, is of this host.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// checkLoopback refuses an address that others could reach.
func checkLoopback(address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("the admin address %q: %w", address, err)
	}
	if !loopback(address) {
		return fmt.Errorf("the admin address %q is not on loopback: whoever reaches it can promote; name 127.0.0.1, [::1] or localhost", address)
	}
	return nil
}
