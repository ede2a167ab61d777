package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/work"
)

// enqueued returns a catalog with jobs that no Queue runs.
func enqueued(t *testing.T, jobs ...work.Request) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, "blue", "", func(c *catalog.Catalog) error {
		return c.Update(t.Context(), func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, jobs...); return err })
	}))
	return path
}

// with adds variables to an environment.
func with(env map[string]string, pairs ...string) map[string]string {
	for i := 0; i < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return env
}

func TestTheMonitorTellsEverySinkAndOneThatFailsStopsNoOther(t *testing.T) {
	t.Parallel()
	bodies := make(chan []byte, 1)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- body
	}))
	defer hook.Close()
	dir := t.TempDir()
	path := enqueued(t, work.Request{Kind: "sync"})
	began := time.Now()
	got := run(t, with(on(path), "FENCEPOST_WORK_UNKNOWN", "1ns", "FENCEPOST_WORK_WEBHOOK", hook.URL+"/"+secret), "work", "check", "--json", "--notify-timeout", "2s",
		"--notify", "exit 3", "--notify", "echo x >> "+dir+"/$FENCEPOST_ALERT_STATE", "--notify", "sleep 600 & echo $! >> "+dir+"/children; sleep 600", "--notify", "exec /no/such")
	require.Less(t, time.Since(began), 30*time.Second)
	require.Equal(t, exitcodes.Failure, got.code, got.stderr)
	requireNoSecret(t, got)
	v := object(t, got.stdout)
	require.Len(t, v["failing_sinks"], 3)
	require.Contains(t, fmt.Sprint(v["failing_sinks"]), "the time was over: raise --notify-timeout")
	children, err := os.ReadFile(filepath.Join(dir, "children"))
	require.NoError(t, err)
	for _, pid := range strings.Fields(string(children)) {
		require.Eventually(t, func() bool { // nothing of the command is left, but for what nobody has reaped
			line, err := os.ReadFile("/proc/" + pid + "/cmdline")
			return err != nil || len(line) == 0
		}, time.Minute, time.Millisecond)
	}
	lines := 0
	for _, state := range []string{"firing", "resolved"} {
		text, err := os.ReadFile(filepath.Join(dir, state))
		require.NoError(t, err)
		lines += strings.Count(string(text), "x\n")
	}
	require.Len(t, v["alerts"], lines, "one call for each alert")
	posted := map[string]any{}
	require.NoError(t, json.Unmarshal(<-bodies, &posted))
	require.Equal(t, v["alerts"], posted["alerts"])
	require.Equal(t, "sqlite:"+path, posted["store"])
}

func TestAWebhookThatAnswersNoIsAFailureThatShowsNoSecret(t *testing.T) {
	t.Parallel()
	answers := map[string]http.HandlerFunc{
		"answered 500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"answered 302": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/"+secret, http.StatusFound)
		},
		"deadline": func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body); <-r.Context().Done() },
	}
	path := enqueued(t)
	for want, answer := range answers {
		hook := httptest.NewServer(answer)
		got := run(t, on(path), "work", "check", "--notify-timeout", "200ms", "--webhook", hook.URL+"/"+secret)
		hook.Close()
		require.EqualValues(t, 2, got.code, "nothing fires, and nobody was told so")
		require.Contains(t, got.stdout, want)
		require.Contains(t, got.stdout, "resolved  work/check")
		requireNoSecret(t, got)
	}
	got := run(t, on(path), "work", "check", "--webhook", "http://127.0.0.1:1/"+secret)
	require.EqualValues(t, 2, got.code)
	requireNoSecret(t, got)
}

func TestTheMonitorSeesAHolderThatHasFallenSilent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	sign := func(c *catalog.Catalog, at time.Time) {
		_, err := catalog.UpdateNote(t.Context(), c.Board(), "holder", func(b *leader.Beat) error {
			*b = leader.Beat{Claim: c.Claim().ID, Token: c.Token(), At: at}
			return nil
		})
		require.NoError(t, err)
	}
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, "blue", "", func(c *catalog.Catalog) error {
		running := make(chan struct{})
		q, err := work.New(c, work.Config{Kinds: []work.Kind{{Name: "op", Run: func(ctx context.Context, _ *work.Job) error {
			close(running)
			<-ctx.Done()
			return ctx.Err()
		}}}})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { _, err := work.Enqueue(tx, "op", "", nil); return err }))
		<-running
		sign(c, time.Now())
		require.Equal(t, exitcodes.Success, run(t, on(path), "work", "check").code)
		sign(c, time.Now().Add(-2*time.Minute))
		got := run(t, on(path), "work", "check")
		require.Equal(t, exitcodes.Failure, got.code)
		require.Contains(t, got.stdout, "firing    work/orphans/op")
		require.Contains(t, got.stdout, "firing    work/holder")
		require.Contains(t, run(t, on(path), "work", "status").stdout, "holder: last sign of life ")
		require.Equal(t, exitcodes.Success, run(t, with(on(path), "FENCEPOST_WORK_SILENT", "3m"), "work", "check").code)
		stop()
		require.ErrorIs(t, <-done, context.Canceled)
		return nil
	}))
}

func TestThePayloadIsBoundedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	big := filepath.Join(t.TempDir(), "big")
	require.NoError(t, os.WriteFile(big, make([]byte, work.MaxPayload+1), 0o600))
	got := run(t, on(enqueued(t)), "work", "enqueue", "--kind", "k", "--payload-file", big, "--no-wait")
	require.Equal(t, exitcodes.Usage, got.code)
	require.Contains(t, got.stderr, "more than 1048576 bytes")
}

func TestTextOfAJobCantMoveATerminal(t *testing.T) {
	t.Parallel()
	path := enqueued(t, work.Request{Kind: "k", Key: "evil\x1b[2J\nkey", Payload: []byte("\x1b[31m")})
	for _, command := range []string{"work list", "work show 1", "work status", "work check"} {
		got := run(t, with(on(path), "FENCEPOST_WORK_UNKNOWN", "1ns"), strings.Fields(command)...)
		require.NotContains(t, got.stdout, "\x1b", command)
		require.Contains(t, got.stdout, "k", command)
	}
}

func TestAWebServersRoleEnqueuesOnceTheCommandHasInstalledTheFunctions(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	env := map[string]string{storeurl.EnvVar: dsn}
	got := run(t, env, "work", "install")
	require.Equal(t, exitcodes.Config, got.code, got.stderr)
	require.Contains(t, got.stderr, "let a process claim the catalog first")
	require.NoError(t, hold(t.Context(), dsn, 1, "blue", "", func(*catalog.Catalog) error { return nil }))
	role := "web \"" + driver.NewID().String()
	quoted := `"` + strings.ReplaceAll(role, `"`, `""`) + `"`
	testpg.Exec(t, dsn, "create role "+quoted+" login password 'pw'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+quoted+"; drop role "+quoted) })
	web := testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") })
	const enqueue = `select fencepost.enqueue('main', 'sync')`

	got = run(t, env, "work", "install")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Contains(t, got.stdout, "are installed; no other role was named")
	_, err := testpg.Connect(t, web).Exec(t.Context(), enqueue)
	require.ErrorContains(t, err, "SQLSTATE 42501")
	got = run(t, map[string]string{storeurl.EnvVar: web}, "work", "install", "--enqueuer", role)
	require.Equal(t, exitcodes.Config, got.code, "only the owner may")
	require.Contains(t, got.stderr, "owner of schema fencepost")
	got = run(t, env, "work", "install", "--enqueuer", "nobody-has-this-name")
	require.Equal(t, exitcodes.Config, got.code)
	require.Contains(t, got.stderr, "nobody-has-this-name")

	testpg.Exec(t, dsn, "drop function fencepost.wake", "comment on function fencepost.enqueue is null") // each is mended
	for range 2 {
		got = run(t, env, "work", "install", "--enqueuer", role, "--json")
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		require.Equal(t, []any{role}, object(t, got.stdout)["enqueuers"])
	}
	testpg.Exec(t, web, enqueue, `select fencepost.wake('main')`)
	got = run(t, env, "work", "status")
	require.Contains(t, got.stdout, "inbox: 1 requests")
}

func TestTheStatusCountsRequestsThatCantBeRead(t *testing.T) {
	t.Parallel()
	path := enqueued(t)
	store, err := storeurl.Open(t.Context(), "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	_, err = store.Post(t.Context(), driver.Note{Key: work.InboxPrefix + "a/b", Value: []byte(`{"op":"activate"}`)})
	require.NoError(t, errors.Join(err, store.Close()))
	require.Contains(t, run(t, on(path), "work", "status").stdout, "inbox: 1 requests wait for a holder, the oldest since ")
	require.Contains(t, run(t, on(path), "work", "status").stdout, "; 1 of them can't be read")
	require.Contains(t, run(t, on(path), "work", "check").stdout, "firing    work/broken")
}
