package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/leader"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestFlagsComeBeforeTheEnvironment(t *testing.T) {
	f, err := parseFlags([]string{"-store", "sqlite:x", "-generation", "7", "-auto-promote", "-name", "n"},
		env(generation.EnvVar, "3", adminEnv, "127.0.0.1:1"), io.Discard)
	require.NoError(t, err)
	require.Equal(t, flags{
		store: "sqlite:x", generation: 7, listen: "127.0.0.1:6380", admin: "127.0.0.1:1", autoPromote: true, name: "n", drain: 10 * time.Second,
	}, f)
	f, err = parseFlags(nil, env(generation.EnvVar, "3"), io.Discard)
	require.NoError(t, err)
	require.EqualValues(t, 3, f.generation)
	require.Contains(t, f.name, "127.0.0.1:6380")
}

func TestAWrongCommandLineAsksForItsCode(t *testing.T) {
	for _, c := range []struct {
		args []string
		code exitcodes.Code
		text string
	}{
		{[]string{"-nope"}, exitcodes.Usage, "see kvserver -h"},
		{[]string{"more"}, exitcodes.Usage, `"more" is no flag`},
		{[]string{"-generation", "x"}, exitcodes.Usage, "-generation"},
		{[]string{"-store-timeout", "-1s"}, exitcodes.Usage, "-store-timeout is -1s"},
		{[]string{"-store", "postgres://u:secret@h/d", "-generation", "1"}, exitcodes.Usage, "password"},
		{nil, exitcodes.Config, generation.EnvVar},
	} {
		_, err := parseFlags(c.args, env(), io.Discard)
		var coded interface{ ExitCode() exitcodes.Code }
		require.ErrorAs(t, err, &coded, c.text)
		require.Equal(t, c.code, coded.ExitCode(), c.text)
		require.ErrorContains(t, err, c.text)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestHelpAndVersionAreAnswered(t *testing.T) {
	var out bytes.Buffer
	_, err := parseFlags([]string{"-h"}, env(), &out)
	require.ErrorIs(t, err, errAnswered)
	for _, part := range []string{"redis-cli -p 6380 SET", "fencepost promote", "-auto-promote", "-confirm-reads", "-store URL"} {
		require.Contains(t, out.String(), part)
	}
	out.Reset()
	_, err = parseFlags([]string{"-version"}, env(), &out)
	require.ErrorIs(t, err, errAnswered)
	require.Contains(t, out.String(), "kvserver ")
}

func TestStandingNamesThePhaseAndTheLeader(t *testing.T) {
	s := leader.Status{Phase: leader.ReadyToPromote}
	require.Equal(t, "(phase ready-to-promote): no leader was seen yet", standing(s))
	s.Leader = &leader.Holding{
		Token:  fence.Token{Generation: 2, Epoch: 5},
		Holder: fence.Holder{Name: "green", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	}
	require.Equal(t, "(phase ready-to-promote): generation 2 leads since 2026-01-02T03:04:05Z: green", standing(s))
	require.Equal(t, "leading-not-serving", phaseName(leader.Leading))
}

func TestABusyClientPortAsksForConfiguration(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	err = run(t.Context(), flags{listen: ln.Addr().String()}, Options{}, logTo(io.Discard))
	var coded interface{ ExitCode() exitcodes.Code }
	require.ErrorAs(t, err, &coded)
	require.Equal(t, exitcodes.Config, coded.ExitCode())
	require.ErrorContains(t, err, "-listen")
}

// lines collects a log, and hands out the address that it names.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	seen chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for word := range strings.FieldsSeq(string(p)) {
		if address, ok := strings.CutPrefix(word, "address="); ok {
			l.seen <- address
		}
	}
	return l.text.Write(p)
}

// process is one run of the program within the test.
type process struct {
	address string
	log     *lines
	stop    context.CancelCauseFunc
	done    chan error
}

func start(t *testing.T, store string, g generation.Generation, opts Options, auto bool) *process {
	return startAs(t, flags{store: store, generation: g, autoPromote: auto}, opts)
}

// startAs runs the program with flags, at an address for clients of its own.
func startAs(t *testing.T, f flags, opts Options) *process {
	log := &lines{seen: make(chan string, 1)}
	ctx, stop := context.WithCancelCause(context.WithoutCancel(t.Context()))
	p := &process{log: log, stop: stop, done: make(chan error, 1)}
	f.listen, f.name = "127.0.0.1:0", f.generation.String()
	go func() { p.done <- run(ctx, f, opts, logTo(log)) }()
	select {
	case p.address = <-log.seen:
	case err := <-p.done:
		require.NoError(t, err)
	}
	t.Cleanup(func() { stop(exitcodes.ErrStopRequested) })
	return p
}

// logs waits until the log has a text in it.
func (p *process) logs(t *testing.T, text string) {
	require.Eventually(t, func() bool {
		p.log.mu.Lock()
		defer p.log.mu.Unlock()
		return strings.Contains(p.log.text.String(), text)
	}, time.Minute, 5*time.Millisecond, text)
}

// ask sends one inline command and returns the first line of its reply.
func (p *process) ask(t *testing.T, line string) string {
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = fmt.Fprintf(conn, "%s\r\n", line)
	require.NoError(t, err)
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(reply)
}

func (p *process) eventually(t *testing.T, line, want string) {
	require.Eventually(t, func() bool { return p.ask(t, line) == want }, time.Minute, 5*time.Millisecond)
}

// counting is a store whose commits are counted.
type counting struct {
	driver.Store
	appends atomic.Int64
}

func (c *counting) Append(ctx context.Context, head driver.Head, rec driver.Record) error {
	c.appends.Add(1)
	return c.Store.Append(ctx, head, rec)
}

func TestTheNextGenerationTakesOverAndTheOldOneEndsSuperseded(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "kv.db")
	blue := start(t, store, 1, Options{}, false)
	blue.eventually(t, "SET a 1", "+OK")
	var wrapped counting
	green := start(t, store, 2, Options{Wrap: func(s driver.Store) driver.Store {
		wrapped.Store = s
		return &wrapped
	}}, true)
	green.eventually(t, "INCR a", ":2")
	require.ErrorIs(t, <-blue.done, fence.ErrSuperseded)
	require.EqualValues(t, 1, wrapped.appends.Load())
	require.Contains(t, blue.ask(t, "PING"), "refused")
	green.stop(exitcodes.ErrStopRequested)
	require.NoError(t, <-green.done)
}

