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

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

// The admin API, by which a process is watched and told what to do. It is for
// this host only:
//
//	GET  /api/leader/status      the Status, as JSON
//	POST /api/leader/promote     {"generation": N}: write the durable intent
//	POST /api/leader/abort       {"generation": N}: give a promotion up, for good
//	POST /api/leader/step-down   {"reason": TEXT}: offer the token to a standby, and wait until one has it
//	POST /api/leader/preference  {"prefer_not_to_lead": BOOL}
//	GET  /livez                  200 while the process is not Failed
//	GET  /readyz/standby         200 while it has read everything, or holds the token
//	GET  /readyz/leader          200 while it leads and serves
//
// The three kinds of health are apart because a rolling update deadlocks where
// a new process is only called ready once it leads. What processes ask each
// other is answered here too: see peer.go.
func (l *Leader) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/leader/status", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, l.Status())
	})
	mux.HandleFunc("POST /api/leader/promote", l.servePromote)
	mux.HandleFunc("POST /api/leader/abort", l.serveAbort)
	mux.HandleFunc("POST /api/leader/step-down", l.serveStepDown)
	mux.HandleFunc("POST /api/leader/preference", l.servePreference)
	l.servePeers(mux)
	l.serveHealth(mux)
	return onlyLoopback(http.NewCrossOriginProtection().Handler(mux))
}

// peerHandler is what processes of other hosts may ask.
func (l *Leader) peerHandler() http.Handler {
	mux := http.NewServeMux()
	l.servePeers(mux)
	return http.NewCrossOriginProtection().Handler(mux)
}

// Handler returns the admin API, to be served under an address of the
// application's. It refuses requests that do not come from this host.
func (l *Leader) Handler() http.Handler { return l.adminHandler() }

func (l *Leader) serveHealth(mux *http.ServeMux) {
	health := func(path string, good func(Status) bool) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			s := l.Status()
			code := http.StatusOK
			if !good(s) {
				code = http.StatusServiceUnavailable
			}
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, "%v: %s\n", s.Phase, s.Reason) // nobody is left to be told
		})
	}
	health("/livez", func(s Status) bool { return s.Phase != Failed })
	health("/readyz/standby", func(s Status) bool {
		p := s.Phase
		return p == ReadyToPromote || p == Promoting || p == Leading || p == HandingOver || p == Unconfirmed
	})
	health("/readyz/leader", func(s Status) bool { return s.Serving })
}

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
	stopAdmin, err := l.admin.serve(ctx, l, "admin", l.cfg.Admin, l.adminHandler())
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

// servePromote writes the intent. It names the generation that the caller
// means: a request that reaches the wrong process is refused.
func (l *Leader) servePromote(w http.ResponseWriter, r *http.Request) {
	want, err := wanted(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if mine := l.cfg.Catalog.Generation; want != mine {
		refuse(w, http.StatusConflict, fmt.Errorf("this process is of generation %v, and generation %v is to be promoted: ask one of its processes", mine, want))
		return
	}
	intent, err := promote(r.Context(), l.store, l.cfg.boardConfig(), want, "the admin API")
	if err != nil {
		refuse(w, failed(err), err)
		return
	}
	l.handOn(intent)
	reply(w, http.StatusAccepted, map[string]any{"intent": intent.Value, "status": l.Status()})
}

// handOn hands an intent that was written just now to who waits, in place of an
// older one.
func (l *Leader) handOn(intent catalog.Posted[Intent]) {
	select {
	case <-l.promoted:
	default:
	}
	select {
	case l.promoted <- told{intent, l.lease.now()}:
	default: // somebody else was faster: the process is going to look
	}
}

// serveAbort gives a generation up, whichever this process is of.
func (l *Leader) serveAbort(w http.ResponseWriter, r *http.Request) {
	want, err := wanted(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	intent, err := Abort(r.Context(), l.store, l.cfg.boardConfig(), want, "the admin API")
	if err != nil {
		refuse(w, failed(err), err)
		return
	}
	reply(w, http.StatusOK, map[string]any{"intent": intent, "status": l.Status()})
}

// failed is the status of a request that failed with err.
func failed(err error) int {
	if refusal(err) {
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

func (l *Leader) serveStepDown(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := read(r, &body); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf(`leader: the body must be {"reason": TEXT}: %w`, err))
		return
	}
	if err := l.StepDown(r.Context(), body.Reason); err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	reply(w, http.StatusOK, map[string]any{"status": l.Status()})
}

func (l *Leader) servePreference(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Not *bool `json:"prefer_not_to_lead"`
	}
	if err := read(r, &body); err != nil || body.Not == nil {
		refuse(w, http.StatusBadRequest, errors.Join(errors.New(`leader: the body must be {"prefer_not_to_lead": true} or false`), err))
		return
	}
	l.PreferNotToLead(*body.Not)
	reply(w, http.StatusOK, map[string]any{"status": l.Status()})
}

// maxBody bounds the body of a request, in bytes.
const maxBody = 4096

func read(r *http.Request, v any) error {
	return json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody)).Decode(v)
}

// wanted reads the generation from the body or from the query.
func wanted(r *http.Request) (generation.Generation, error) {
	if q := r.URL.Query().Get("generation"); q != "" {
		return generation.Parse(q)
	}
	var body struct {
		Generation generation.Generation `json:"generation"`
	}
	if err := read(r, &body); err != nil {
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
