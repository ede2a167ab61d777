package leader_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// request asks the admin API of p.
func request(t *testing.T, p *process, method, path, host, body string) (int, map[string]any) {
	t.Helper()
	return ask(t, p.Status().Admin, method, path, host, body)
}

// ask asks whatever listens at address.
func ask(t *testing.T, address, method, path, host, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
	require.NoError(t, err)
	if host != "" {
		req.Host = host
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	var got map[string]any
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		require.NoError(t, json.NewDecoder(res.Body).Decode(&got))
	}
	return res.StatusCode, got
}

func TestAProcessWhoseWorkDoesNotAnswerYetLeadsAndIsNotReadyAsLeader(t *testing.T) {
	t.Parallel()
	cfg, warm := config(1), make(chan struct{})
	cfg.Admin = "127.0.0.1:0"
	p := run(t, memory.New(), cfg, func(ctx context.Context, term *leader.Term) error {
		<-warm
		term.NotServing("the cache is cold")
		<-warm
		term.Serving()
		<-ctx.Done()
		return nil
	})
	require.Eventually(t, func() bool { return p.Status().Phase == leader.Leading }, time.Minute, time.Millisecond)
	require.Equal(t, "leads, not serving: the work has not said yet that it serves", p.Status().Reason)
	warm <- struct{}{}
	require.Eventually(t, func() bool { return strings.Contains(p.Status().Reason, "cold") }, time.Minute, time.Millisecond)
	code, s := request(t, p, http.MethodGet, "/api/leader/status", "", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, false, s["serving"])
	require.Equal(t, "leads, not serving: the cache is cold", s["reason"])
	require.Equal(t, "g1.e1", s["token"])
	health := func() (codes [2]int) {
		codes[0], _ = request(t, p, http.MethodGet, "/readyz/standby", "", "")
		codes[1], _ = request(t, p, http.MethodGet, "/readyz/leader", "", "")
		return codes
	}
	require.Equal(t, [2]int{200, 503}, health())
	warm <- struct{}{}
	require.Eventually(t, func() bool { return health() == [2]int{200, 200} }, time.Minute, time.Millisecond)
	require.True(t, p.Status().Serving)
	require.NoError(t, p.end(t))
}

