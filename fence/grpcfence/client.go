package grpcfence

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/fencepost/fencepost/fence"
)

// MetadataKey is the metadata that bears the token, such as g7.e41, or what a
// [fence.Signer] makes of it.
const MetadataKey = "fencepost-token"

// ErrTokenSet means that a call has a token already.
var ErrTokenSet = errors.New("grpcfence: the call has a token already: let the interceptor alone set it")

// A ClientOption says how a client's interceptors work.
type ClientOption func(*client)

// Signed has the token signed, for servers that can't read the catalog; those that
// can don't look at the signature.
func Signed(by *fence.Signer) ClientOption { return func(c *client) { c.signer = by } }

type client struct {
	token  func() fence.Token
	signer *fence.Signer
}

func newClient(token func() fence.Token, options []ClientOption) client {
	c := client{token: token}
	for _, set := range options {
		set(&c)
	}
	return c
}

// UnaryClientInterceptor puts the token that this process holds on each call, such
// as catalog.Catalog.Token returns it. A call that has a token already is an error
// that wraps [ErrTokenSet], and without a token nothing is sent. A guard's refusal
// is the error of the call: errors.As finds the *[fence.Error], and status.FromError
// the status.
func UnaryClientInterceptor(token func() fence.Token, options ...ClientOption) grpc.UnaryClientInterceptor {
	c := newClient(token, options)
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, err := c.mark(ctx)
		if err != nil {
			return err
		}
		return explained(invoke(ctx, method, req, reply, cc, opts...))
	}
}

// StreamClientInterceptor does for streams what [UnaryClientInterceptor] does: a
// stream has the token of its beginning.
func StreamClientInterceptor(token func() fence.Token, options ...ClientOption) grpc.StreamClientInterceptor {
	c := newClient(token, options)
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		ctx, err := c.mark(ctx)
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
func (c client) mark(ctx context.Context) (context.Context, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	if set := md.Get(MetadataKey); len(set) > 0 {
		return nil, fmt.Errorf("%w: it is %.64q", ErrTokenSet, set)
	}
	token := c.token()
	if token.IsZero() {
		return nil, &fence.TokenError{Guard: "grpc client", Err: fence.ErrMissing}
	}
	text, err := c.signer.Text(token)
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, MetadataKey, text), nil
}