func TestAProcessThatWaitsSaysWhoLeads(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "kv.db")
	blue := start(t, store, 1, Options{}, false)
	blue.eventually(t, "SET a 1", "+OK")
	green := start(t, store, 2, Options{}, false)
	require.Eventually(t, func() bool {
		return strings.HasPrefix(green.ask(t, "GET a"), "-READONLY fencepost: not leading (phase ready-to-promote): generation 1 leads since ")
	}, time.Minute, 5*time.Millisecond)
	for _, p := range []*process{green, blue} {
		p.stop(exitcodes.ErrStopRequested)
		require.NoError(t, <-p.done)
	}
}

// lose writes into a catalog that it has lost a commit.
func lose(t *testing.T, url string) {
	store, err := storeurl.Open(t.Context(), url, storeurl.Config{})
	require.NoError(t, err)
	defer store.Close()
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	record, err := store.Losses(t.Context())
	require.NoError(t, err)
	loss := catalog.Loss{ID: driver.NewID(), From: 2, To: 2, Token: head.Claim.Token, Head: head.Claim.ID, Left: head.Claim.Token, By: "a follower", At: time.Now().UTC()}
	record.Text, err = json.Marshal(map[string]any{"losses": []catalog.Loss{loss}})
	require.NoError(t, err)
	_, err = store.PutLosses(t.Context(), record, &head)
	require.NoError(t, err)
}

func TestAServerClaimsOverALossOnlyWithAcceptLoss(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "kv.db")
	blue := start(t, store, 1, Options{}, false)
	blue.eventually(t, "SET a 1", "+OK")
	blue.stop(exitcodes.ErrStopRequested)
	require.NoError(t, <-blue.done)
	lose(t, store)

	args := []string{"-store", store, "-generation", "2", "-auto-promote", "-listen", "127.0.0.1:0"}
	f, err := parseFlags(args, env(), io.Discard)
	require.NoError(t, err)
	waits := startAs(t, f, Options{})
	waits.logs(t, "nobody leads")
	waits.logs(t, "fencepost restored")
	waits.stop(exitcodes.ErrStopRequested)
	require.NoError(t, <-waits.done)

	f, err = parseFlags(append(args, "-accept-loss"), env(), io.Discard)
	require.NoError(t, err)
	green := startAs(t, f, Options{})
	green.eventually(t, "INCR a", ":2")
	green.stop(exitcodes.ErrStopRequested)
	require.NoError(t, <-green.done)
}

func TestInfoOfAWaitingProcessNamesItsPhase(t *testing.T) {
	token := fence.Token{Generation: 2, Epoch: 5}
	fields := info(leader.Status{Phase: leader.Promoting, Generation: 2, Token: &token, Leader: &leader.Holding{Token: token}})
	text := fmt.Sprint(fields)
	for _, part := range []string{"{fencepost_phase promoting}", "{fencepost_generation 2}", "{fencepost_token g2.e5}", "{fencepost_leader_token g2.e5}"} {
		require.Contains(t, text, part)
	}
}

func TestAServerThatNamesNoHostIsReachedByTheHostsName(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	for listens, want := range map[string]string{
		"127.0.0.1:6380": "127.0.0.1:6380", "kv-1:6380": "kv-1:6380", "[::]:6380": net.JoinHostPort(host, "6380"), "0.0.0.0:6380": net.JoinHostPort(host, "6380"),
	} {
		require.Equal(t, want, advertised(flags{}, listens), listens)
		require.Equal(t, "kv.example:1", advertised(flags{advertise: "kv.example:1"}, listens))
	}
}

func TestWhatComesToAServerThatSteppedDownIsForwarded(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "kv.db")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	admin := ln.Addr().String()
	require.NoError(t, ln.Close())
	old := startAs(t, flags{store: store, generation: 1, admin: admin}, Options{})
	old.eventually(t, "INCR a", ":1")
	next := start(t, store, 1, Options{}, false)
	require.Eventually(t, func() bool {
		return strings.HasPrefix(next.ask(t, "GET a"), "-READONLY") && strings.Contains(next.ask(t, "GET a"), "ready")
	}, time.Minute, 5*time.Millisecond)
	resp, err := http.Post("http://"+admin+"/api/leader/step-down", "application/json", strings.NewReader(`{"reason":"test"}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, ":2", old.ask(t, "INCR a"))
	next.eventually(t, "INCR a", ":3")
	for _, p := range []*process{old, next} {
		p.stop(exitcodes.ErrStopRequested)
		require.NoError(t, <-p.done)
	}
}
