package grpcfence_test

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/grpcfence"
	"github.com/fencepost/fencepost/fence/internal/gatetest"
)

func TestAServerThatCanNotReadTheCatalogTrustsSignedTokens(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	mine, err := fence.NewSigner("orders at eu-1", key)
	require.NoError(t, err)
	trusts, err := fence.NewVerifier("orders at eu-1", key.Public().(ed25519.PublicKey))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "registers")
	require.NoError(t, os.WriteFile(path, []byte(`{"format":"fencepost gate 1","registers":{}}`), 0o600))
	gate, err := fence.OpenGate(path, fence.GateConfig{Signed: trusts})
	require.NoError(t, err)
	own := grpcfence.Config{}
	addr, stop := listen(t, &store{write: done, pour: func(grpc.ServerStream) error { return nil }},
		grpc.UnaryInterceptor(grpcfence.UnaryServerInterceptor(gate, own)), grpc.StreamInterceptor(grpcfence.StreamServerInterceptor(gate, own)))
	t.Cleanup(func() {
		stop()
		require.NoError(t, gate.Close())
	})
	// call makes a unary call and a stream.
	call := func(tok fence.Token, options ...grpcfence.ClientOption) [2]error {
		held := func() fence.Token { return tok }
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithUnaryInterceptor(grpcfence.UnaryClientInterceptor(held, options...)), grpc.WithStreamInterceptor(grpcfence.StreamClientInterceptor(held, options...)))
		require.NoError(t, err)
		defer cc.Close()
		unary := write(t.Context(), cc, "row")
		stream, err := pour(t.Context(), cc)
		require.NoError(t, err)
		return [2]error{unary, stream.RecvMsg(new(wrapperspb.StringValue))}
	}
	require.NoError(t, call(gatetest.Old, grpcfence.Signed(mine))[0])
	for _, err := range call(gatetest.New) {
		require.Equal(t, codes.PermissionDenied, status.Code(err))
		require.ErrorIs(t, grpcfence.Refusal(err), fence.ErrUnsigned)
	}
	require.NoError(t, call(gatetest.New, grpcfence.Signed(mine))[0])
	for _, err := range call(gatetest.Old, grpcfence.Signed(mine)) {
		require.ErrorIs(t, err, fence.ErrFenced)
	}
}
