package leader_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// A process is one Leader under Run.
type process struct {
	*leader.Leader
	stop  context.CancelCauseFunc
	ended chan error
	holds atomic.Pointer[catalog.Catalog] // while the work runs
	cause atomic.Pointer[error]           // of the end of the last work's context
}

func config(g generation.Generation) leader.Config {
	return leader.Config{Catalog: catalog.Config{Generation: g, Holder: fence.Holder{Name: "process of " + g.String()}}}
}

// start runs a process whose work lasts until its context ends.
func start(t *testing.T, store driver.Store, cfg leader.Config) *process {
	t.Helper()
	l, err := leader.New(store, cfg)
	require.NoError(t, err)
	ctx, stop := context.WithCancelCause(t.Context())
	p := &process{Leader: l, stop: stop, ended: make(chan error, 1)}
	go func() {
		p.ended <- l.Run(ctx, func(ctx context.Context, c *catalog.Catalog) error {
			p.holds.Store(c)
			<-ctx.Done()
			cause := context.Cause(ctx)
			p.cause.Store(&cause)
			p.holds.Store(nil)
			return nil
		})
	}()
	return p
}

func (p *process) await(t *testing.T, phase leader.Phase) {
	t.Helper()
	for range 100_000 {
		if p.Status().Phase == phase {
			return
		}
		if p.Status().Phase.Ended() {
			break
		}
		elapse(10 * time.Millisecond)
	}
	require.Equal(t, phase, p.Status().Phase, p.Status().Reason)
}

func (p *process) end(t *testing.T) error {
	t.Helper()
	p.stop(errStop)
	return <-p.ended
}

// elapse lets a bubble's time pass, which costs none of ours.
func elapse(d time.Duration) { <-time.After(d) }

var errStop = errors.New("stop")

func claims(t *testing.T, s driver.Store) []driver.Claim {
	t.Helper()
	h, err := catalog.History(t.Context(), s)
	require.NoError(t, err)
	return h
}

func TestTheFirstProcessOfACatalogLeadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, memory.New(), config(3))
		p.await(t, leader.Leading)
		s := p.Status()
		require.True(t, s.Serving)
		require.Equal(t, "g3.e1", s.Token.String())
		require.NoError(t, p.end(t))
		s = p.Status()
		require.Equal(t, leader.Stopped, s.Phase)
		require.Nil(t, s.Token)
		require.ErrorIs(t, *p.cause.Load(), errStop)
	})
}

func TestAHigherGenerationWaitsForPromotionAndTheOldOneIsSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, config(1))
		blue.await(t, leader.Leading)
		green := start(t, store, config(2))
		green.await(t, leader.ReadyToPromote)
		elapse(20 * time.Minute) // it waits for ever
		require.Equal(t, leader.ReadyToPromote, green.Status().Phase)
		require.Equal(t, leader.Leading, blue.Status().Phase)

		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, "test")
		require.NoError(t, err)
		green.await(t, leader.Leading)
		err = <-blue.ended
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
		require.Equal(t, leader.Superseded, blue.Status().Phase)
		require.Equal(t, "g2.e2", blue.Status().Leader.Token.String())
		require.ErrorIs(t, *blue.cause.Load(), fence.ErrSuperseded, "the cause of the work's context")
		require.Equal(t, "promoted by test", claims(t, store)[1].Reason)
		require.NoError(t, green.end(t))
	})
}

func TestPromotionIsDurableIdempotentAndNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store, config(1))
		blue.await(t, leader.Leading)
		first, err := leader.Promote(t.Context(), store, catalog.Config{}, 3, "a")
		require.NoError(t, err)
		again, err := leader.Promote(t.Context(), store, catalog.Config{}, 3, "b")
		require.NoError(t, err)
		require.Equal(t, first, again)
		var overtaken *leader.OvertakenError
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 2, "c")
		require.ErrorAs(t, err, &overtaken)

		green := start(t, store, config(3)) // it starts only after the promotion
		green.await(t, leader.Leading)
		<-blue.ended
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 3, "d")
		require.NoError(t, err)
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 2, "e")
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.NoError(t, green.end(t))
	})
}

func TestALowerGenerationEndsSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		green := start(t, store, config(2))
		green.await(t, leader.Leading)
		blue := start(t, store, config(1))
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.Len(t, claims(t, store), 1)
		require.NoError(t, green.end(t))
	})
}

func TestAGenerationThatWasReadyEndsSupersededWhenAHigherOneIsPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one := start(t, store, config(1))
		one.await(t, leader.Leading)
		two := start(t, store, config(2))
		two.await(t, leader.ReadyToPromote)
		cfg := config(3)
		cfg.AutoPromote = true
		three := start(t, store, cfg)
		three.await(t, leader.Leading)
		require.ErrorIs(t, <-two.ended, fence.ErrSuperseded)
		require.ErrorIs(t, <-one.ended, fence.ErrSuperseded)
		require.NoError(t, three.end(t))
	})
}

func TestAStandbyClaimsOnlyAfterTheHoldersSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		dead, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err) // claims, and never gives a sign of life
		begun := time.Now()
		standby := start(t, store, config(1))
		standby.await(t, leader.Leading)
		require.GreaterOrEqual(t, time.Since(begun), 5*time.Second)
		require.Less(t, time.Since(begun), 6*time.Second)
		require.ErrorIs(t, dead.Close(), fence.ErrFenced)
		require.Contains(t, claims(t, store)[1].Reason, "no sign of life of g1.e1")

		second := start(t, store, config(1))
		elapse(20 * time.Minute)
		require.Equal(t, leader.ReadyToPromote, second.Status().Phase, "a holder that beats was claimed over")
		require.NoError(t, standby.end(t))
		gone := time.Now()
		second.await(t, leader.Leading)
		require.Less(t, time.Since(gone), time.Second, "a holder that has left was waited for")
		require.NoError(t, second.end(t))
	})
}

func TestTwoProcessesOfOneGenerationThatRestartAfterAnEpochFenceDoNotDuel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		// Each is a process whose supervisor restarts it at once, whatever the
		// code: even so there is no duel.
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		for range 2 {
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					l, err := leader.New(store, config(1))
					if err != nil {
						t.Error(err)
						return
					}
					_ = l.Run(ctx, func(ctx context.Context, _ *catalog.Catalog) error { <-ctx.Done(); return nil })
				}
			}()
		}
		elapse(10 * time.Second)
		// Somebody fences whoever leads, without the beats of a leader.
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err)
		_ = c.Close()
		elapse(50 * time.Second)
		firstMinute := len(claims(t, store))
		require.LessOrEqual(t, firstMinute, 10)
		require.GreaterOrEqual(t, firstMinute, 3, "nobody came back")
		elapse(10 * time.Minute)
		require.Len(t, claims(t, store), firstMinute, "claims after the first minute")
		stop()
		<-done
		<-done
	})
}

func TestSilenceDuringWhichTheStoreCouldNotBeReadDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		holder := start(t, store.Open(), config(1))
		holder.await(t, leader.Leading)
		mine := store.Open()
		standby := start(t, mine, config(1))
		standby.await(t, leader.ReadyToPromote)
		mine.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		elapse(10 * time.Minute)
		mine.Inject(nil)
		elapse(time.Minute)
		require.Equal(t, leader.ReadyToPromote, standby.Status().Phase)
		require.Equal(t, leader.Leading, holder.Status().Phase)
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestAfterAnOutageOfTheStoreStandbysCountAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		handles := []*memory.Store{store.Open(), store.Open()}
		holder := start(t, handles[0], config(1))
		holder.await(t, leader.Leading)
		standby := start(t, handles[1], config(1))
		standby.await(t, leader.ReadyToPromote)
		for _, h := range handles {
			h.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		}
		elapse(10 * time.Minute)
		for _, h := range handles {
			h.Inject(nil)
		}
		elapse(time.Minute)
		require.Len(t, claims(t, store), 1, "a holder that could not beat was claimed over")
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestTwentyProcessesOfAGenerationThatIsPromotedMakeOneClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		var greens []*process
		for range 20 {
			green := start(t, store.Open(), config(2))
			green.await(t, leader.ReadyToPromote)
			greens = append(greens, green)
		}
		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, "test")
		require.NoError(t, err)
		elapse(time.Minute)
		require.Len(t, claims(t, store), 2)
		leading := 0
		for _, green := range greens {
			switch green.Status().Phase {
			case leader.Leading:
				leading++
			default:
				require.Equal(t, leader.ReadyToPromote, green.Status().Phase)
			}
		}
		require.Equal(t, 1, leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		for _, green := range greens {
			green.stop(errStop)
		}
		for _, green := range greens {
			require.NoError(t, <-green.ended)
		}
	})
}

func TestAHolderWhoseFirstSignOfLifeIsLostIsNotTakenForDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err) // leaves a claim whose sign of life is another's
		first := start(t, store.Open(), config(1))
		first.await(t, leader.Leading)
		require.ErrorIs(t, c.Close(), fence.ErrFenced)
		require.NoError(t, first.end(t))

		mine := store.Open()
		mine.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" && c.N < 10 {
				return memory.Refuse
			}
			return memory.Pass
		})
		holder := start(t, mine, config(1))
		holder.await(t, leader.Leading)
		standby := start(t, store.Open(), config(1))
		elapse(10 * time.Minute)
		require.Equal(t, leader.Leading, holder.Status().Phase)
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}

func TestWhatIsWorseThanAStopIsNotSwallowedByIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		l, err := leader.New(store, config(1))
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- l.Run(ctx, func(ctx context.Context, c *catalog.Catalog) error {
				require.NoError(t, c.Update(ctx, func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) }))
				store.Rollback(1)
				require.ErrorIs(t, c.Confirm(ctx), catalog.ErrLostCommit)
				stop()
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		err = <-ended
		require.ErrorIs(t, err, catalog.ErrLostCommit)
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
		require.Equal(t, leader.Failed, l.Status().Phase)
	})
}

