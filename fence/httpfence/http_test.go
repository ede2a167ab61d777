package httpfence_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/httpfence"
	"github.com/fencepost/fencepost/fence/internal/gatetest"
	"github.com/fencepost/fencepost/generation"
)

func token(g generation.Generation, e epoch.Epoch) fence.Token {
	return fence.Token{Generation: g, Epoch: e}
}

// A guarded is a real server behind a gate.
type guarded struct {
	t    testing.TB
	head *gatetest.Head
	gate *fence.Gate
	url  string
	addr string
}

func serve(t testing.TB, cfg fence.GateConfig, h http.HandlerFunc) *guarded {
	t.Helper()
	s := &guarded{t: t, head: gatetest.NewHead()}
	cfg.Newest = s.head.Newest
	var err error
	s.gate, err = fence.NewGate(cfg)
	require.NoError(t, err)
	byPath := func(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, "/") }
	srv := httptest.NewServer(httpfence.Middleware(s.gate, httpfence.Config{Resource: byPath, Logger: slog.New(slog.DiscardHandler)}, h))
	s.url, s.addr = srv.URL+"/orders", srv.Listener.Addr().String()
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, s.gate.Close())
	})
	return s
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }

// client sends tok with each request.
func (s *guarded) client(tok fence.Token, refusals bool) *http.Client {
	base := &http.Transport{}
	s.t.Cleanup(base.CloseIdleConnections)
	return &http.Client{Transport: &httpfence.Transport{Base: base, Token: func() fence.Token { return tok }, Refusals: refusals}}
}

