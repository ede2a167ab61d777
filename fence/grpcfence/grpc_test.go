package grpcfence_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/grpcfence"
	"github.com/fencepost/fencepost/fence/internal/gatetest"
	"github.com/fencepost/fencepost/generation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	writeMethod = "/test.Store/Write"
	pourMethod  = "/test.Store/Pour"
)

// A store is a service with a unary call and a stream.
type store struct {
	write func(context.Context, string) error
	pour  func(grpc.ServerStream) error
}

func serviceDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Store", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Write", Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, req any) (any, error) {
				text := req.(*wrapperspb.StringValue)
				return text, srv.(*store).write(ctx, text.GetValue())
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: writeMethod}, handle)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Pour", ServerStreams: true, ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			return srv.(*store).pour(s)
		}}},
	}
}

// A served is a real server behind a gate.
type served struct {
	t    *testing.T
	head *gatetest.Head
	gate *fence.Gate
	addr string
}

func serve(t *testing.T, cfg fence.GateConfig, st *store) *served {
	t.Helper()
	s := &served{t: t, head: gatetest.NewHead()}
	cfg.Newest = s.head.Newest
	var err error
	s.gate, err = fence.NewGate(cfg)
	require.NoError(t, err)
	own := grpcfence.Config{
		Logger:    slog.New(slog.DiscardHandler),
		Unguarded: func(method string) bool { return strings.Contains(method, "Health") },
	}
	ln, stop := listen(t, st, grpc.UnaryInterceptor(grpcfence.UnaryServerInterceptor(s.gate, own)), grpc.StreamInterceptor(grpcfence.StreamServerInterceptor(s.gate, own)))
	s.addr = ln
	t.Cleanup(func() {
		stop()
		require.NoError(t, s.gate.Close())
	})
	return s
}

func listen(t *testing.T, st *store, options ...grpc.ServerOption) (addr string, stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer(options...)
	srv.RegisterService(serviceDesc(), st)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	return ln.Addr().String(), func() { srv.Stop(); <-done }
}

func dial(t *testing.T, addr string, tok fence.Token, guarded bool) *grpc.ClientConn {
	t.Helper()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if guarded {
		held := func() fence.Token { return tok }
		options = append(options, grpc.WithUnaryInterceptor(grpcfence.UnaryClientInterceptor(held)), grpc.WithStreamInterceptor(grpcfence.StreamClientInterceptor(held)))
	}
	cc, err := grpc.NewClient(addr, options...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func write(ctx context.Context, cc *grpc.ClientConn, text string) error {
	return cc.Invoke(ctx, writeMethod, wrapperspb.String(text), new(wrapperspb.StringValue))
}

func (s *served) write(tok fence.Token) error {
	return write(s.t.Context(), dial(s.t, s.addr, tok, true), "row")
}

func pour(ctx context.Context, cc *grpc.ClientConn) (grpc.ClientStream, error) {
	return cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, pourMethod)
}

func done(context.Context, string) error { return nil }

func TestAStaleTokenIsRefusedWithFailedPreconditionAndWhoLeads(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, &store{write: done, pour: func(grpc.ServerStream) error { return nil }})
	require.NoError(t, s.write(gatetest.Old))
	s.head.Set(gatetest.New, nil)
	require.NoError(t, s.write(gatetest.New))
	want := &fence.Error{Held: gatetest.Old, Current: gatetest.New, By: gatetest.Someone(), Guard: "grpc main"}
	check := func(err error) {
		t.Helper()
		require.Equal(t, codes.FailedPrecondition, status.Code(err))
		require.Equal(t, want, grpcfence.Refusal(fmt.Errorf("write: %w", err)))
		require.NotErrorIs(t, err, fence.ErrSuperseded)
	}
	err := s.write(gatetest.Old)
	check(err)
	require.ErrorIs(t, err, fence.ErrFenced)
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
	stream, err := pour(t.Context(), dial(t, s.addr, gatetest.Old, true))
	require.NoError(t, err)
	err = stream.RecvMsg(new(wrapperspb.StringValue))
	check(err)
	require.ErrorIs(t, err, fence.ErrFenced)
	bare := dial(t, s.addr, fence.Token{}, false) // whatever client
	check(write(metadata.AppendToOutgoingContext(t.Context(), grpcfence.MetadataKey, "g7.e41"), bare, "row"))
}