func TestAnEpochFenceDoesNotExplainThePanicOfTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		l, err := leader.New(store, config(1))
		require.NoError(t, err)
		broken := exitcodes.With(errors.New("my invariant is broken"), exitcodes.Panic)
		ended := make(chan error, 1)
		go func() {
			ended <- l.Run(t.Context(), func(ctx context.Context, _ *catalog.Catalog) error {
				<-ctx.Done()
				return broken
			})
		}()
		elapse(time.Second)
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err)
		err = <-ended
		require.ErrorIs(t, err, broken)
		require.ErrorIs(t, err, fence.ErrFenced)
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
		require.NoError(t, c.Close())
	})
}

func TestANumberThatWasPromotedIsNotGivenOutAgain(t *testing.T) {
	store := memory.New()
	_, err := leader.Promote(t.Context(), store, catalog.Config{}, 3, "a deploy that is cancelled later")
	require.NoError(t, err)
	next, err := catalog.NewBoard(store, catalog.Config{}).NextGeneration(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 4, next)
}

func TestAnErrorOfTheWorkEndsTheProcess(t *testing.T) {
	mine := errors.New("mine")
	l, err := leader.New(memory.New(), config(1))
	require.NoError(t, err)
	err = l.Run(t.Context(), func(context.Context, *catalog.Catalog) error { return mine })
	require.ErrorIs(t, err, mine)
	require.Equal(t, leader.Failed, l.Status().Phase)
}

func TestTheWorkIsJoinedBeforeRunReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		l, err := leader.New(store, config(1))
		require.NoError(t, err)
		working := false
		ended := make(chan error, 1)
		go func() {
			ended <- l.Run(t.Context(), func(ctx context.Context, _ *catalog.Catalog) error {
				working = true
				<-ctx.Done()
				elapse(time.Minute) // slow to stop
				working = false
				return nil
			})
		}()
		elapse(time.Second)
		green, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 2})
		require.NoError(t, err)
		require.ErrorIs(t, <-ended, fence.ErrSuperseded)
		require.False(t, working)
		require.NoError(t, green.Close())
	})
}

func TestConfigurationNamesEveryMistakeAtOnce(t *testing.T) {
	_, err := leader.New(memory.New(), leader.Config{Heartbeat: time.Minute, Admin: "0.0.0.0:80"})
	require.ErrorIs(t, err, generation.ErrMissing)
	require.ErrorContains(t, err, "at least three")
	require.ErrorContains(t, err, "not on loopback")
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
}

// The table is small enough to check whole.
func TestPhasesMoveAlongTheTableOnly(t *testing.T) {
	for from := leader.Initializing; from <= leader.Failed; from++ {
		for to := leader.Initializing; to <= leader.Failed; to++ {
			got, err := from.To(to)
			if err != nil {
				var te *leader.TransitionError
				require.ErrorAs(t, err, &te)
				require.Equal(t, from, got)
				continue
			}
			require.Equal(t, to, got)
			require.False(t, from.Ended(), "%v is an end", from)
			back := from == leader.Promoting && to == leader.CatchingUp
			require.True(t, to > from || back, "%v may become %v, which is a step back", from, to)
		}
		if !from.Ended() {
			for _, end := range []leader.Phase{leader.Superseded, leader.Fenced, leader.Stopped, leader.Failed} {
				_, err := from.To(end)
				require.NoError(t, err)
			}
		}
		var read leader.Phase
		text, err := from.MarshalText()
		require.NoError(t, err)
		require.NoError(t, read.UnmarshalText(text))
		require.Equal(t, from, read)
	}
}

// request asks the admin API of p.
func request(t *testing.T, p *process, method, path, host, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.Status().Admin+path, strings.NewReader(body))
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

func TestTheAdminAPIShowsHealthApartAndPromotes(t *testing.T) {
	store := memory.New()
	admin := func(g generation.Generation) leader.Config {
		cfg := config(g)
		cfg.Admin = "127.0.0.1:0"
		return cfg
	}
	reach := func(p *process, phase leader.Phase) {
		require.Eventually(t, func() bool { return p.Status().Phase == phase }, 10*time.Second, time.Millisecond)
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
	require.NoError(t, green.end(t))
}

func TestAnAdminAddressInUseIsAConfigurationError(t *testing.T) {
	cfg := config(1)
	cfg.Admin = "127.0.0.1:0"
	first := start(t, memory.New(), cfg)
	require.Eventually(t, func() bool { return first.Status().Admin != "" }, 10*time.Second, time.Millisecond)
	cfg.Admin = first.Status().Admin
	l, err := leader.New(memory.New(), cfg)
	require.NoError(t, err)
	err = l.Run(t.Context(), func(context.Context, *catalog.Catalog) error { return nil })
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.NoError(t, first.end(t))
}
