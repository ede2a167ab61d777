package grpcfence

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/fencepost/fencepost/fence"
)

// MetadataKey is the metadata that bears the token, such as g7.e41.
const MetadataKey = "fencepost-token"

// ErrTokenSet means that a call has a token already.
var ErrTokenSet = errors.New("grpcfence: the call has a token already: let the interceptor alone set it")

// UnaryClientInterceptor puts the token that this process holds on each call, such
// as catalog.Catalog.Token returns it. A call that has a token already is an error
// that wraps [ErrTokenSet], and without a token nothing is sent. A guard's refusal
// is the error of the call: errors.As finds the *[fence.Error], and status.FromError
// the status.
func UnaryClientInterceptor(token func() fence.Token) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, err := mark(ctx, token())
		if err != nil {
			return err
		}
		return explained(invoke(ctx, method, req, reply, cc, opts...))
	}
}

// StreamClientInterceptor does for streams what [UnaryClientInterceptor] does: a
// stream has the token of its beginning.
func StreamClientInterceptor(token func() fence.Token) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		ctx, err := mark(ctx, token())
		if err != nil {
			return nil, err
		}
		s, err := open(ctx, desc, cc, method, opts...)
		if err != nil {
			return nil, explained(err)
		}
		return explaining{s}, nil
	}
}

// explaining is a stream whose errors hold the refusal.
type explaining struct{ grpc.ClientStream }

// RecvMsg implements [grpc.ClientStream]. SendMsg says no more than io.EOF.
func (s explaining) RecvMsg(m any) error { return explained(s.ClientStream.RecvMsg(m)) }

// Header implements [grpc.ClientStream].
func (s explaining) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, explained(err)
}

// mark returns a context whose calls have the token.
func mark(ctx context.Context, token fence.Token) (context.Context, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	if set := md.Get(MetadataKey); len(set) > 0 {
		return nil, fmt.Errorf("%w: it is %.64q", ErrTokenSet, set)
	}
	if token.IsZero() {
		return nil, &fence.TokenError{Guard: "grpc client", Err: fence.ErrMissing}
	}
	text, err := token.MarshalText()
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, MetadataKey, string(text)), nil
}
