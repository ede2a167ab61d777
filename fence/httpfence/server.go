package httpfence

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/internal/wire"
)

// Header is the header that bears the token, such as g7.e41, or what a
// [fence.Signer] makes of it.
const Header = "Fencepost-Token"

// MainResource is the resource of requests whose middleware names none.
const MainResource = "main"

// A Config says how [Middleware] works.
type Config struct {
	// Resource returns the resource that a request works on. It must return
	// names of a set that the server knows: each name takes a register, for good.
	// Two names of one thing are two registers, which don't exclude each other.
	// Default: MainResource for all.
	Resource func(*http.Request) string

	// Logger hears why the gate could not decide. Default: slog.Default.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Resource == nil {
		c.Resource = func(*http.Request) string { return MainResource }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Middleware passes a request on to next while the token on it is the highest of
// its resource, and refuses it otherwise. See the package documentation for what
// that promises and needs. Gate stays the caller's to close, after the server.
func Middleware(gate *fence.Gate, cfg Config, next http.Handler) http.Handler {
	cfg = cfg.withDefaults()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resource := cfg.Resource(r)
		a, err := gate.AdmitText(r.Context(), resource, r.Header[Header])
		if err != nil {
			answer := wire.Of(err, resource, wire.NotApplied)
			cfg.report(r.Context(), answer.Kind, err)
			problemOf(answer).write(w)
			return
		}
		// A handler that gave up without an answer would have its silence sent as 200.
		if stale := serve(w, r, a, gate.DrainTimeout()/2, next); stale != nil {
			problemOf(wire.Of(stale, resource, wire.Unknown)).write(w)
		}
	})
}

// report logs what the client is not told.
func (c Config) report(ctx context.Context, kind wire.Kind, err error) {
	if statuses[kind] >= http.StatusInternalServerError {
		c.Logger.WarnContext(ctx, "a guarded request was not let through", "err", err)
	}
}

// serve runs the handler of a request that was admitted, and releases the admission:
// a client that does not read what comes after holds nobody up. Grace is the time that it
// has to answer after a newer token has come. It reports why the request was cut
// off without an answer, or nil.
func serve(w http.ResponseWriter, r *http.Request, a *fence.Admission, grace time.Duration, next http.Handler) error {
	defer a.Release()
	guarded := newResponse(w)
	cut := make(chan struct{})
	stop := a.OnStale(func() {
		defer close(cut)
		guarded.cut(time.Now().Add(grace))
	})
	defer func() {
		if !stop() {
			<-cut
			guarded.uncut()
		}
	}()
	next.ServeHTTP(guarded, r.WithContext(context.WithValue(a.Context(), tokenKey{}, a.Token())))
	if guarded.answered() {
		return nil
	}
	return a.Stale()
}

type tokenKey struct{}

// Admitted returns the token under which the request of ctx was admitted by
// [Middleware], such as to put it on a request to another server.
func Admitted(ctx context.Context) (fence.Token, bool) {
	t, ok := ctx.Value(tokenKey{}).(fence.Token)
	return t, ok
}