func TestWhatIsNoTokenIsRefusedForWhatItIs(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, &store{write: done})
	require.NoError(t, s.write(gatetest.Old))
	cc := dial(t, s.addr, fence.Token{}, false)
	for _, c := range []struct {
		given []string
		code  codes.Code
		why   error
	}{
		{nil, codes.InvalidArgument, fence.ErrMissing},
		{[]string{""}, codes.InvalidArgument, fence.ErrMissing},
		{[]string{"x"}, codes.InvalidArgument, fence.ErrMalformed},
		{[]string{"g7.e41,g7.e41"}, codes.InvalidArgument, fence.ErrMalformed},
		{[]string{"g7.e41", "g7.e41"}, codes.InvalidArgument, fence.ErrMalformed},
		{[]string{"", "g7.e41"}, codes.InvalidArgument, fence.ErrMalformed},
		{[]string{"g07.e41"}, codes.InvalidArgument, fence.ErrMalformed},
		{[]string{strings.Repeat("g", 4000)}, codes.InvalidArgument, fence.ErrMalformed},
		{[]string{"g9223372036854775808.e1"}, codes.InvalidArgument, fence.ErrMalformed},
		{[]string{"g0.e0"}, codes.PermissionDenied, fence.ErrNeverIssued},
		{[]string{"g9.e99"}, codes.PermissionDenied, fence.ErrNeverIssued},
		{[]string{"g6.e99"}, codes.PermissionDenied, fence.ErrNeverIssued},
	} {
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{grpcfence.MetadataKey: c.given})
		err := write(ctx, cc, "row")
		require.Equal(t, c.code, status.Code(err), "%.50q: %v", c.given, err)
		refusal := grpcfence.Refusal(err)
		require.ErrorIs(t, refusal, c.why, "%.50q", c.given)
		require.NotErrorIs(t, refusal, fence.ErrFenced)
		require.Less(t, len(refusal.Error()), 400)
		require.Equal(t, exitcodes.None, exitcodes.Of(refusal))
	}
	require.NoError(t, s.write(gatetest.Old), "a forged token locks nobody out")
}

func FuzzNoMetadataBreaksAGuard(f *testing.F) {
	for _, seed := range []string{"", "g7.e41", "g8.e42", "x", "\xff", "g6.e99", strings.Repeat("ü", 100)} {
		f.Add(seed, "", false)
		f.Add("g7.e41", seed, true)
	}
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest, ReadTimeout: time.Minute})
	require.NoError(f, err)
	f.Cleanup(func() { _ = gate.Close() })
	guard := grpcfence.UnaryServerInterceptor(gate, grpcfence.Config{})
	f.Fuzz(func(t *testing.T, first, second string, two bool) {
		given := []string{first}
		if two {
			given = append(given, second)
		}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{grpcfence.MetadataKey: given})
		passed := false
		_, err := guard(ctx, nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { passed = true; return nil, nil })
		require.Equal(t, !two && first == "g7.e41", passed)
		if !passed {
			require.Error(t, grpcfence.Refusal(err))
			require.Len(t, status.Convert(err).Details(), 1)
		}
	})
}

func TestAnUndecidedGuardIsUnavailableAndNoFence(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, &store{write: done})
	s.head.Set(fence.Token{}, fmt.Errorf("dial 10.9.8.7: %w", fence.ErrFenced))
	err := s.write(gatetest.Old)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorIs(t, err, fence.ErrUnverified)
	require.NotErrorIs(t, err, fence.ErrFenced)
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	require.NotContains(t, status.Convert(err).String(), "10.9.8.7")
	require.Len(t, status.Convert(err).Details(), 2, "and when to try again")
	s.head.Set(gatetest.Old, nil)
	require.NoError(t, s.write(gatetest.Old))
}