func (s *guarded) post(tok fence.Token) *http.Response {
	s.t.Helper()
	resp, err := s.client(tok, false).Post(s.url, "text/plain", strings.NewReader("row"))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAStaleTokenIsRefusedWith412AndWhoLeads(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, ok)
	require.Equal(t, 200, s.post(token(7, 41)).StatusCode)
	s.head.Set(token(8, 42), nil)
	require.Equal(t, 200, s.post(token(8, 42)).StatusCode)
	resp := s.post(token(7, 41))
	require.Equal(t, 412, resp.StatusCode)
	require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
	want := &fence.Error{Held: token(7, 41), Current: token(8, 42), By: gatetest.Someone(), Guard: "http orders"}
	require.Equal(t, want, httpfence.ResponseRefusal(resp))
	require.Equal(t, want, httpfence.ResponseRefusal(resp), "the body can be read again")
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"urn:fencepost:guard:stale","title":"a newer token was seen: stop writing","status":412,"resource":"orders",
		"held":"g7.e41","current":"g8.e42","holder":{"name":"db-2","address":"10.0.0.2:8443","build":"","since":"0001-01-01T00:00:00Z"},
		"outcome":"not applied"}`, string(body))
	_, err = s.client(token(7, 41), true).Post(s.url, "text/plain", nil)
	require.Equal(t, want, httpfence.Refusal(fmt.Errorf("write: %w", err)))
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
	require.NotErrorIs(t, err, fence.ErrSuperseded)
}

func TestTheHeadOfTheCatalogSaysWhetherARefusedClientIsSuperseded(t *testing.T) {
	t.Parallel()
	store := memory.New()
	holder := func(g generation.Generation) *catalog.Catalog {
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: g, Holder: fence.Holder{Name: fmt.Sprint("release ", g)}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	gate, err := fence.NewGate(fence.GateConfig{Newest: catalog.NewestToken(store, catalog.Config{})})
	require.NoError(t, err)
	defer gate.Close()
	srv := httptest.NewServer(httpfence.Middleware(gate, httpfence.Config{}, http.HandlerFunc(ok)))
	defer srv.Close()
	write := func(c *catalog.Catalog) error {
		base := &http.Transport{DisableKeepAlives: true}
		client := &http.Client{Transport: &httpfence.Transport{Base: base, Token: c.Token, Refusals: true}}
		resp, err := client.Post(srv.URL, "text/plain", nil)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	blue := holder(1)
	require.NoError(t, write(blue))
	green := holder(2)
	require.NoError(t, write(green))
	err = write(blue)
	require.ErrorIs(t, err, fence.ErrFenced)
	require.NotErrorIs(t, err, fence.ErrSuperseded)
	require.ErrorContains(t, err, "release 2")
	err = blue.Explain(t.Context(), err)
	require.ErrorIs(t, err, fence.ErrSuperseded)
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
}

func TestWhatIsNoTokenIsRefusedForWhatItIs(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, ok)
	require.Equal(t, 200, s.post(token(7, 41)).StatusCode)
	cases := map[string]struct {
		status int
		why    error
	}{
		"":                                                           {428, fence.ErrMissing},
		"Fencepost-Token:":                                           {428, fence.ErrMissing},
		"X-Fencepost-Token: g7.e41":                                  {428, fence.ErrMissing},
		"Fencepost_Token: g7.e41":                                    {428, fence.ErrMissing},
		"Fencepost-Token: x":                                         {400, fence.ErrMalformed},
		"Fencepost-Token: G7.E41":                                    {400, fence.ErrMalformed},
		"Fencepost-Token: g7.e41 x":                                  {400, fence.ErrMalformed},
		"Fencepost-Token: g07.e41":                                   {400, fence.ErrMalformed},
		"Fencepost-Token: g7.\te41":                                  {400, fence.ErrMalformed},
		"Fencepost-Token: g7.e41,":                                   {400, fence.ErrMalformed},
		"Fencepost-Token: g7.e４1":                                    {400, fence.ErrMalformed},
		"Fencepost-Token: \xff\xfe":                                  {400, fence.ErrMalformed},
		"Fencepost-Token: \"g7.e41\"":                                {400, fence.ErrMalformed},
		"Fencepost-Token: g7.e41, g7.e41":                            {400, fence.ErrMalformed},
		"Fencepost-Token: g7.e41\r\nFencepost-Token: g7.e41":         {400, fence.ErrMalformed},
		"Fencepost-Token: g7.e41\r\nfencepost-token: g9.e99":         {400, fence.ErrMalformed},
		"Fencepost-Token:\r\nFencepost-Token: g7.e41":                {400, fence.ErrMalformed},
		"Fencepost-Token: g9223372036854775808.e1":                   {400, fence.ErrMalformed},
		"Fencepost-Token: " + strings.Repeat("g", 100000):            {400, fence.ErrMalformed},
		"Fencepost-Token: " + strings.Repeat("0", 40) + "g7.e41":     {400, fence.ErrMalformed},
		"Fencepost-Token: g0.e0":                                     {403, fence.ErrNeverIssued},
		"Fencepost-Token: g9.e99":                                    {403, fence.ErrNeverIssued},
		"Fencepost-Token: g9223372036854775807.e9223372036854775807": {403, fence.ErrNeverIssued},
		"Fencepost-Token: g6.e99":                                    {403, fence.ErrNeverIssued},
	}
	for header, want := range cases {
		resp := s.raw(header)
		require.Equal(t, want.status, resp.StatusCode, "%.100q", header)
		err := httpfence.ResponseRefusal(resp)
		var refused *fence.TokenError
		require.ErrorAs(t, err, &refused, "%.100q", header)
		require.ErrorIs(t, err, want.why)
		require.NotErrorIs(t, err, fence.ErrFenced)
		require.Equal(t, "http orders", refused.Guard)
		require.LessOrEqual(t, len(refused.Token), 64)
		require.Less(t, len(err.Error()), 400)
		require.Equal(t, exitcodes.None, exitcodes.Of(err))
	}
	require.Equal(t, 200, s.raw("fencepost-token:   g7.e41\t ").StatusCode, "white space around a value is no part of it")
	folded := s.raw("Fencepost-Token: g7.\r\n e41")
	require.Equal(t, 400, folded.StatusCode)
	require.Equal(t, 200, s.post(token(7, 41)).StatusCode)
}

// raw sends a request whose headers are written by hand.
func (s *guarded) raw(header string) *http.Response {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	defer conn.Close()
	if header != "" {
		header += "\r\n"
	}
	_, err = io.WriteString(conn, "POST /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n"+header+"\r\n")
	require.NoError(s.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(s.t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	return resp
}

func FuzzNoHeaderBreaksAGuard(f *testing.F) {
	for _, seed := range []string{"", "g7.e41", "g8.e42", "g7.e41,g7.e41", "x", "g07.e1", "\xff", "g6.e99", strings.Repeat("g", 100)} {
		f.Add(seed, "", false)
		f.Add("g7.e41", seed, true)
	}
	h := gatetest.NewHead()
	gate, err := fence.NewGate(fence.GateConfig{Newest: h.Newest, ReadTimeout: time.Minute})
	require.NoError(f, err)
	f.Cleanup(func() { _ = gate.Close() })
	passed := false
	guard := httpfence.Middleware(gate, httpfence.Config{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true }))
	f.Fuzz(func(t *testing.T, first, second string, two bool) {
		passed = false
		r := httptest.NewRequest("POST", "/", nil)
		r.Header[httpfence.Header] = []string{first}
		if two {
			r.Header[httpfence.Header] = []string{first, second}
		}
		w := httptest.NewRecorder()
		guard.ServeHTTP(w, r)
		require.Equal(t, !two && first == "g7.e41", passed)
		if !passed {
			require.Contains(t, []int{400, 403, 412, 428}, w.Code)
			require.Less(t, w.Body.Len(), 8<<10)
			require.Error(t, httpfence.ResponseRefusal(w.Result()))
		}
	})
}

func TestAnUndecidedGuardSays503AndWhenToTryAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{MaxResources: 1}, ok)
	s.head.Set(fence.Token{}, fmt.Errorf("dial 10.9.8.7: %w", fence.ErrFenced))
	resp := s.post(token(7, 41))
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, "1", resp.Header.Get("Retry-After"))
	err := httpfence.ResponseRefusal(resp)
	require.ErrorIs(t, err, fence.ErrUnverified)
	require.NotErrorIs(t, err, fence.ErrFenced)
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NotContains(t, string(body), "10.9.8.7", "what the store says is for the log")
	s.head.Set(token(7, 41), nil)
	require.Equal(t, 200, s.post(token(7, 41)).StatusCode)
	s.url = strings.Replace(s.url, "orders", "stock", 1)
	resp = s.post(token(7, 41))
	require.Equal(t, 507, resp.StatusCode)
	require.ErrorIs(t, httpfence.ResponseRefusal(resp), fence.ErrTooManyResources)
	s.url = strings.Replace(s.url, "stock", "%0A", 1)
	resp = s.post(token(7, 41))
	require.Equal(t, 400, resp.StatusCode)
	require.ErrorIs(t, httpfence.ResponseRefusal(resp), fence.ErrResource)
}

// TestAGuardThatStoppedWaitingHasRefusedNoToken has the wait end because another guard
// refused the request's caller.
func TestAGuardThatStoppedWaitingHasRefusedNoToken(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{DrainTimeout: time.Hour}, ok)
	inside, err := s.gate.Admit(t.Context(), "main", token(7, 41))
	require.NoError(t, err)
	s.head.Set(token(8, 42), nil)
	admitted := make(chan error, 1)
	go func() {
		next, err := s.gate.Admit(t.Context(), "main", token(8, 42))
		if err == nil {
			next.Release()
		}
		admitted <- err
	}()
	require.Eventually(t, func() bool { return s.gate.Registers()[0].Draining == 1 }, time.Minute, time.Millisecond)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&fence.Error{Held: token(8, 42), Current: token(9, 43), Guard: "postgres catalog main"})
	r := httptest.NewRequest(http.MethodPost, "/", nil).WithContext(ctx)
	r.Header.Set(httpfence.Header, "g8.e42")
	w := httptest.NewRecorder()
	httpfence.Middleware(s.gate, httpfence.Config{Logger: slog.New(slog.DiscardHandler)}, http.HandlerFunc(ok)).ServeHTTP(w, r)
	require.Equal(t, 503, w.Code)
	require.Contains(t, w.Body.String(), "guard:draining")
	inside.Release()
	require.NoError(t, <-admitted)
}

func TestAnAnswerOfAnotherServerIsNoRefusal(t *testing.T) {
	t.Parallel()
	stale := `{"type":"urn:fencepost:guard:stale","status":412,"held":"g7.e41","current":"g8.e42"}`
	for _, c := range []struct {
		status     int
		kind, body string
	}{
		{412, "application/json", stale}, {412, "", stale}, {409, "application/problem+json", stale},
		{412, "application/problem+json", `{"type":"about:blank","status":412}`}, {412, "application/problem+json", "x"},
		{412, "application/problem+json", `{"type":"urn:fencepost:guard:new"}`}, {412, "application/problem+json", ""},
		{412, "application/problem+json", strings.Replace(stale, "g8", "g6", 1)},
		{412, "application/problem+json", strings.Replace(stale, "g8.e42", "none", 1)},
		{412, "application/problem+json", strings.Replace(stale, "{", "{"+strings.Repeat(" ", 9000), 1)},
	} {
		resp := &http.Response{StatusCode: c.status, Header: http.Header{"Content-Type": {c.kind}}, Body: io.NopCloser(strings.NewReader(c.body))}
		require.NoError(t, httpfence.ResponseRefusal(resp), "%v", c)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, c.body, string(body))
	}
	require.NoError(t, httpfence.Refusal(nil))
	require.NoError(t, httpfence.Refusal(errors.New("x")))
	require.NoError(t, httpfence.Refusal(fence.Check(token(1, 1), token(2, 2), gatetest.Someone())), "the head's own word is no hint")
}

func TestWhatAServerSaysOfAHolderIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 500)
	body := fmt.Sprintf(`{"type":"urn:fencepost:guard:stale","status":412,"held":"g7.e41","current":"g8.e42","holder":{"name":%[1]q,"address":%[1]q,"build":%[1]q}}`, long)
	err := httpfence.ResponseRefusal(&http.Response{StatusCode: 412, Header: http.Header{"Content-Type": {"application/problem+json"}}, Body: io.NopCloser(strings.NewReader(body))})
	var stale *fence.Error
	require.ErrorAs(t, err, &stale)
	for _, text := range []string{stale.By.Name, stale.By.Address, stale.By.Build} {
		require.Equal(t, strings.Repeat("é", 128), text)
	}
}

func FuzzNoAnswerBreaksAClient(f *testing.F) {
	for _, kind := range []string{"stale", "missing", "never-issued", "unverified", "resource", "x"} {
		f.Add(412, `{"type":"urn:fencepost:guard:`+kind+`","held":"g7.e41","current":"g8.e42","resource":"orders","holder":{"name":"db-2"}}`)
	}
	f.Fuzz(func(t *testing.T, code int, body string) {
		resp := &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/problem+json"}}, Body: io.NopCloser(strings.NewReader(body))}
		err := httpfence.ResponseRefusal(resp)
		again, readErr := io.ReadAll(resp.Body)
		require.NoError(t, readErr)
		require.Equal(t, body, string(again))
		if err != nil {
			require.NotErrorIs(t, err, fence.ErrSuperseded)
			require.NotEqual(t, exitcodes.GracefulExit, exitcodes.Of(err))
			require.Less(t, len(err.Error()), 4000)
		}
	})
}

func TestAClientDoesNotOverwriteATokenAndSendsNoneItHasNot(t *testing.T) {
	t.Parallel()
	s := serve(t, fence.GateConfig{}, ok)
	for _, name := range []string{httpfence.Header, "fencepost-token"} {
		body := &closing{Reader: strings.NewReader("row")}
		r, err := http.NewRequest("POST", s.url, body)
		require.NoError(t, err)
		r.Header[name] = []string{"g7.e41"}
		_, err = s.client(token(7, 41), false).Do(r)
		require.ErrorIs(t, err, httpfence.ErrTokenSet)
		require.True(t, body.closed)
	}
	_, err := s.client(fence.Token{}, false).Get(s.url)
	require.ErrorIs(t, err, fence.ErrMissing)
	_, err = s.client(token(generation.Max+1, 1), false).Get(s.url)
	require.ErrorIs(t, err, generation.ErrOverflow)
	r, err := http.NewRequest("POST", s.url, nil)
	require.NoError(t, err)
	resp, err := s.client(token(7, 41), false).Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Empty(t, r.Header, "the caller's request is unchanged")
}

func TestEachRequestOfAClientHasTheTokenOfItsMoment(t *testing.T) {
	t.Parallel()
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, strings.Join(r.Header.Values(httpfence.Header), "+"))
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/further", http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	held := token(7, 41)
	base := &http.Transport{}
	client := &http.Client{Transport: &httpfence.Transport{Base: base, Token: func() fence.Token { held.Epoch++; return held }}}
	resp, err := client.Post(srv.URL, "text/plain", strings.NewReader("row"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	client.CloseIdleConnections()
	require.Equal(t, []string{"g7.e42", "g7.e43"}, seen, "one to each, redirected or not")
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }
