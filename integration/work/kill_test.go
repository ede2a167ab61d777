// Package work kills real processes while they run jobs, on real stores.
package work

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/work"
)

// The variables by which a child learns the store, and the server outside.
const (
	storeVar   = "FENCEPOST_KILL_STORE"
	outsideVar = "FENCEPOST_KILL_OUTSIDE"
)

const (
	concurrency = 64
	someRounds  = 2
	allRounds   = 200 // with FENCEPOST_WHOLE
)

// effects has what each job does to the catalog, in the commit of its completion.
var effects = catalog.JSON[int]("effects")

func TestMain(m *testing.M) {
	if url := os.Getenv(storeVar); url != "" {
		fmt.Fprintln(os.Stderr, "child:", hold(url, os.Getenv(outsideVar)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hold waits for its turn, takes the token and runs jobs until there are no more.
func hold(url, outside string) error {
	ctx := context.Background()
	store, err := storeurl.Open(ctx, url, storeurl.Config{})
	if err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	c, err := catalog.Open(ctx, store, catalog.Config{Generation: 1})
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: concurrency}}
	k := work.Kind{Name: "effect", MaxAttempts: -1, Run: func(ctx context.Context, j *work.Job) error {
		if err := reach(ctx, client, outside, j); err != nil {
			return err
		}
		return c.Update(ctx, func(tx *catalog.Tx) error {
			if err := j.Complete(tx); err != nil {
				return err
			}
			n, _, err := effects.Get(tx, j.ID.String())
			if err != nil {
				return err
			}
			return effects.Set(tx, j.ID.String(), n+1)
		})
	}}
	q, err := work.New(c, work.Config{Concurrency: concurrency, Kinds: []work.Kind{k}})
	if err != nil {
		return err
	}
	go func() {
		if q.Idle(ctx) == nil {
			os.Exit(0)
		}
	}()
	return q.Run(ctx)
}

// reach has the effect outside, until the server there has decided.
func reach(ctx context.Context, client *http.Client, outside string, j *work.Job) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, outside+"/"+j.ID.String(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Fencepost-Token", j.Token.String())
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		switch res.StatusCode {
		case http.StatusOK:
			return nil
		case http.StatusServiceUnavailable: // runs under the token before have not ended
		default:
			return errors.New(res.Status)
		}
	}
}

// An outside is a server with a Gate. It holds every effect until it is let.
type outside struct {
	*httptest.Server
	gate *fence.Gate
	let  chan struct{}

	mu      sync.Mutex
	done    map[string]int // effects, by job
	newest  fence.Token
	stale   int // effects of an older token behind a newer one's
	waiting int
}

func newOutside(t *testing.T, newest func(context.Context, string) (fence.Token, fence.Holder, error)) *outside {
	t.Helper()
	gate, err := fence.NewGate(fence.GateConfig{Newest: newest})
	require.NoError(t, err)
	o := &outside{gate: gate, let: make(chan struct{}, 10*concurrency), done: map[string]int{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(func() { o.Close(); _ = gate.Close() })
	return o
}

func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := o.gate.AdmitText(r.Context(), "jobs", r.Header.Values("Fencepost-Token"))
	if err != nil {
		code := http.StatusConflict
		if errors.As(err, new(*fence.UndecidedError)) {
			code = http.StatusServiceUnavailable
		}
		http.Error(w, err.Error(), code)
		return
	}
	defer a.Release()
	o.enter(strings.TrimPrefix(r.URL.Path, "/"), a.Token(), 1)
	defer o.enter("", a.Token(), -1)
	select {
	case <-o.let:
	case <-a.Context().Done():
	}
}

func (o *outside) enter(job string, token fence.Token, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting += n
	if job == "" {
		return
	}
	o.done[job]++
	switch c := token.Compare(o.newest); {
	case c < 0:
		o.stale++
	case c > 0:
		o.newest = token
	}
}

// held returns how many effects of the newest token wait.
func (o *outside) held() (n int, token fence.Token) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting, o.newest
}

// A child is a process that waits for its turn.
type child struct {
	*exec.Cmd
	turn   func()
	stderr *strings.Builder
}

func startChild(t *testing.T, url, outside string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), storeVar+"="+url, outsideVar+"="+outside)
	c := &child{Cmd: cmd, stderr: new(strings.Builder)}
	cmd.Stderr = c.stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c.turn = func() {
		_, err := fmt.Fprintln(stdin)
		require.NoError(t, err, "%s", c.stderr)
	}
	return c
}

