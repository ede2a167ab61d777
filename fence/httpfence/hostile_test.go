package httpfence_test

import (
	"bufio"
	"context"
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

// A stuck response is one whose client takes nothing.
type stuck struct {
	*httptest.ResponseRecorder
	entered chan struct{}
	free    chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	close(s.entered)
	<-s.free
	return len(b), nil
}

func TestARefusalThatTheClientDoesNotReadHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest, DrainTimeout: time.Minute})
	require.NoError(t, err)
	defer gate.Close()
	inside := make(chan struct{})
	guard := httpfence.Middleware(gate, httpfence.Config{}, onlyOld(func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done() // and it answers nothing, so that the guard does
	}))
	request := func(tok fence.Token) *http.Request {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set(httpfence.Header, tok.String())
		return r
	}
	old := &stuck{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		guard.ServeHTTP(old, request(token(7, 41)))
	}()
	<-inside
	h.Set(token(8, 42), nil)
	fresh := httptest.NewRecorder()
	guard.ServeHTTP(fresh, request(token(8, 42)))
	require.Equal(t, 200, fresh.Code)
	<-old.entered
	close(old.free)
	<-done
	require.Equal(t, 412, old.Code)
}

func TestARequestThatIsDeliveredTwiceIsRefusedBehindANewerOne(t *testing.T) {
	t.Parallel()
	var served []string
	s := serve(t, fence.GateConfig{}, func(w http.ResponseWriter, r *http.Request) {
		tok, _ := httpfence.Admitted(r.Context())
		served = append(served, tok.String())
		ok(w, r)
	})
	// What a proxy has kept and sends once more, on a connection of its own or on one
	// that the newer holder's requests have used.
	kept := "POST /orders HTTP/1.1\r\nHost: x\r\nFencepost-Token: g7.e41\r\nContent-Length: 3\r\n\r\nrow"
	fresh := strings.Replace(kept, "g7.e41", "g8.e42", 1)
	statuses := func(requests string, n int) (all []int) {
		conn, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, requests)
		require.NoError(t, err)
		for answers := bufio.NewReader(conn); len(all) < n; {
			resp, err := http.ReadResponse(answers, nil)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			all = append(all, resp.StatusCode)
		}
		return all
	}
	require.Equal(t, []int{200, 200}, statuses(kept+kept, 2))
	s.head.Set(token(8, 42), nil)
	require.Equal(t, []int{200, 412, 200, 412}, statuses(fresh+kept+fresh+kept, 4))
	require.Equal(t, []int{412}, statuses(kept, 1))
	require.Equal(t, []string{"g7.e41", "g7.e41", "g8.e42", "g8.e42"}, served)
}

func TestATokenElsewhereThanInItsHeaderIsNone(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, ok)
	for _, request := range []string{
		"POST /orders?Fencepost-Token=g7.e41 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"POST /orders HTTP/1.1\r\nHost: x\r\nCookie: Fencepost-Token=g7.e41\r\nContent-Length: 0\r\n\r\n",
		"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Fencepost-Token\r\n\r\n0\r\nFencepost-Token: g7.e41\r\n\r\n",
		"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nFencepost-Token: g7.e41\r\n\r\n",
		"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 42\r\n\r\nGET / HTTP/1.1\r\nFencepost-Token: g7.e41\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		_, err = io.WriteString(conn, request)
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, 428, resp.StatusCode, "%q", request)
		require.NoError(t, conn.Close())
	}
	resp := s.raw("Fencepost-Token: " + strings.Repeat("g", 900<<10))
	require.Equal(t, 400, resp.StatusCode)
	require.ErrorIs(t, httpfence.ResponseRefusal(resp), fence.ErrMalformed)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, s.raw("Fencepost-Token: "+strings.Repeat("g", 2<<20)).StatusCode, "by the server itself")
}

func TestNoHeaderOfHTTP2BreaksAGuard(t *testing.T) {
	t.Parallel()
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest})
	require.NoError(t, err)
	defer gate.Close()
	srv := httptest.NewUnstartedServer(httpfence.Middleware(gate, httpfence.Config{Logger: slog.New(slog.DiscardHandler)}, http.HandlerFunc(ok)))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	for _, c := range []struct {
		given  []string
		status int
	}{
		{[]string{"g7.e41"}, 200}, {nil, 428}, {[]string{""}, 428}, {[]string{"g7.e41", "g7.e41"}, 400}, {[]string{"", "g7.e41"}, 400}, {[]string{"g7.e41, g7.e41"}, 400},
		{[]string{"g07.e41"}, 400}, {[]string{"\xff\xfe"}, 400}, {[]string{strings.Repeat("g", 200<<10)}, 400}, {[]string{"g9.e99"}, 403},
	} {
		r, err := http.NewRequestWithContext(context.Background(), "POST", srv.URL, nil)
		require.NoError(t, err)
		r.Header[httpfence.Header] = c.given
		resp, err := srv.Client().Do(r)
		require.NoError(t, err)
		require.Equal(t, 2, resp.ProtoMajor)
		require.Equal(t, c.status, resp.StatusCode, "%.40q", c.given)
		require.NoError(t, resp.Body.Close())
	}
}

func TestAnUpgradedConnectionDoesNotEscapeTheGuard(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := http.NewResponseController(w).Hijack(); err != nil { // as libraries for web sockets do
			http.Error(w, err.Error(), http.StatusNotImplemented)
			return
		}
		panic("hijacked")
	})
	resp := s.raw("Fencepost-Token: g7.e41\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
	require.Equal(t, http.StatusNotImplemented, resp.StatusCode)
	resp = s.raw("Upgrade: websocket")
	require.Equal(t, 428, resp.StatusCode)
}

func TestARegisterThatIsResetWhileRequestsRunLetsNothingStaleIn(t *testing.T) {
	t.Parallel()
	w, events := newWard(), make(chan string, 2)
	s := serve(t, fence.GateConfig{DrainTimeout: time.Minute}, func(rw http.ResponseWriter, r *http.Request) {
		if tok, _ := httpfence.Admitted(r.Context()); tok != token(7, 41) {
			events <- "the new one begins"
			return
		}
		w.inside <- struct{}{}
		<-r.Context().Done()
		<-w.deaf
		events <- "the old one ends"
	})
	old := make(chan int, 1)
	go func() { old <- s.post(token(7, 41)).StatusCode }()
	<-w.inside
	s.head.Set(token(8, 42), nil)
	require.NoError(t, s.gate.Reset(t.Context(), "orders"))
	require.Equal(t, 412, s.post(token(7, 41)).StatusCode, "an empty register is verified")
	fresh := make(chan int, 1)
	go func() { fresh <- s.post(token(8, 42)).StatusCode }()
	require.Eventually(t, func() bool { return s.gate.Registers()[0].Draining == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, s.gate.Reset(t.Context(), "orders"))
	close(w.deaf)
	require.Equal(t, "the old one ends", <-events)
	require.Equal(t, 412, <-old)
	require.Equal(t, 200, <-fresh)
}