func TestAStatusOfAnotherServerIsNoRefusal(t *testing.T) {
	t.Parallel()
	require.NoError(t, grpcfence.Refusal(nil))
	require.NoError(t, grpcfence.Refusal(io.EOF))
	require.NoError(t, grpcfence.Refusal(status.Error(codes.FailedPrecondition, "not empty")))
}

func TestAClientDoesNotOverwriteATokenAndSendsNoneItHasNot(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, &store{write: done})
	set := metadata.AppendToOutgoingContext(t.Context(), "Fencepost-Token", "g7.e41")
	cc := dial(t, s.addr, gatetest.Old, true)
	require.ErrorIs(t, write(set, cc, "row"), grpcfence.ErrTokenSet)
	_, err := pour(set, cc)
	require.ErrorIs(t, err, grpcfence.ErrTokenSet)
	require.ErrorIs(t, s.write(fence.Token{}), fence.ErrMissing)
	require.ErrorIs(t, s.write(fence.Token{Generation: generation.Max + 1, Epoch: 1}), generation.ErrOverflow)
}

func TestAMethodThatIsNamedNeedsNoToken(t *testing.T) {
	t.Parallel()
	cfg := grpcfence.Config{Unguarded: func(m string) bool { return m == writeMethod }}
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest})
	require.NoError(t, err)
	addr, stop := listen(t, &store{write: done}, grpc.UnaryInterceptor(grpcfence.UnaryServerInterceptor(gate, cfg)))
	defer stop()
	require.NoError(t, write(t.Context(), dial(t, addr, fence.Token{}, false), "row"))
	require.NoError(t, gate.Close())
}

func TestAStreamWhoseClientStandsStillHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for name, play := range map[string]func(grpc.ServerStream) error{
		"receiving": func(s grpc.ServerStream) error { return s.RecvMsg(new(wrapperspb.StringValue)) },
		"sending": func(s grpc.ServerStream) (err error) {
			for row := wrapperspb.String(strings.Repeat("row", 1<<14)); err == nil; {
				err = s.SendMsg(row)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inside, ended := make(chan struct{}), make(chan error, 1)
			s := serve(t, fence.GateConfig{DrainTimeout: time.Minute}, &store{write: done, pour: func(stream grpc.ServerStream) error {
				close(inside)
				err := play(stream)
				ended <- context.Cause(stream.Context())
				return err
			}})
			stream, err := pour(t.Context(), dial(t, s.addr, gatetest.Old, true))
			require.NoError(t, err)
			<-inside
			s.head.Set(gatetest.New, nil)
			require.NoError(t, s.write(gatetest.New))
			require.ErrorIs(t, <-ended, fence.ErrFenced)
			for err = nil; err == nil; {
				err = stream.RecvMsg(new(wrapperspb.StringValue))
			}
			require.ErrorIs(t, err, fence.ErrFenced)
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
		})
	}
}

func TestAHandlerThatWasCutOffAnswersForItself(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer error
		code   codes.Code
	}{
		"it had written":  {nil, codes.OK},
		"its own refusal": {status.Error(codes.AlreadyExists, "x"), codes.AlreadyExists},
		"it gave up":      {context.Canceled, codes.FailedPrecondition},
		"with a status":   {status.Error(codes.Canceled, "x"), codes.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inside := make(chan struct{})
			s := serve(t, fence.GateConfig{}, &store{write: func(ctx context.Context, _ string) error {
				if tok, _ := grpcfence.Admitted(ctx); tok != gatetest.Old {
					return nil
				}
				close(inside)
				<-ctx.Done()
				return c.answer
			}})
			got := make(chan error, 1)
			cc := dial(t, s.addr, gatetest.Old, true)
			go func() { got <- write(t.Context(), cc, "row") }()
			<-inside
			s.head.Set(gatetest.New, nil)
			require.NoError(t, s.write(gatetest.New))
			require.Equal(t, c.code, status.Code(<-got))
		})
	}
}

