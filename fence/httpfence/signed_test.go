package httpfence_test

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/httpfence"
)

func TestAServerThatCanNotReadTheCatalogTrustsSignedTokens(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	mine, err := fence.NewSigner("orders at eu-1", key)
	require.NoError(t, err)
	others, err := fence.NewSigner("stock at eu-1", key)
	require.NoError(t, err)
	trusts, err := fence.NewVerifier("orders at eu-1", key.Public().(ed25519.PublicKey))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "registers")
	require.NoError(t, os.WriteFile(path, []byte(`{"format":"fencepost gate 1","registers":{}}`), 0o600))
	gate, err := fence.OpenGate(path, fence.GateConfig{Signed: trusts})
	require.NoError(t, err)
	srv := httptest.NewServer(httpfence.Middleware(gate, httpfence.Config{Logger: slog.New(slog.DiscardHandler)}, http.HandlerFunc(ok)))
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, gate.Close())
	})
	post := func(by *fence.Signer, tok fence.Token) (status int, refusal error) {
		base := &http.Transport{DisableKeepAlives: true}
		client := &http.Client{Transport: &httpfence.Transport{Base: base, Token: func() fence.Token { return tok }, Signer: by}}
		resp, err := client.Post(srv.URL, "text/plain", strings.NewReader("row"))
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode, httpfence.ResponseRefusal(resp)
	}
	status, _ := post(mine, token(7, 41))
	require.Equal(t, 200, status)
	for _, by := range []*fence.Signer{nil, others} {
		status, refusal := post(by, token(9, 99))
		require.Equal(t, 403, status)
		require.ErrorIs(t, refusal, fence.ErrUnsigned)
		require.Equal(t, exitcodes.None, exitcodes.Of(refusal))
	}
	status, _ = post(mine, token(8, 42))
	require.Equal(t, 200, status)
	status, refusal := post(mine, token(7, 41))
	require.Equal(t, 412, status)
	require.Equal(t, &fence.Error{Held: token(7, 41), Current: token(8, 42), Guard: "http main"}, refusal)
}
