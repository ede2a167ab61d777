// Package gatetest plays an old holder's request against a new one's, before any
// server that a gate guards.
package gatetest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/orders"
)

// The tokens of both sides, and the resource.
var (
	Old = fence.Token{Generation: 7, Epoch: 41}
	New = fence.Token{Generation: 8, Epoch: 42}
)

const resource = "main"

// A Head is a catalog as far as a gate looks at it.
type Head struct {
	mu    sync.Mutex
	token fence.Token
	err   error
}

// NewHead returns a catalog whose newest token is Old.
func NewHead() *Head { return &Head{token: Old} }

// Set has the catalog say so from now on.
func (h *Head) Set(t fence.Token, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.token, h.err = t, err
}

// Someone is who holds the token of a Head.
func Someone() fence.Holder { return fence.Holder{Name: "db-2", Address: "10.0.0.2:8443"} }

// Newest is for a fence.GateConfig.
func (h *Head) Newest(context.Context, string) (fence.Token, fence.Holder, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.token, Someone(), h.err
}

// A Start starts a server behind a gate. The server calls before when a request
// has come, before the guard looks at it, and inside in its handler, both with the
// name of the side. Call makes a request and returns when it has ended.
type Start func(gate *fence.Gate, before, inside func(who string)) (call func(who string, token fence.Token), stop func())

// Orders enumerates every merge of the old holder's steps {send, admit, write,
// answer} with the new one's {send, raise, write}. A step that has to wait stays
// under way while the other side goes on. The old holder's handler is deaf: it
// writes and returns when the order says so, whatever became of its context.
//
// If the server guards, no order may have the old holder's write behind the new
// one's; otherwise some order must.
func Orders(t *testing.T, guards bool, start Start) {
	stale, played, waited := 0, 0, 0
	for _, order := range orders.Merges(orders.Steps("old", "send", "admit", "write", "answer"), orders.Steps("new", "send", "raise", "write")) {
		g := newGame(t, start)
		for _, s := range order {
			g.play(s)
		}
		writes := g.end()
		played++
		waited += g.waited
		if i := strings.Index(writes, "new"); i >= 0 && strings.Contains(writes[i:], "old") {
			stale++
			require.False(t, guards, "order %v: %s", order, writes)
		}
		require.Contains(t, writes, "new", "the new holder's write is not lost: %v", order)
	}
	t.Logf("%d of %d orders wrote something stale; %d steps waited", stale, played, waited)
	require.Equal(t, 35, played)
	require.Equal(t, guards, stale == 0)
	require.Equal(t, guards, waited > 0)
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
	call   func(string, fence.Token)
	stop   func()
	sides  map[string]*side
	calls  sync.WaitGroup
	waited int

	mu     sync.Mutex
	writes []string
}

func newGame(t *testing.T, start Start) *game {
	h := NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest, DrainTimeout: time.Minute})
	require.NoError(t, err)
	first, err := gate.Admit(t.Context(), resource, Old)
	require.NoError(t, err)
	first.Release()
	h.Set(New, nil)
	g := &game{t: t, gate: gate, sides: map[string]*side{}}
	for name, tok := range map[string]fence.Token{"old": Old, "new": New} {
		g.sides[name] = &side{name: name, token: tok, leave: make(chan string, 4), at: make(chan string, 4)}
	}
	g.call, g.stop = start(gate, func(who string) {
		g.sides[who].at <- "sent"
		<-g.sides[who].leave
	}, g.inside)
	return g
}

// inside is what a handler does.
func (g *game) inside(who string) {
	s := g.sides[who]
	s.at <- "inside"
	<-s.leave
	g.mu.Lock()
	g.writes = append(g.writes, s.name)
	g.mu.Unlock()
	if s.name == "old" {
		s.at <- "wrote"
		<-s.leave
	}
}

// play gives a side leave for a step, and returns when it is done or waits for the
// other side.
func (g *game) play(step orders.Step) {
	s := g.sides[step.Who]
	if step.What == "send" {
		g.calls.Go(func() {
			g.call(s.name, s.token)
			s.at <- "ended"
		})
	} else {
		s.leave <- step.What
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

// end waits for both requests and returns the writes in their order.
func (g *game) end() string {
	g.calls.Wait()
	g.stop()
	require.NoError(g.t, g.gate.Close())
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.writes, " ")
}