func TestAHandlerThatDoesNotEndKeepsTheNewerOutForABoundOnly(t *testing.T) {
	t.Parallel()
	inside, deaf := make(chan struct{}), make(chan struct{})
	s := serve(t, fence.GateConfig{DrainTimeout: 10 * time.Millisecond}, &store{write: func(ctx context.Context, _ string) error {
		if tok, _ := grpcfence.Admitted(ctx); tok == gatetest.Old {
			close(inside)
			<-deaf
		}
		return nil
	}})
	got := make(chan error, 1)
	cc := dial(t, s.addr, gatetest.Old, true)
	go func() { got <- write(t.Context(), cc, "row") }()
	<-inside
	s.head.Set(gatetest.New, nil)
	err := s.write(gatetest.New)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorIs(t, err, fence.ErrDraining)
	close(deaf)
	require.NoError(t, <-got)
	require.NoError(t, s.write(gatetest.New))
}

func TestInNoOrderOfStepsDoesAnOldHolderWriteBehindANewOne(t *testing.T) {
	t.Parallel()
	admits := func(ctx context.Context, g *fence.Gate) error {
		a, err := g.AdmitText(ctx, grpcfence.MainResource, metadata.ValueFromIncomingContext(ctx, grpcfence.MetadataKey))
		if err == nil {
			a.Release() // a check, and no more
		}
		return err
	}
	for name, way := range map[string]struct {
		unary  func(*fence.Gate) grpc.UnaryServerInterceptor
		stream func(*fence.Gate) grpc.StreamServerInterceptor
		guards bool
	}{
		"interceptors": {
			func(g *fence.Gate) grpc.UnaryServerInterceptor {
				return grpcfence.UnaryServerInterceptor(g, grpcfence.Config{})
			},
			func(g *fence.Gate) grpc.StreamServerInterceptor {
				return grpcfence.StreamServerInterceptor(g, grpcfence.Config{})
			}, true,
		},
		"check alone": {
			func(g *fence.Gate) grpc.UnaryServerInterceptor {
				return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
					if err := admits(ctx, g); err != nil {
						return nil, err
					}
					return handle(ctx, req)
				}
			},
			func(g *fence.Gate) grpc.StreamServerInterceptor {
				return func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
					if err := admits(s.Context(), g); err != nil {
						return err
					}
					return handle(srv, s)
				}
			}, false,
		},
	} {
		for _, streams := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, streams: %v", name, streams), func(t *testing.T) {
				t.Parallel()
				gatetest.Orders(t, way.guards, func(gate *fence.Gate, before, inside func(string)) (func(string, fence.Token), func()) {
					return startOrders(t, way.unary(gate), way.stream(gate), streams, before, inside)
				})
			})
		}
	}
}

// startOrders starts a server for an order of steps. A call, or the stream's beginning,
// says whose it is.
func startOrders(t *testing.T, unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor, streams bool, before, inside func(string)) (func(string, fence.Token), func()) {
	of := func(ctx context.Context) string { return metadata.ValueFromIncomingContext(ctx, "who")[0] }
	addr, stop := listen(t, &store{
		write: func(ctx context.Context, _ string) error { inside(of(ctx)); return nil },
		pour:  func(s grpc.ServerStream) error { inside(of(s.Context())); return nil },
	}, grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		before(of(ctx))
		return unary(ctx, req, info, handle)
	}), grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		before(of(s.Context()))
		return stream(srv, s, info, handle)
	}))
	return func(who string, tok fence.Token) {
		cc, ctx := dial(t, addr, tok, true), metadata.AppendToOutgoingContext(t.Context(), "who", who)
		if !streams {
			_ = write(ctx, cc, "row")
		} else if s, err := pour(ctx, cc); err == nil {
			_ = s.RecvMsg(new(wrapperspb.StringValue))
		}
		_ = cc.Close()
	}, stop
}
