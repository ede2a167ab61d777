//go:build unix

package lead_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheHoldHookComesBeforeTheStopAndTheResumeHookOnceTheCommandIsReady(t *testing.T) {
	t.Parallel()
	s := newService(t)
	hook := func(name string) []string {
		note := "echo $FENCEPOST_HOOK $FENCEPOST_TOKEN >>" + s.path(name+".events")
		return []string{"--admin", "127.0.0.1:0", "--hold", note, "--resume", note}
	}
	blue := s.begin("blue", 1, append(hook("blue"), s.shell("blue", obeys)...)...)
	blue.happens("up")
	blue.happens("resume g1.e1")
	green := s.begin("green", 2, append(append(hook("green"), "--auto-promote", "--ready-command", "test -e "+s.path("ready")), s.shell("green", obeys)...)...)
	green.happens("up")
	blue.ends(0)
	require.Less(t, strings.Index(blue.events(), "hold g1.e1\n"), strings.Index(blue.events(), "asked\n"))
	require.NotContains(t, green.events(), "resume")
	require.NoError(t, os.WriteFile(s.path("ready"), nil, 0o600))
	green.happens("resume g2.e2")
}

func TestTheOldHolderResumesWhereAHandoverIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin := address(t)
	blue := s.begin("blue", 1, append([]string{"--admin", admin, "--handover-timeout", "1s", "--resume", "echo resumed >>" + s.path("blue.events")}, s.shell("blue", obeys)...)...)
	blue.happens("up")
	blue.happens("resumed")
	s.command(1, "step-down", "--force", "--admin", admin)
	blue.eventually(func() bool { return strings.Count(blue.events(), "resumed\n") == 2 }, "resumed twice")
	blue.eventually(func() bool { return strings.Count(blue.events(), "up\n") == 2 }, "started twice")
}

func TestAHookThatFailsOrHangsStopsNoHandover(t *testing.T) {
	t.Parallel()
	for name, hook := range map[string]string{"fails": "exit 1", "hangs": "sleep 1000 & sleep 1000", "defies": "trap '' TERM INT; sleep 1000"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			flags := []string{"--admin", "127.0.0.1:0", "--hook-timeout", "100ms", "--hold", s.locked("hold") + hook, "--resume", hook}
			blue := s.begin("blue", 1, append(flags, s.shell("blue", obeys)...)...)
			blue.happens("up")
			blue.says("hook=resume")
			green := s.begin("green", 2, append(append(flags, "--auto-promote"), s.shell("green", obeys)...)...)
			green.happens("up")
			s.unlocked("hold")
			blue.ends(0)
			require.Contains(t, blue.log(), "hook=hold")
			require.Contains(t, green.log(), "the holder hands over")
			green.signal(syscall.SIGTERM)
			green.ends(0)
		})
	}
}

func TestAHookIsEndedWithTheLossOfTheToken(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--hook-timeout", "10m", "--resume", s.locked("resume") + "echo hooked >>" + s.path("blue.events") + "; sleep 1000"}, s.shell("blue", obeys)...)...)
	blue.happens("hooked")
	s.command(0, "fence", "--reason", "test")
	blue.ends(166)
	s.unlocked("resume")
}

func TestWhatAHookLeavesWhenItIsCutShortIsEndedToo(t *testing.T) {
	t.Parallel()
	s := newService(t)
	hook := s.locked("resume") + "setsid sleep 1000 & echo hooked >>" + s.path("blue.events") + "; sleep 1000"
	blue := s.begin("blue", 1, append([]string{"--hook-timeout", "10m", "--resume", hook},
		"--", "sh", "-c", "until grep -q hooked "+s.path("blue.events")+"; do sleep 0.02; done")...)
	blue.ends(0)
	s.unlocked("resume")
}

// HAProxy queues requests for servers that are busy, and answers 503 for one that is
// gone. A line of Lua has it hold them back instead.
const (
	haproxyHold = `core.register_action("hold", {"http-req"}, function(txn)
	while txn:get_var("proc.hold") == 1 do core.msleep(10) end
end)
`
	haproxyConfig = `global
    nbthread 1
    stats socket %[1]s/haproxy.sock level admin
    lua-load %[1]s/hold.lua
    set-var proc.hold int(0)
defaults
    mode http
    option http-server-close
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend front
    bind %[2]s
    http-request lua.hold
    default_backend app
backend app
    server holder 127.0.0.1:1
`
)

// haproxy starts HAProxy, and returns where it listens and its socket.
func (s *service) haproxy() (front, socket string) {
	s.t.Helper()
	front, socket = address(s.t), s.path("haproxy.sock")
	config := s.path("haproxy.cfg")
	require.NoError(s.t, os.WriteFile(config, fmt.Appendf(nil, haproxyConfig, s.dir, front), 0o600))
	require.NoError(s.t, os.WriteFile(s.path("hold.lua"), []byte(haproxyHold), 0o600))
	cmd := exec.Command("haproxy", "-db", "-f", config)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(s.t, cmd.Start())
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Log(said.String())
		}
	})
	require.Eventually(s.t, func() bool {
		_, err := os.Stat(socket)
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	return front, socket
}

// clients send requests until stop, and count the tokens that answer.
func clients(ctx context.Context, url string, answers func(token string, err error)) (join func()) {
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				answers(ask(client, url))
			}
		})
	}
	return wg.Wait
}

func ask(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

func TestRequestsThroughHAProxyWaitDuringAHandoverAndNoneFails(t *testing.T) {
	t.Parallel()
	s := newService(t)
	front, socket := s.haproxy()
	begin := func(name string, generation int) *lead {
		at := address(t)
		steer := func(what string) string { return fmt.Sprintf("%s haproxy %s %s %s", os.Args[0], what, socket, at) }
		return s.begin(name, generation, "--admin", "127.0.0.1:0", "--hold", steer("hold"), "--resume", steer("resume"),
			"--ready-url", "http://"+at, "--", os.Args[0], "serve", at)
	}
	blue := begin("blue", 1)
	blue.says("hook=resume")
	var first, second, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	join := clients(ctx, "http://"+front, func(token string, err error) {
		switch {
		case err != nil:
			failed.Add(1)
			t.Log(err)
		case token == "g1.e1":
			first.Add(1)
		case token == "g2.e2":
			second.Add(1)
		default:
			t.Errorf("a request was answered under %q", token)
		}
	})
	require.Eventually(t, func() bool { return first.Load() > 20 }, time.Minute, 5*time.Millisecond)
	green := begin("green", 2)
	green.says("to=ReadyToPromote")
	s.promote(2)
	require.Eventually(t, func() bool { return second.Load() > 20 || failed.Load() > 0 }, time.Minute, 5*time.Millisecond)
	cancel()
	join()
	require.Zero(t, failed.Load())
	blue.ends(0)
	require.Contains(t, blue.log(), `msg="a hook is done" hook=hold`)
	require.Contains(t, green.log(), "the holder hands over")
}
