package leader

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
)

// A heldAnswer is one whose first line does not leave before it may.
type heldAnswer struct {
	*httptest.ResponseRecorder
	writes, leaves chan struct{}
}

func (h heldAnswer) Write(b []byte) (int, error) {
	h.writes <- struct{}{}
	<-h.leaves
	return h.ResponseRecorder.Write(b)
}

// Without the proof it can't know of the holder's death.
func TestAStandbyIsCountedOnceItHasTheProofOfTheClaim(t *testing.T) {
	t.Parallel()
	l, err := New(memory.New(), Config{Catalog: catalog.Config{Generation: 1}})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended, works := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- l.Run(ctx, func(ctx context.Context, _ *catalog.Catalog) error {
			close(works)
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	<-works
	const nonce = "one of many characters"
	asked := url.Values{"nonce": {nonce}, "proof": {proof(l.holding().Claim().ID, "asks", nonce, presencePath, "")}}
	standby, leave := context.WithCancel(t.Context())
	answer := heldAnswer{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.servePresence(answer, httptest.NewRequestWithContext(standby, http.MethodGet, presencePath+"?"+asked.Encode(), nil))
	}()
	<-answer.writes
	require.Zero(t, l.Status().Standbys)
	close(answer.leaves)
	require.Eventually(t, func() bool { return l.Status().Standbys == 1 }, time.Minute, time.Millisecond)
	leave()
	<-served
	require.Zero(t, l.Status().Standbys)
	stop()
	require.NoError(t, <-ended)
}

func TestAHandoverThatTheStoreSaysNothingOfIsRefusedWhoeverAsks(t *testing.T) {
	t.Parallel()
	store := memory.New()
	l, err := New(store, Config{Catalog: catalog.Config{Generation: 2}, Admin: "127.0.0.1:0"})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended, works := make(chan error, 1), make(chan struct{}, 9)
	go func() {
		ended <- l.Run(ctx, func(ctx context.Context, _ *catalog.Catalog) error {
			works <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	<-works
	claim, address := l.holding().Claim().ID, l.Status().Admin
	for _, g := range []generation.Generation{1, 2, 3} {
		_, err = callHandover(ctx, 10*time.Second, claim, address, g, 0)
		require.ErrorContains(t, err, "is not promoted over 2", "%v", g)
	}
	_, err = callPresence(ctx, 10*time.Second, driver.NewID(), address)
	require.ErrorContains(t, err, "does not hold the claim")
	const nonce = "overheard at a presence"
	asked := url.Values{"generation": {"3"}, "nonce": {nonce}, "proof": {proof(claim, "asks", nonce, presencePath, "")}}
	_, err = answered(ctx, http.MethodPost, "http://"+address+handoverPath+"?"+asked.Encode())
	require.ErrorContains(t, err, "does not hold the claim", "the proof of one question served another")
	p, err := callPresence(ctx, 10*time.Second, claim, address)
	require.NoError(t, err)
	p.Close()

	_, err = Promote(ctx, store, catalog.Config{}, 3, "test")
	require.NoError(t, err)
	p, err = callHandover(ctx, 10*time.Second, claim, address, 3, 0)
	require.NoError(t, err)
	require.Equal(t, HandingOver, l.Status().Phase)
	p.Close() // and the holder goes on
	<-works
	require.Equal(t, Leading, l.Status().Phase)
	stop()
	require.NoError(t, <-ended)
}
