package grpcfence

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/internal/wire"
)

// MainResource is the resource of calls whose interceptor names none.
const MainResource = "main"

// A Config says how the interceptors of a server work.
type Config struct {
	// Resource returns the resource that a call works on. It must return names of
	// a set that the server knows: each name takes a register, for good. Two names
	// of one thing are two registers, which don't exclude each other. Default:
	// MainResource for all.
	Resource func(ctx context.Context, method string) string

	// Unguarded says which methods need no token, such as those of a health
	// check. Default: none.
	Unguarded func(method string) bool

	// Logger hears why the gate could not decide. Default: slog.Default.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Resource == nil {
		c.Resource = func(context.Context, string) string { return MainResource }
	}
	if c.Unguarded == nil {
		c.Unguarded = func(string) bool { return false }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// UnaryServerInterceptor passes a call on while the token on it is the highest of
// its resource, and refuses it otherwise. See the package documentation for what
// that promises and needs. Gate stays the caller's to close, after the server.
func UnaryServerInterceptor(gate *fence.Gate, cfg Config) grpc.UnaryServerInterceptor {
	cfg = cfg.withDefaults()
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if cfg.Unguarded(info.FullMethod) {
			return handle(ctx, req)
		}
		a, resource, err := cfg.admit(ctx, gate, info.FullMethod)
		if err != nil {
			return nil, err
		}
		defer a.Release()
		reply, err := handle(admitted(a), req)
		return reply, outcome(a, resource, err)
	}
}

// StreamServerInterceptor does for streams what [UnaryServerInterceptor] does: a
// stream is admitted once, and cut off when a newer token comes.
func StreamServerInterceptor(gate *fence.Gate, cfg Config) grpc.StreamServerInterceptor {
	cfg = cfg.withDefaults()
	return func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if cfg.Unguarded(info.FullMethod) {
			return handle(srv, s)
		}
		a, resource, err := cfg.admit(s.Context(), gate, info.FullMethod)
		if err != nil {
			return err
		}
		defer a.Release()
		return outcome(a, resource, handle(srv, newStream(s, a)))
	}
}

// admit asks the gate. Its error is a status.
func (c Config) admit(ctx context.Context, gate *fence.Gate, method string) (*fence.Admission, string, error) {
	resource := c.Resource(ctx, method)
	a, err := gate.AdmitText(ctx, resource, metadata.ValueFromIncomingContext(ctx, MetadataKey))
	if err == nil {
		return a, resource, nil
	}
	answer := wire.Of(err, resource, wire.NotApplied)
	if code := statuses[answer.Kind]; code == codes.Unavailable || code == codes.ResourceExhausted {
		c.Logger.WarnContext(ctx, "a guarded call was not let through", "method", method, "err", err)
	}
	return nil, "", statusOf(answer)
}

// outcome returns what a handler returned, unless it gave up because a newer token
// came.
func outcome(a *fence.Admission, resource string, err error) error {
	stale := a.Stale()
	if err == nil || stale == nil {
		return err
	}
	code := status.Code(err)
	if errors.Is(err, errCut) || errors.Is(err, context.Canceled) || errors.Is(err, fence.ErrFenced) || code == codes.Canceled {
		return statusOf(wire.Of(stale, resource, wire.Unknown))
	}
	return err
}

type tokenKey struct{}

func admitted(a *fence.Admission) context.Context {
	return context.WithValue(a.Context(), tokenKey{}, a.Token())
}

// Admitted returns the token under which the call of ctx was admitted, such as to
// put it on a call to another server.
func Admitted(ctx context.Context) (fence.Token, bool) {
	t, ok := ctx.Value(tokenKey{}).(fence.Token)
	return t, ok
}

// errCut means that a newer token came.
var errCut = errors.New("grpcfence: a newer token was seen: the stream was cut off")

// A stream is one whose client can be left standing.
type stream struct {
	grpc.ServerStream
	ctx context.Context
	cut chan struct{}
}

func newStream(s grpc.ServerStream, a *fence.Admission) *stream {
	guarded := &stream{ServerStream: s, ctx: admitted(a), cut: make(chan struct{})}
	a.OnStale(func() { close(guarded.cut) })
	return guarded
}

// Context implements [grpc.ServerStream].
func (s *stream) Context() context.Context { return s.ctx }

// SendMsg implements [grpc.ServerStream].
func (s *stream) SendMsg(m any) error {
	return s.await(func() error { return s.ServerStream.SendMsg(m) })
}

// RecvMsg implements [grpc.ServerStream].
func (s *stream) RecvMsg(m any) error {
	return s.await(func() error { return s.ServerStream.RecvMsg(m) })
}

// await calls fn until the stream is cut off. A call that goes on then ends with
// the stream, which ends when its handler has returned.
func (s *stream) await(fn func() error) error {
	select {
	case <-s.cut:
		return errCut
	default:
	}
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-s.cut:
		return errCut
	}
}
