package httpfence_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/httpfence"
	"github.com/fencepost/fencepost/fence/internal/gatetest"
)

// A ward is a handler of which a test sees what happens to it.
type ward struct {
	inside chan struct{}
	end    chan error
	deaf   chan struct{} // closed: it may return
}

func newWard() *ward {
	return &ward{inside: make(chan struct{}, 8), end: make(chan error, 8), deaf: make(chan struct{})}
}

// onlyOld has the handler play for requests of g7.e41, and answer others at once.
func onlyOld(play http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if t, _ := httpfence.Admitted(r.Context()); t != token(7, 41) {
			ok(w, r)
			return
		}
		play(w, r)
	}
}

// behind claims g8.e42 and requires that its request is let through, in time.
func (s *guarded) behind() {
	s.t.Helper()
	s.head.Set(token(8, 42), nil)
	require.Equal(s.t, 200, s.post(token(8, 42)).StatusCode)
}

// dial sends the beginning of a request of g7.e41, and nothing more.
func (s *guarded) dial(text string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, strings.ReplaceAll(text, "TOKEN", "Fencepost-Token: g7.e41\r\nHost: x"))
	require.NoError(s.t, err)
	return conn
}

func TestAClientThatStopsInTheMiddleOfItsBodyHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWard()
	s := serve(t, fence.GateConfig{DrainTimeout: time.Minute}, onlyOld(func(_ http.ResponseWriter, r *http.Request) {
		w.inside <- struct{}{}
		_, err := io.ReadAll(r.Body)
		w.end <- err
	}))
	conn := s.dial("POST /orders HTTP/1.1\r\nTOKEN\r\nContent-Length: 100\r\n\r\npart of it")
	<-w.inside
	s.behind()
	require.Error(t, <-w.end)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "412 Precondition Failed")
	require.Contains(t, string(answer), `"outcome":"unknown"`, "its handler had begun")
}

func TestAClientThatDoesNotReadItsAnswerHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWard()
	s := serve(t, fence.GateConfig{DrainTimeout: 400 * time.Millisecond}, onlyOld(func(rw http.ResponseWriter, _ *http.Request) {
		w.inside <- struct{}{}
		var err error
		for row := bytes.Repeat([]byte("row"), 1<<16); err == nil; {
			_, err = rw.Write(row)
		}
		w.end <- err
	}))
	s.dial("GET /orders HTTP/1.1\r\nTOKEN\r\n\r\n")
	<-w.inside
	s.head.Set(token(8, 42), nil)
	require.Eventually(t, func() bool { return s.post(token(8, 42)).StatusCode == 200 }, time.Minute, time.Millisecond)
	require.Error(t, <-w.end)
}

func TestAClientThatStopsHoldsNobodyUpOverHTTP2(t *testing.T) {
	t.Parallel()
	w := newWard()
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest, DrainTimeout: time.Minute})
	require.NoError(t, err)
	defer gate.Close()
	srv := httptest.NewUnstartedServer(httpfence.Middleware(gate, httpfence.Config{}, onlyOld(func(rw http.ResponseWriter, r *http.Request) {
		rw.(http.Flusher).Flush()
		w.inside <- struct{}{}
		_, err := io.ReadAll(r.Body)
		w.end <- err
	})))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	post := func(tok fence.Token, body io.Reader) *http.Response {
		client := &http.Client{Transport: &httpfence.Transport{Base: srv.Client().Transport, Token: func() fence.Token { return tok }}}
		resp, err := client.Post(srv.URL, "text/plain", body)
		require.NoError(t, err)
		require.Equal(t, 2, resp.ProtoMajor)
		return resp
	}
	stopped, more := io.Pipe()
	defer more.Close()
	resp := post(token(7, 41), stopped)
	defer resp.Body.Close()
	<-w.inside
	h.Set(token(8, 42), nil)
	fresh := post(token(8, 42), nil)
	require.Equal(t, 200, fresh.StatusCode)
	require.NoError(t, fresh.Body.Close())
	require.Error(t, <-w.end)
}

func TestAHandlerThatDoesNotEndKeepsTheNewerOutForABoundOnly(t *testing.T) {
	t.Parallel()
	w := newWard()
	s := serve(t, fence.GateConfig{DrainTimeout: 20 * time.Millisecond}, onlyOld(func(_ http.ResponseWriter, r *http.Request) {
		w.inside <- struct{}{}
		<-w.deaf
		w.end <- context.Cause(r.Context())
	}))
	old := make(chan *http.Response, 1)
	go func() { old <- s.post(token(7, 41)) }()
	<-w.inside
	s.head.Set(token(8, 42), nil)
	for range 2 {
		resp := s.post(token(8, 42))
		require.Equal(t, 503, resp.StatusCode)
		require.ErrorIs(t, httpfence.ResponseRefusal(resp), fence.ErrDraining)
		require.Equal(t, 412, s.post(token(7, 41)).StatusCode, "no further request of the older one")
	}
	close(w.deaf)
	require.ErrorIs(t, <-w.end, fence.ErrFenced)
	require.Equal(t, 412, (<-old).StatusCode)
	require.Equal(t, 200, s.post(token(8, 42)).StatusCode)
}

