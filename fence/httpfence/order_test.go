package httpfence_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/httpfence"
	"github.com/fencepost/fencepost/fence/internal/gatetest"
)

// A middleware puts a gate before a handler.
type middleware func(*fence.Gate, http.Handler) http.Handler

func guarding(g *fence.Gate, next http.Handler) http.Handler {
	return httpfence.Middleware(g, httpfence.Config{Logger: slog.New(slog.DiscardHandler)}, next)
}

// checking is the guard that everybody writes first: it compares, and lets go.
func checking(g *fence.Gate, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, err := fence.TokenOf("http", r.Header[httpfence.Header])
		if err == nil {
			var a *fence.Admission
			if a, err = g.Admit(r.Context(), httpfence.MainResource, t); err == nil {
				a.Release()
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, err.Error(), http.StatusPreconditionFailed)
	})
}

// comparing has a register, and no catalog: whatever is higher raises it.
func comparing(_ *fence.Gate, next http.Handler) http.Handler {
	var mu sync.Mutex
	var highest fence.Token
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, err := fence.TokenOf("http", r.Header[httpfence.Header])
		mu.Lock()
		stale := err != nil || t.Compare(highest) < 0
		if !stale {
			highest = t
		}
		mu.Unlock()
		if stale {
			http.Error(w, "stale", http.StatusPreconditionFailed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// start starts a server for an order of steps.
func (m middleware) start(gate *fence.Gate, before, inside func(string)) (call func(string, fence.Token), stop func()) {
	guarded := m(gate, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { inside(r.URL.Query().Get("who")) }))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before(r.URL.Query().Get("who"))
		guarded.ServeHTTP(w, r)
	}))
	base := &http.Transport{DisableKeepAlives: true}
	return func(who string, token fence.Token) {
		client := &http.Client{Transport: &httpfence.Transport{Base: base, Token: func() fence.Token { return token }}}
		resp, err := client.Post(srv.URL+"?who="+who, "text/plain", nil)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}, srv.Close
}

func TestInNoOrderOfStepsDoesAnOldHolderWriteBehindANewOne(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]struct {
		middleware
		guards bool
	}{"middleware": {guarding, true}, "check alone": {checking, false}, "register alone": {comparing, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gatetest.Orders(t, way.guards, way.start)
		})
	}
}
