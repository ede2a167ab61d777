package httpfence_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/httpfence"
)

// The orders of an old holder's request against a new one's are enumerated: every
// merge of their steps. A step that has to wait stays under way while the other
// side goes on. The old holder's handler is deaf: it writes and returns when the
// order says so, whatever became of its context.

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

func TestInNoOrderOfStepsDoesAnOldHolderWriteBehindANewOne(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]struct {
		middleware
		guards bool
	}{"middleware": {guarding, true}, "check alone": {checking, false}, "register alone": {comparing, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stale, played, waited := 0, 0, 0
			for _, order := range merges([]string{"send", "admit", "write", "answer"}, []string{"send", "raise", "write"}) {
				g := newGame(t, way.middleware)
				for _, s := range order {
					g.play(s)
				}
				writes := g.end()
				played++
				waited += g.waited
				if i := strings.Index(writes, "new"); i >= 0 && strings.Contains(writes[i:], "old") {
					stale++
					require.False(t, way.guards, "order %v: %s", order, writes)
				}
				require.Contains(t, writes, "new", "the new holder's write is not lost: %v", order)
			}
			t.Logf("%d of %d orders wrote something stale; %d steps waited", stale, played, waited)
			require.Equal(t, 35, played)
			require.Equal(t, way.guards, stale == 0)
			require.Equal(t, way.guards, waited > 0)
		})
	}
}

// A stepOf is a step of one of both sides.
type stepOf struct {
	who  string
	step string
}

// merges returns every merge of both sides' steps.
func merges(old, fresh []string) (all [][]stepOf) {
	if len(old)+len(fresh) == 0 {
		return [][]stepOf{nil}
	}
	if len(old) > 0 {
		for _, m := range merges(old[1:], fresh) {
			all = append(all, append([]stepOf{{"old", old[0]}}, m...))
		}
	}
	if len(fresh) > 0 {
		for _, m := range merges(old, fresh[1:]) {
			all = append(all, append([]stepOf{{"new", fresh[0]}}, m...))
		}
	}
	return all
}

// A side is one request, which waits for leave before each step.
type side struct {
	name  string
	token fence.Token
	leave chan string // one for each further step
	at    chan string // where it is now
	ended bool
}

type game struct {
	t      *testing.T
	gate   *fence.Gate
	srv    *httptest.Server
	base   *http.Transport
	sides  map[string]*side
	calls  sync.WaitGroup
	waited int

	mu     sync.Mutex
	writes []string
}

func newGame(t *testing.T, way middleware) *game {
	h := &head{token: token(7, 41)}
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.newest, DrainTimeout: time.Minute})
	require.NoError(t, err)
	first, err := gate.Admit(t.Context(), httpfence.MainResource, token(7, 41))
	require.NoError(t, err)
	first.Release()
	h.set(token(8, 42), nil)
	g := &game{t: t, gate: gate, base: &http.Transport{DisableKeepAlives: true}, sides: map[string]*side{}}
	for name, tok := range map[string]fence.Token{"old": token(7, 41), "new": token(8, 42)} {
		g.sides[name] = &side{name: name, token: tok, leave: make(chan string, 4), at: make(chan string, 4)}
	}
	guarded := way(gate, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := g.sides[r.URL.Query().Get("who")]
		s.at <- "inside"
		<-s.leave
		g.mu.Lock()
		g.writes = append(g.writes, s.name)
		g.mu.Unlock()
		if s.name == "old" {
			s.at <- "wrote"
			<-s.leave
		}
	}))
	g.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := g.sides[r.URL.Query().Get("who")]
		s.at <- "sent"
		<-s.leave
		guarded.ServeHTTP(w, r)
	}))
	return g
}

// play gives a side leave for a step, and returns when it is done or waits for the
// other side.
func (g *game) play(step stepOf) {
	s := g.sides[step.who]
	if step.step == "send" {
		g.calls.Go(func() { g.call(s) })
	} else {
		s.leave <- step.step
	}
	if s.ended {
		return
	}
	late := time.After(time.Minute)
	for {
		select {
		case at := <-s.at:
			s.ended = at == "ended"
			return
		case <-late:
			g.t.Errorf("%v does not end", step)
			return
		case <-time.After(time.Millisecond):
			if r := g.gate.Registers(); s.name == "new" && r[0].Draining > 0 {
				g.waited++
				return
			}
		}
	}
}

func (g *game) call(s *side) {
	client := &http.Client{Transport: &httpfence.Transport{Base: g.base, Token: func() fence.Token { return s.token }}}
	resp, err := client.Post(g.srv.URL+"?who="+s.name, "text/plain", nil)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	s.at <- "ended"
}

// end waits for both requests and returns the writes in their order.
func (g *game) end() string {
	g.calls.Wait()
	g.srv.Close()
	require.NoError(g.t, g.gate.Close())
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.writes, " ")
}