func TestAfterEachKillAtConcurrency64EffectsInTheCatalogHappenOnceAndTotalsAddUp(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + t.TempDir() + "/catalog.db" },
		"postgres": func(t *testing.T) string { return testpg.URL(t) },
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); killEach(t, url(t)) })
	}
}

func killEach(t *testing.T, url string) {
	rounds := someRounds
	if os.Getenv(drivertest.WholeVar) != "" {
		rounds = allRounds
	}
	store, err := storeurl.Open(t.Context(), url, storeurl.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	jobs := 2 * concurrency * (rounds + 1)
	enqueue(t, store, jobs)
	o := newOutside(t, catalog.NewestToken(store, catalog.Config{}))
	next := startChild(t, url, o.URL)
	next.turn()
	var before fence.Token
	for range rounds {
		now := next
		require.Eventually(t, func() bool { n, token := o.held(); return n == concurrency && token != before }, time.Minute, time.Millisecond, "%s", now.stderr)
		_, before = o.held()
		next = startChild(t, url, o.URL)
		for range rand.IntN(concurrency) {
			o.let <- struct{}{}
		}
		<-time.After(rand.N(10 * time.Millisecond)) // somewhere between the effects and their commits
		require.NoError(t, now.Process.Kill())
		next.turn()
		var exit *exec.ExitError
		require.ErrorAs(t, now.Wait(), &exit, "%s", now.stderr)
		require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "%s", now.stderr)
	}
	close(o.let)
	require.NoError(t, next.Wait(), "%s", next.stderr)
	addsUp(t, store, o, jobs, rounds)
}

// enqueue enqueues jobs, all by one holder, which leaves.
func enqueue(t *testing.T, store driver.Store, jobs int) {
	t.Helper()
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
	require.NoError(t, err)
	all := make([]work.Request, jobs)
	for i := range all {
		all[i] = work.Request{Kind: "effect"}
	}
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, all...); return err }))
	require.NoError(t, c.Close())
}

// addsUp holds what the catalog says against what has happened.
func addsUp(t *testing.T, store driver.Store, o *outside, jobs, rounds int) {
	t.Helper()
	require.NoError(t, catalog.Snapshot(t.Context(), store, catalog.Config{}, func(head driver.Head, r *catalog.Reader) error {
		st, err := work.Read(r, head, time.Now())
		require.NoError(t, err)
		require.NoError(t, st.Sums())
		require.Equal(t, [4]int{jobs, jobs, 0, 0}, [4]int{int(st.Totals.Enqueued), int(st.Totals.Completed), st.Live, st.Dead})
		require.EqualValues(t, jobs, st.Totals.Fresh)
		recovered := 0
		for _, taken := range st.Takeovers {
			require.LessOrEqual(t, taken.Orphans, concurrency)
			require.Equal(t, taken.Orphans, taken.Recovered)
			recovered += taken.Recovered
		}
		if rounds < len(st.Takeovers) {
			require.EqualValues(t, recovered, st.Totals.AfterCrash)
		}
		t.Logf("%d kills, %d jobs, recovered %d", rounds, jobs, st.Totals.AfterCrash)
		for id := 1; id <= jobs; id++ {
			n, _, err := effects.Get(r, fmt.Sprint(id))
			require.NoError(t, err)
			require.Equal(t, 1, n, "effects of job %d in the catalog", id)
			require.Positive(t, o.done[fmt.Sprint(id)], "effects of job %d outside", id)
		}
		return nil
	}))
	require.Zero(t, o.stale, "effects outside of an older token behind a newer one's")
}
