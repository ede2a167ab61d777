package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A gate stops a process before it sends a message with a text in it, as
// SIGSTOP could.
type gate struct {
	text    atomic.Value // of []byte
	reached chan struct{}
	opened  chan struct{}
	open    func()
}

// before lets everything through but the next message with text in it, until
// the gate is opened, or the test ends.
func (g *gate) before(t *testing.T, text string) {
	g.reached, g.opened = make(chan struct{}), make(chan struct{})
	g.open = sync.OnceFunc(func() { close(g.opened) })
	t.Cleanup(g.open)
	g.text.Store([]byte(text))
}

// The texts with which the steps of a transaction begin.
const (
	countsParts   = "count(*) from fencepost.part"
	writesPointer = "insert into fencepost.snapshot"
	deletesParts  = "delete from fencepost.part"
	commits       = "commit\x00"
)

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c gatedConn) Write(b []byte) (int, error) {
	if text, _ := c.gate.text.Load().([]byte); len(text) > 0 && bytes.Contains(b, text) {
		c.gate.text.Store([]byte{})
		close(c.gate.reached)
		<-c.gate.opened
	}
	return c.Conn.Write(b)
}

// gated opens a store whose connections have a gate.
func gated(t *testing.T, dsn string, cfg postgres.Config) (*postgres.Store, *gate) {
	t.Helper()
	config, err := pgxpool.ParseConfig(withParam(t, dsn, "application_name", "gated"))
	require.NoError(t, err)
	g := new(gate)
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return gatedConn{conn, g}, err
	}
	postgres.Prepare(config)
	cfg.Pool, err = pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(cfg.Pool.Close)
	s, err := postgres.Open(t.Context(), dsn, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, g
}

func async(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

// mustBeWhole requires that all parts of the published snapshot are there.
func mustBeWhole(t *testing.T, s driver.Store, want driver.Snapshot, parts ...string) {
	t.Helper()
	got, found, err := readSnapshot(t, s)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, parts, found)
}

func TestATrimWaitsForAPublishThatHasCountedItsParts(t *testing.T) {
	t.Parallel()
	for _, where := range []string{countsParts, writesPointer, commits} {
		dsn := testpg.URL(t)
		s, head := compacted(t, dsn)
		publisher, gate := gated(t, dsn, postgres.Config{})
		snapshot := stage(t, s, head, []byte("a"), []byte("b"))
		gate.before(t, where)
		published := async(func() error { return publisher.Publish(within(t, soon), head.Claim, snapshot) })
		<-gate.reached
		late := async(func() error { _, err := s.Trim(within(t, soon), head.Claim); return err })
		waiting(t, dsn)
		gate.open()
		require.NoError(t, <-published, where)
		require.NoError(t, <-late, where)
		mustBeWhole(t, s, snapshot, "a", "b")
	}
}

func TestAPublishWaitsForALateTrim(t *testing.T) {
	t.Parallel()
	for _, where := range []string{deletesParts, commits} {
		dsn := testpg.URL(t)
		s, head := compacted(t, dsn)
		older := publish(t, s, fill(t, s, head, 1, nil), []byte("older"))
		head = head.After(driver.Record{Revision: older.Revision, ID: older.Commit})
		head = fill(t, s, head, 1, nil)
		trimmer, gate := gated(t, dsn, postgres.Config{})
		gate.before(t, where)
		late := async(func() error { _, err := trimmer.Trim(within(t, soon), head.Claim); return err })
		<-gate.reached
		newer := stage(t, s, head, []byte("newer")) // what is staged now, the first of the two is to delete
		published := async(func() error { return s.Publish(within(t, soon), head.Claim, newer) })
		waiting(t, dsn)
		gate.open()
		require.NoError(t, <-late, where)
		if err := <-published; where == commits {
			require.NoError(t, err)
			mustBeWhole(t, s, newer, "newer")
		} else {
			require.ErrorIs(t, err, driver.ErrCorrupt)
			mustBeWhole(t, s, older, "older")
		}
	}
}

func TestAClaimThatAStoppedCompactionBlocksNamesIt(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, head := compacted(t, dsn)
	zombie, gate := gated(t, dsn, postgres.Config{})
	snapshot := stage(t, s, head, []byte("a"))
	gate.before(t, writesPointer)
	published := async(func() error { return zombie.Publish(within(t, soon), head.Claim, snapshot) })
	<-gate.reached
	for name, claimer := range map[string]*postgres.Store{"its own process": zombie, "another": open(t, dsn)} {
		err := blocked(t, claimer)
		fails(t, err, exitcodes.Retry, driver.NotApplied)
		require.ErrorIs(t, err, driver.ErrBlocked, name)
		require.ErrorContains(t, err, `application "gated"`)
		require.ErrorContains(t, err, "idle in transaction since 2")
		pids := strings.Fields(strings.Trim(fmt.Sprint(testpg.Backends(t, dsn, "gated")), "[]"))
		require.Regexp(t, "process ("+strings.Join(pids, "|")+") ", err.Error())
	}
	gate.open()
	require.NoError(t, <-published)
	mustBeWhole(t, s, snapshot, "a")
}

func TestAStoppedCompactionReleasesClaimsAndWritesNothingWhenItGoesOn(t *testing.T) {
	t.Parallel()
	for where, outcome := range map[string]driver.Outcome{writesPointer: driver.NotApplied, commits: driver.Unknown} {
		dsn := testpg.URL(t)
		s, head := compacted(t, dsn)
		before, _, err := readSnapshot(t, s)
		require.NoError(t, err)
		zombie, gate := gated(t, dsn, postgres.Config{ClaimIdle: 2 * time.Second})
		snapshot := stage(t, s, head, []byte("a"))
		gate.before(t, where)
		published := async(func() error { return zombie.Publish(within(t, soon), head.Claim, snapshot) })
		<-gate.reached
		claim(t, open(t, dsn))
		gate.open()
		fails(t, <-published, exitcodes.Retry, outcome)
		mustBeWhole(t, s, before, "zero", "one")
		require.ErrorIs(t, zombie.Publish(within(t, soon), head.Claim, snapshot), driver.ErrConflict, "sent again")
	}
}

func TestAPublishWithoutAnAnswerIsUnknownAndMayBeSentAgain(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, head := compacted(t, dsn)
	p, through := newProxy(t, dsn)
	publisher, gate := gated(t, through, postgres.Config{})
	snapshot := stage(t, s, head, []byte("a"))
	gate.before(t, commits)
	published := async(func() error { return publisher.Publish(within(t, soon), head.Claim, snapshot) })
	<-gate.reached
	p.mute.Store(true)
	gate.open()
	fails(t, <-published, exitcodes.Retry, driver.Unknown)
	p.mute.Store(false)
	require.NoError(t, publisher.Publish(within(t, soon), head.Claim, snapshot))
	mustBeWhole(t, s, snapshot, "a")
}