func TestAnAnswerOfAHandlerThatWasCutOffIsSentAsItIs(t *testing.T) {
	t.Parallel()
	w := newWard()
	s := serve(t, fence.GateConfig{}, onlyOld(func(rw http.ResponseWriter, r *http.Request) {
		w.inside <- struct{}{}
		<-r.Context().Done()
		rw.Header().Set("Etag", "x")
		rw.WriteHeader(http.StatusAccepted) // what it wrote was written before the newer token was let through
	}))
	client := s.client(token(7, 41), false)
	got := make(chan int, 1)
	go func() {
		resp, err := client.Post(s.url, "text/plain", nil)
		if err == nil {
			_ = resp.Body.Close()
			got <- resp.StatusCode
		}
	}()
	<-w.inside
	s.behind()
	require.Equal(t, http.StatusAccepted, <-got)
	resp, err := client.Post(s.url, "text/plain", nil) // on the same connection
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 412, resp.StatusCode)
}

func TestAHandlerCanNotOutliveItsAdmission(t *testing.T) {
	t.Parallel()
	w := newWard()
	s := serve(t, fence.GateConfig{}, onlyOld(func(rw http.ResponseWriter, r *http.Request) {
		_, hijacks := rw.(http.Hijacker)
		_, _, err := http.NewResponseController(rw).Hijack()
		if hijacks || !errors.Is(err, http.ErrNotSupported) {
			w.end <- errors.New("the connection can be hijacked")
		}
		control := http.NewResponseController(rw)
		before := control.SetReadDeadline(time.Now().Add(time.Hour))
		w.inside <- struct{}{}
		<-r.Context().Done()
		for {
			if after := control.SetReadDeadline(time.Now().Add(time.Hour)); after != nil {
				w.end <- errors.Join(before, control.SetWriteDeadline(time.Time{}))
				panic(http.ErrAbortHandler)
			}
		}
	}))
	s.dial("GET /orders HTTP/1.1\r\nTOKEN\r\n\r\n")
	<-w.inside
	s.behind()
	require.ErrorIs(t, <-w.end, http.ErrNotSupported, "it can't take the deadline back")
	require.Zero(t, s.gate.Registers()[0].Inside, "a handler that panics is released")
}

func TestARequestWhoseOwnTimeIsOverIsCutOffAsWell(t *testing.T) {
	t.Parallel()
	w := newWard()
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest, DrainTimeout: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, gate.Close()) })
	inner := httpfence.Middleware(gate, httpfence.Config{}, onlyOld(func(_ http.ResponseWriter, r *http.Request) {
		w.inside <- struct{}{}
		_, err := io.ReadAll(r.Body)
		w.end <- err
	}))
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		if r.ContentLength == 100 {
			r = r.WithContext(ctx)
		}
		inner.ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	s := &guarded{t: t, head: h, addr: srv.Listener.Addr().String(), url: srv.URL}
	first, err := gate.Admit(t.Context(), httpfence.MainResource, token(7, 41))
	require.NoError(t, err)
	first.Release()
	s.dial("POST / HTTP/1.1\r\nTOKEN\r\nContent-Length: 100\r\n\r\npart of it")
	<-w.inside
	s.behind()
	require.Error(t, <-w.end)
}

func BenchmarkTheMiddleware(b *testing.B) {
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest})
	require.NoError(b, err)
	defer gate.Close()
	plain := http.HandlerFunc(ok)
	guarded := httpfence.Middleware(gate, httpfence.Config{Logger: slog.New(slog.DiscardHandler)}, plain)
	for name, handler := range map[string]http.Handler{"without": plain, "guarded": guarded} {
		b.Run("over the loopback, "+name, func(b *testing.B) {
			srv := httptest.NewServer(handler)
			defer srv.Close()
			base := &http.Transport{MaxIdleConnsPerHost: 64}
			defer base.CloseIdleConnections()
			client := &http.Client{Transport: &httpfence.Transport{Base: base, Token: func() fence.Token { return token(7, 41) }}}
			b.SetParallelism(16) // 32 clients on two cores
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					resp, err := client.Get(srv.URL)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		})
		b.Run("the handler alone, "+name, func(b *testing.B) {
			for b.Loop() {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set(httpfence.Header, "g7.e41")
				handler.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}
