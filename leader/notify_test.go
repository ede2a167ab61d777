package leader_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// A manager is a service manager that keeps what it is told.
type manager struct {
	mu    sync.Mutex
	heard []string
}

func (m *manager) notify(assignments ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = append(m.heard, strings.Join(assignments, "\n"))
	return nil
}

func (m *manager) hears() []string {
	synctest.Wait() // it is told beside the process
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.heard)
}

func managed(t *testing.T, store driver.Store, g generation.Generation) (*process, *manager) {
	m := &manager{}
	cfg := config(g)
	cfg.Notify = m.notify
	return start(t, store, cfg), m
}

func TestTheServiceManagerIsToldOfReadinessOnceAndOfEveryStanding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue, heardOfBlue := managed(t, store, 1)
		blue.await(t, leader.Leading)
		twin, heardOfTwin := managed(t, store, 1)
		twin.await(t, leader.ReadyToPromote)
		green, heardOfGreen := managed(t, store, 2)
		green.await(t, leader.ReadyToPromote)
		since := func(p *process) string { return p.Status().Since.UTC().Format(time.RFC3339) }
		ledSince := since(blue)
		elapse(time.Minute)
		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test"})
		require.NoError(t, err)
		green.await(t, leader.Leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.ErrorIs(t, <-twin.ended, fence.ErrSuperseded)

		heard := slices.DeleteFunc(heardOfBlue.hears(), func(line string) bool { // its work may end before anybody looks
			return strings.HasPrefix(line, "STATUS=Draining: the token is lost: superseded: held g1.e1")
		})
		require.Equal(t, []string{
			"STATUS=CatchingUp: reading the catalog",
			"STATUS=generation 1 is ready, and nobody ever led", "READY=1",
			"STATUS=leads, not serving: the work has not said yet that it serves, as g1.e1",
			"STATUS=leads as g1.e1 since " + ledSince,
			"STATUS=superseded by g2.e2 of process of 2",
		}, heard)
		require.Equal(t, []string{
			"STATUS=CatchingUp: reading the catalog",
			"STATUS=standby of g1.e1 of process of 1, ready to take over", "READY=1",
			"STATUS=superseded by g2.e2 of process of 2",
		}, heardOfTwin.hears())
		require.Equal(t, []string{
			"STATUS=CatchingUp: reading the catalog",
			"STATUS=generation 2 is ready to be promoted over g1.e1 of process of 1", "READY=1",
			"STATUS=leads, not serving: the work has not said yet that it serves, as g2.e2",
			"STATUS=leads as g2.e2 since " + since(green),
		}, heardOfGreen.hears(), "ready before it is promoted: a deploy that waited for the lead would wait for ever")
		require.NoError(t, green.end(t))
		heard = heardOfGreen.hears()
		require.Equal(t, "STATUS=Stopped: the work is done", heard[len(heard)-1])
	})
}

func TestAnOutageWhileCatchingUpIsToldAndIsNoReadiness(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		store.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		p, m := managed(t, store, 1)
		elapse(5 * time.Minute)
		require.Equal(t, leader.CatchingUp, p.Status().Phase)
		require.NotContains(t, m.hears(), "READY=1")
		heard := m.hears()
		require.Contains(t, heard[len(heard)-1], "STATUS=catching up: the catalog can't be read: ")
		store.Inject(nil)
		p.await(t, leader.Leading)
		require.Contains(t, m.hears(), "READY=1")
		require.NoError(t, p.end(t))
	})
}

func TestAStopDuringAnOutageWhileCatchingUpIsAStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		store.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		p := start(t, store, config(1))
		elapse(time.Minute)
		require.Equal(t, leader.CatchingUp, p.Status().Phase)
		require.NoError(t, p.end(t))
		require.Equal(t, leader.Stopped, p.Status().Phase)
	})
}

func TestAManagerThatCannotBeToldStopsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config(1)
		cfg.Notify = func(...string) error { return errors.New("nobody listens") }
		p := start(t, memory.New(), cfg)
		p.await(t, leader.Leading)
		require.NoError(t, p.end(t))
	})
}