func TestTheAdminAPIShowsHealthApartAndPromotes(t *testing.T) {
	t.Parallel()
	store := memory.New()
	admin := func(g generation.Generation) leader.Config {
		cfg := config(g)
		cfg.Admin = "127.0.0.1:0"
		return cfg
	}
	reach := func(p *process, phase leader.Phase) {
		require.Eventually(t, func() bool { return p.Status().Phase == phase }, time.Minute, time.Millisecond)
	}
	health := func(p *process) (codes [3]int) {
		for i, path := range []string{"/livez", "/readyz/standby", "/readyz/leader"} {
			codes[i], _ = request(t, p, http.MethodGet, path, "", "")
		}
		return codes
	}
	blue := start(t, store, admin(1))
	reach(blue, leader.Leading)
	require.Equal(t, [3]int{200, 200, 200}, health(blue))
	green := start(t, store, admin(2))
	reach(green, leader.ReadyToPromote)
	require.Equal(t, [3]int{200, 200, 503}, health(green))

	_, s := request(t, green, http.MethodGet, "/api/leader/status", "", "")
	require.Equal(t, "ReadyToPromote", s["phase"])
	require.Nil(t, s["token"])
	require.Equal(t, "g1.e1", s["leader"].(map[string]any)["token"])

	code, e := request(t, green, http.MethodPost, "/api/leader/promote", "", `{"generation":3}`)
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, e["error"], "this process is of generation 2, and generation 3 is to be promoted")
	for _, body := range []string{"", "{}", `{"generation":0}`, `{"generation":-1}`, strings.Repeat("x", 5000)} {
		code, _ = request(t, green, http.MethodPost, "/api/leader/promote", "", body)
		require.Equal(t, http.StatusBadRequest, code, "body %.20q", body)
	}
	code, _ = request(t, green, http.MethodGet, "/api/leader/promote", "", "")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	code, _ = request(t, green, http.MethodPost, "/api/leader/promote", "attacker.example", `{"generation":2}`)
	require.Equal(t, http.StatusForbidden, code)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+green.Status().Admin+"/api/leader/promote?generation=2", nil)
	require.NoError(t, err)
	req.Header.Set("Origin", "https://attacker.example") // as a page in this host's browser would
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	require.Equal(t, leader.ReadyToPromote, green.Status().Phase)

	code, _ = request(t, green, http.MethodPost, "/api/leader/promote", "", `{"generation":2}`)
	require.Equal(t, http.StatusAccepted, code)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	reach(green, leader.Leading)
	code, _ = request(t, green, http.MethodPost, "/api/leader/promote", "", `{"generation":2}`)
	require.Equal(t, http.StatusAccepted, code, "promoting who leads")
	require.Equal(t, [3]int{200, 200, 200}, health(green))

	for _, body := range []string{"", "{}", `{"prefer_not_to_lead":1}`} {
		code, _ = request(t, green, http.MethodPost, "/api/leader/preference", "", body)
		require.Equal(t, http.StatusBadRequest, code, body)
	}
	code, s = request(t, green, http.MethodPost, "/api/leader/preference", "", `{"prefer_not_to_lead":true}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, true, s["status"].(map[string]any)["prefer_not_to_lead"])
	code, e = request(t, green, http.MethodPost, "/api/leader/abort", "", `{"generation":2}`)
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, e["error"], "too late")
	code, _ = request(t, green, http.MethodPost, "/api/leader/abort", "", `{"generation":9}`)
	require.Equal(t, http.StatusOK, code)

	standby := start(t, store, admin(2))
	reach(standby, leader.ReadyToPromote)
	code, e = request(t, standby, http.MethodPost, "/api/leader/step-down", "", `{"reason":"not mine"}`)
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, e["error"], "does not lead")
	code, _ = request(t, green, http.MethodPost, "/api/leader/step-down", "", `{"reason":"maintenance"}`)
	require.Equal(t, http.StatusOK, code)
	reach(standby, leader.Leading)
	reach(green, leader.ReadyToPromote)
	require.Equal(t, [3]int{200, 200, 503}, health(green))
	require.NoError(t, green.end(t))
	require.NoError(t, standby.end(t))
}

func TestAnAdminAddressInUseIsAConfigurationError(t *testing.T) {
	t.Parallel()
	cfg := config(1)
	cfg.Admin = "127.0.0.1:0"
	first := start(t, memory.New(), cfg)
	require.Eventually(t, func() bool { return first.Status().Admin != "" }, time.Minute, time.Millisecond)
	cfg.Admin = first.Status().Admin
	l, err := leader.New(memory.New(), cfg)
	require.NoError(t, err)
	err = l.Run(t.Context(), func(context.Context, *leader.Term) error { return nil })
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.NoError(t, first.end(t))
}

// TestWhatTheAdminAPIHasPromotedIsNotReadAgain has the process look at the board
// by itself once in ten minutes.
func TestAPromotionByTheAdminAPIIsActedOnAtOnce(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue := start(t, store.Open(), called(1))
	blue.reached(t, leader.Leading)
	cfg := called(2)
	cfg.Lease, cfg.Poll = time.Hour, 10*time.Minute
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	code, _ := request(t, green, http.MethodPost, "/api/leader/promote", "", `{"generation":2}`)
	require.Equal(t, http.StatusAccepted, code)
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	green.reached(t, leader.Leading)
	require.NoError(t, green.end(t))
}

func TestWhatTheAdminAPIHasPromotedCanBeAborted(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue := start(t, store.Open(), called(1))
	blue.reached(t, leader.Leading)
	cfg := called(2)
	var looks atomic.Int64
	var caughtUp atomic.Bool
	cfg.CaughtUp = func(context.Context, *catalog.Follower) error {
		looks.Add(1)
		if !caughtUp.Load() {
			return errors.New("not caught up")
		}
		return nil
	}
	green := start(t, store.Open(), cfg)
	looksOnce := func() {
		before := looks.Load()
		require.Eventually(t, func() bool { return looks.Load() > before+1 }, time.Minute, time.Millisecond)
	}
	looksOnce()
	code, _ := request(t, green, http.MethodPost, "/api/leader/promote", "", `{"generation":2}`)
	require.Equal(t, http.StatusAccepted, code)
	looksOnce()
	_, err := leader.Abort(t.Context(), store, catalog.Config{}, 2, leader.AbortOptions{By: "test"})
	require.NoError(t, err)
	caughtUp.Store(true)
	looksOnce()
	looksOnce()
	require.Equal(t, "generation 2 was aborted", green.Status().Reason)
	require.NotContains(t, phases(green), leader.Promoting)
	require.Equal(t, leader.Leading, blue.Status().Phase)
	require.NoError(t, green.end(t))
	require.NoError(t, blue.end(t))
}

// TestAnAbortDuringALongLookIsSeenBehindIt aborts what waits to be
// looked at, while a look takes longer than a poll.
func TestAnAbortDuringALongLookIsSeenBehindIt(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue := start(t, store.Open(), called(1))
	blue.reached(t, leader.Leading)
	cfg := called(2)
	looks := make(chan struct{})
	cfg.CaughtUp = func(ctx context.Context, _ *catalog.Follower) error {
		select {
		case looks <- struct{}{}:
		case <-ctx.Done():
		}
		return nil
	}
	green := start(t, store.Open(), cfg)
	<-looks
	green.reached(t, leader.ReadyToPromote)
	code, _ := request(t, green, http.MethodPost, "/api/leader/promote", "", `{"generation":2}`)
	require.Equal(t, http.StatusAccepted, code)
	_, err := leader.Abort(t.Context(), store, catalog.Config{}, 2, leader.AbortOptions{By: "test"})
	require.NoError(t, err)
	elapse(2 * cfg.Poll)
	for range 9 {
		<-looks
	}
	require.NotContains(t, phases(green), leader.Promoting)
	require.Equal(t, leader.Leading, blue.Status().Phase)
	require.NoError(t, green.end(t))
	require.NoError(t, blue.end(t))
}
