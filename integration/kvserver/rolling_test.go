package kvserver_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/integration/replicas"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// A rolling deploy replaces n servers of generation 1 by n of generation 2, one by
// one. The seed decides the order of starts and ends, within one limit: a server is
// ended only while another one leads or is ready.
type rolling struct {
	n     int
	seed  uint64
	auto  bool // generation 2 promotes itself once ready; else a pipeline promotes it, before the last server of generation 1 is ended
	crash bool // servers are ended by SIGKILL, not by SIGTERM
	bare  bool // servers have no admin API
	churn bool // servers that are to stay crash too, and are started again
	super bool // servers run under `fencepost run`
}

func (r rolling) String() string {
	text := fmt.Sprintf("%d by %s, %s", r.n, pick(r.auto, "auto-promote", "pipeline"), pick(r.crash, "SIGKILL", "SIGTERM"))
	return text + pick(r.bare, ", no admin API", "") + pick(r.churn, ", crashes", "") + pick(r.super, ", supervised", "") + fmt.Sprintf(", seed %d", r.seed)
}

func pick[T any](is bool, yes, no T) T {
	if is {
		return yes
	}
	return no
}

// A roll is one rolling deploy under way.
type roll struct {
	rolling
	t        *testing.T
	set      *replicas.Set
	rand     *rand.Rand
	old, new []*replicas.Server
	listen   []string // of generation 1, and behind them of generation 2
	promoted bool
	ending   map[*replicas.Server]bool // servers that are not started again
	gone     map[string]bool           // the names of servers that were to end, or crashed
	steps    []string
}

const customers = 4

// answerBy is a client's time-out for one request, in the long form what go-redis has.
func answerBy() time.Duration { return pick(whole(), 3*time.Second, patience) }

// whole reports whether this is make test-rolling. Make test has a short form.
func whole() bool { return os.Getenv("FENCEPOST_WHOLE") != "" }

// onWholeStores runs a test on SQLite, and on every store in the long form.
func onWholeStores(t *testing.T, test func(t *testing.T, url string)) {
	if whole() {
		onEveryStore(t, test)
		return
	}
	test(t, "sqlite:"+filepath.Join(t.TempDir(), "kv.db"))
}

func TestOneMoveADeploy(t *testing.T) {
	t.Parallel()
	onWholeStores(t, func(t *testing.T, url string) {
		for _, r := range rollings() {
			t.Run(r.String(), func(t *testing.T) {
				r.play(t, catalogOf(url, r.seed))
			})
		}
	})
}

// catalogOf returns the URL of another catalog in the store of url.
func catalogOf(url string, number uint64) string {
	if strings.HasPrefix(url, "postgres") {
		return fmt.Sprintf("%s&catalog=roll%d", url, number)
	}
	return fmt.Sprintf("%s-%d", url, number)
}

func rollings() (all []rolling) {
	if !whole() {
		return []rolling{{n: 2, seed: 1, auto: true}, {n: 3, seed: 2}}
	}
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().Unix())
	}
	for n := 2; n <= 10; n++ {
		for kind := range 16 {
			seed++
			all = append(all, rolling{n: n, seed: seed, auto: kind&1 != 0, crash: kind&2 != 0, bare: kind&4 != 0, churn: kind&8 != 0, super: (n+kind)%3 == 0})
		}
	}
	return all
}

func (r rolling) play(t *testing.T, url string) {
	d := &roll{rolling: r, t: t, rand: rand.New(rand.NewPCG(r.seed, 0)), ending: map[*replicas.Server]bool{}, gone: map[string]bool{}}
	d.set = newSet(t, url)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(d.steps, "\n"))
		}
	})
	for range 2 * r.n {
		address, err := d.set.FreeAddress()
		require.NoError(t, err)
		d.listen = append(d.listen, address)
	}
	for range r.n {
		d.old = append(d.old, d.start(1, d.listen[len(d.old)]))
	}
	d.settle(d.old)
	number, _, err := d.set.Fencepost(t.Context(), "generation", "next")
	require.NoError(t, err)
	require.Equal(t, "2", number)
	var clients []*replicas.Customer
	for i := range customers {
		clients = append(clients, replicas.NewCustomer("client:"+strconv.Itoa(i), answerBy(), d.listen...))
	}
	d.deploy()
	leads := d.settle(d.new)
	for _, c := range clients {
		c.Stop()
	}
	for _, s := range d.old {
		d.ends(s)
	}
	d.judge(clients, leads)
}

