package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/leader/internal/admin"
)

// A played is a Process that notes what it is asked for, and fails with fails.
type played struct {
	orders  []admin.Order
	prefers []bool
	health  admin.Health
	fails   error
}

var errRefused = errors.New("refused")

func (p *played) handler() http.Handler {
	order := func(_ context.Context, o admin.Order) (string, error) {
		p.orders = append(p.orders, o)
		return "intent", p.fails
	}
	return admin.Handler(admin.Process[string, string]{
		Generation: 2,
		Status:     func() string { return "status" },
		Health:     func(string) admin.Health { return p.health },
		Promote:    order,
		Abort:      order,
		StepDown:   func(ctx context.Context, o admin.Order) error { _, err := order(ctx, o); return err },
		Prefer:     func(not bool) { p.prefers = append(p.prefers, not) },
		Refused:    func(err error) bool { return errors.Is(err, errRefused) },
	}, func(mux *http.ServeMux) {
		mux.HandleFunc("GET /more", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	})
}

// ask sends one request of this host, and returns the answer.
func (p *played) ask(t *testing.T, method, target, body string, change ...func(*http.Request)) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+target, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:1"
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	p.handler().ServeHTTP(w, r)
	var got map[string]any
	if strings.HasPrefix(strings.TrimSpace(w.Body.String()), "{") {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	}
	return w.Code, got
}

func TestAnOrderIsReadFromTheBodyOrTheURL(t *testing.T) {
	t.Parallel()
	want := admin.Order{Generation: 2, Reason: "a new release", Force: true}
	for _, path := range []string{"/api/leader/promote", "/api/leader/abort"} {
		for query, body := range map[string]string{
			"": `{"generation":2,"reason":"a new release","force":true,"of a later build":1}`,
			"?generation=2&reason=a+new+release&force=true": "",
		} {
			var p played
			code, got := p.ask(t, http.MethodPost, path+query, body)
			require.Less(t, code, 300, got)
			require.Equal(t, map[string]any{"intent": "intent", "status": "status"}, got)
			require.Equal(t, []admin.Order{want}, p.orders)
		}
	}
	var p played
	code, _ := p.ask(t, http.MethodPost, "/api/leader/step-down", `{"reason":"a new release","force":true}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, []admin.Order{{Reason: "a new release", Force: true}}, p.orders)
	code, _ = p.ask(t, http.MethodPost, "/api/leader/preference", `{"prefer_not_to_lead":true}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, []bool{true}, p.prefers)
}

func TestWhatIsNotUnderstoodReachesNobody(t *testing.T) {
	t.Parallel()
	var p played
	for _, c := range [][2]string{
		{"/api/leader/promote", ""}, {"/api/leader/promote", "{}"}, {"/api/leader/promote", `{"generation":-1}`},
		{"/api/leader/promote?generation=", `{"generation":2}`}, {"/api/leader/promote?generation=2&force=perhaps", ""},
		{"/api/leader/abort", strings.Repeat(" ", 5000) + `{"generation":2}`}, {"/api/leader/step-down", "x"},
		{"/api/leader/preference", `{}`}, {"/api/leader/preference", `{"prefer_not_to_lead":1}`},
	} {
		code, got := p.ask(t, http.MethodPost, c[0], c[1])
		require.Equal(t, http.StatusBadRequest, code, c)
		require.NotEmpty(t, got["error"])
		require.Less(t, len(got["error"].(string)), 300)
	}
	require.Empty(t, p.orders)
	require.Empty(t, p.prefers)
}

func TestAnErrorIsAnsweredByWhatItMeans(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path  string
		fails error
		code  int
	}{
		{"/api/leader/promote", errRefused, http.StatusConflict},
		{"/api/leader/promote", errors.New("the store is away"), http.StatusServiceUnavailable},
		{"/api/leader/abort", errRefused, http.StatusConflict},
		{"/api/leader/abort", errors.New("the store is away"), http.StatusServiceUnavailable},
		{"/api/leader/step-down", errors.New("nobody is there"), http.StatusConflict},
	} {
		p := played{fails: c.fails}
		code, got := p.ask(t, http.MethodPost, c.path, `{"generation":2}`)
		require.Equal(t, c.code, code, c)
		require.Equal(t, map[string]any{"error": c.fails.Error()}, got)
	}
	var p played
	code, got := p.ask(t, http.MethodPost, "/api/leader/promote", `{"generation":3}`)
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, got["error"], "ask one of its processes")
	require.Empty(t, p.orders)
}

func TestThreeKindsOfHealthAreApart(t *testing.T) {
	t.Parallel()
	for path, health := range map[string]admin.Health{
		"/livez": {Alive: true}, "/readyz/standby": {Standby: true}, "/readyz/leader": {Leader: true},
	} {
		p := played{health: health}
		for other := range map[string]bool{"/livez": true, "/readyz/standby": true, "/readyz/leader": true} {
			code, _ := p.ask(t, http.MethodGet, other, "")
			require.Equal(t, map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[other == path], code)
		}
	}
}

func TestEveryRouteRefusesWhoeverIsNotOfThisHost(t *testing.T) {
	t.Parallel()
	var p played
	for _, target := range []string{
		"GET /api/leader/status", "POST /api/leader/promote?generation=2", "POST /api/leader/abort?generation=2",
		"POST /api/leader/step-down", "POST /api/leader/preference", "GET /livez", "GET /readyz/standby", "GET /readyz/leader", "GET /more",
	} {
		method, path, _ := strings.Cut(target, " ")
		for name, change := range map[string]func(*http.Request){
			"of another host":              func(r *http.Request) { r.RemoteAddr = "10.0.0.1:1" },
			"for a name of another site":   func(r *http.Request) { r.Host = "attacker.example" },
			"by a browser on another site": func(r *http.Request) { r.Header.Set("Origin", "https://attacker.example") },
		} {
			if code, _ := p.ask(t, method, path, `{"generation":2}`, change); code != http.StatusForbidden {
				require.Equal(t, http.MethodGet, method, target)
				require.Equal(t, "by a browser on another site", name, target) // which can't read what it gets
			}
		}
	}
	require.Empty(t, p.orders)
	code, _ := p.ask(t, http.MethodGet, "/more", "")
	require.Equal(t, http.StatusTeapot, code)
	code, _ = p.ask(t, http.MethodGet, "/api/leader/promote?generation=2", "")
	require.Equal(t, http.StatusMethodNotAllowed, code)
}