// newSet returns a service without processes. The test's end ends those that it
// starts, and shows their logs after a failure.
func newSet(t *testing.T, url string) *replicas.Set {
	binary := os.Getenv(binaryEnv)
	set := &replicas.Set{
		Programs: replicas.Programs{Server: binary, Command: filepath.Join(filepath.Dir(binary), "fencepost")},
		Store:    url, Folder: t.TempDir(),
	}
	t.Cleanup(func() {
		set.End()
		if t.Failed() {
			t.Log(set.Logs())
		}
	})
	return set
}

func (d *roll) note(format string, args ...any) {
	d.steps = append(d.steps, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (d *roll) start(generation int, listen string) *replicas.Server {
	o := replicas.Options{Generation: generation, Listen: listen, Admin: !d.bare, Supervised: d.super}
	if generation == 2 && d.auto {
		o.Args = []string{"-auto-promote"}
	}
	s, err := d.set.Start(o)
	require.NoError(d.t, err)
	d.note("start %v at %s", s, s.Address)
	return s
}

// able reports whether s leads, or could.
func able(s *replicas.Server) bool {
	phase := s.Phase(time.Second)
	return phase == replicas.Leading || phase == replicas.Ready
}

// settle waits until one of servers leads, and all others of them are ready.
func (d *roll) settle(servers []*replicas.Server) (leads *replicas.Server) {
	require.Eventually(d.t, func() bool {
		ready := 0
		leads = nil
		for _, s := range servers {
			switch s.Phase(time.Second) {
			case replicas.Leading:
				leads = s
			case replicas.Ready:
				ready++
			}
		}
		return leads != nil && ready == len(servers)-1
	}, patience, 5*time.Millisecond)
	d.note("%v leads", leads)
	return leads
}

// deploy replaces the servers.
func (d *roll) deploy() {
	todo := d.rand.Perm(d.n) // of the old ones, to be ended
	promoteAt := d.rand.IntN(d.n)
	for ended := 0; len(d.new) < d.n || ended < d.n; {
		if !d.auto && !d.promoted && (ended >= promoteAt && len(d.new) > 0 || ended == d.n-1) {
			d.promote()
		}
		more := len(d.new) < d.n && (d.rand.IntN(2) == 0 || ended == d.n)
		if !more && !d.otherThan(d.old[todo[ended]]) {
			require.Less(d.t, len(d.new), d.n, "nobody else could lead")
			more = true
		}
		if more {
			d.startNew()
		} else {
			d.end(d.old[todo[ended]])
			ended++
		}
		d.meanwhile()
	}
}

func (d *roll) startNew() { d.new = append(d.new, d.start(2, d.listen[len(d.old)+len(d.new)])) }

// meanwhile lets time pass between two steps, in the long form, and has a server
// crash that is started again.
func (d *roll) meanwhile() {
	if !whole() {
		return
	}
	<-time.After(time.Duration(d.rand.IntN(3)*d.rand.IntN(500)) * time.Millisecond) // another schedule, and no condition
	if !d.churn || d.rand.IntN(3) > 0 {
		return
	}
	servers := pick(d.rand.IntN(2) == 0, d.old, d.new)
	if len(servers) == 0 {
		return
	}
	i := d.rand.IntN(len(servers))
	s := servers[i]
	if d.ending[s] || !s.Alive() || !d.otherThan(s) {
		return
	}
	d.note("crash %v, which is %q", s, s.Phase(time.Second))
	d.gone[s.Name] = true
	if d.super {
		_ = s.KillChild() // it may have ended, and not been started again yet
		return
	}
	s.Kill()
	servers[i] = d.start(s.Generation, s.Address)
}

// otherThan waits until another server than s leads, or could when s has ended, and
// reports whether there is one.
func (d *roll) otherThan(s *replicas.Server) bool {
	may := d.old
	switch {
	case s.Generation == 2: // which may lead already, and then those of generation 1 can't any more
		may = d.new
	case d.auto || d.promoted:
		may = slices.Concat(d.old, d.new)
	}
	might := func(other *replicas.Server) bool { return other != s && !d.ending[other] && other.Alive() }
	found := false
	require.Eventually(d.t, func() bool {
		found = slices.ContainsFunc(may, func(other *replicas.Server) bool { return might(other) && able(other) })
		return found || !slices.ContainsFunc(may, might)
	}, patience, 2*time.Millisecond)
	return found
}

func (d *roll) promote() {
	if len(d.new) == 0 {
		d.startNew()
	}
	d.promoted = true
	d.note("promote")
	require.NoError(d.t, d.set.Must(d.t.Context(), "promote", "--generation", "2", "--timeout", "30s"))
}

// end ends a server, and waits for that or does not.
func (d *roll) end(s *replicas.Server) {
	d.note("end %v, which is %q", s, s.Phase(time.Second))
	d.ending[s], d.gone[s.Name] = true, true
	if d.crash {
		s.Kill()
		return
	}
	_ = s.Signal(syscall.SIGTERM) // one that was superseded may have ended
	if d.rand.IntN(2) == 0 {
		d.ends(s)
	}
}

func (d *roll) ends(s *replicas.Server) {
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	code, err := s.Exit(ctx)
	require.NoError(d.t, err)
	if !d.crash && strings.Contains(s.Log(), "clients can connect") { // else it may not have known of signals yet
		require.Zero(d.t, code, "%v", s)
	}
}

// judge holds the history, and what clients were told, against the promise.
func (d *roll) judge(clients []*replicas.Customer, leads *replicas.Server) {
	store, err := storeurl.Open(d.t.Context(), d.set.Store, storeurl.Config{Getenv: os.Getenv, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, store.Close()) }()
	history, err := catalog.History(d.t.Context(), store)
	require.NoError(d.t, err)
	var claims []string
	for _, c := range history {
		claims = append(claims, c.Token.String()+" "+c.Holder.Name)
	}
	moved := 0
	for i := 1; i < len(history); i++ {
		before, now := history[i-1], history[i]
		require.GreaterOrEqual(d.t, now.Token.Generation, before.Token.Generation, "leadership went back: %v", claims)
		if now.Token.Generation > before.Token.Generation {
			moved++
		} else {
			require.True(d.t, d.gone[before.Holder.Name], "%s was replaced as leader, and had not ended: %v", before.Holder.Name, claims)
		}
	}
	require.Equal(d.t, 1, moved, "moves to the next generation: %v", claims)
	longest, unknown, acked := time.Duration(0), 0, 0
	var broken []string
	for _, c := range clients {
		require.Empty(d.t, c.Failures[:min(len(c.Failures), 1)], "%s, %d failures", c.Key, len(c.Failures))
		longest, broken, unknown, acked = max(longest, c.Longest), append(broken, c.Broken...), unknown+c.Unknown, acked+c.Acked
		value, err := leads.Read(c.Key)
		require.NoError(d.t, err)
		require.Equal(d.t, strconv.Itoa(c.Acked), value, "%s", c.Key)
	}
	require.Positive(d.t, acked)
	if !d.crash && !d.churn {
		require.Zero(d.t, unknown, "replies of unknown outcome")
	}
	d.t.Logf("claims %v; %d requests, the longest %v, %d broken, %d unknown", claims, acked, longest.Round(time.Millisecond), len(broken), unknown)
}
