package leader_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/entrypoint"
	"github.com/fencepost/fencepost/leader"
)

// The variables of a child: the file of the catalog that it is to lead, the address
// of its admin API, and that it runs itself beneath a supervisor.
const (
	childVar = "FENCEPOST_LEADER_TEST_CHILD"
	adminVar = "FENCEPOST_LEADER_TEST_ADMIN"
	runVar   = "FENCEPOST_LEADER_TEST_RUN"
)

func TestMain(m *testing.M) {
	if os.Getenv(runVar) != "" {
		_ = os.Unsetenv(runVar) // it is a valid name
		os.Exit(int(entrypoint.Main(entrypoint.Config{Command: os.Args[:1]})))
	}
	if path := os.Getenv(childVar); path != "" {
		os.Exit(child(path))
	}
	os.Exit(m.Run())
}

// child leads until it is killed, and says its pid.
func child(path string) int {
	store, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return 1
	}
	l, err := leader.New(store, leader.Config{
		Catalog: catalog.Config{Generation: 1}, Admin: os.Getenv(adminVar), Lease: time.Hour,
	})
	if err != nil {
		return 1
	}
	_ = l.Run(context.Background(), func(ctx context.Context, term *leader.Term) error {
		term.Serving()
		fmt.Println(os.Getpid())
		<-ctx.Done()
		return context.Cause(ctx)
	})
	return 1
}

// A killable is a process that leads a catalog.
type killable struct {
	t    *testing.T
	cmd  *exec.Cmd
	says *bufio.Scanner
}

// begin starts a process that leads the catalog at path, and with what env says.
func begin(t *testing.T, path string, env ...string) *killable {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), childVar+"="+path, "GORACE=atexit_sleep_ms=0"), env...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // most are killed before
	return &killable{t, cmd, bufio.NewScanner(stdout)}
}

// leads waits until the process leads once more, and returns its pid.
func (k *killable) leads() int {
	k.t.Helper()
	require.True(k.t, k.says.Scan(), k.says.Err())
	pid, err := strconv.Atoi(k.says.Text())
	require.NoError(k.t, err)
	return pid
}

func (k *killable) kill() {
	k.t.Helper()
	require.NoError(k.t, k.cmd.Process.Kill())
	require.Error(k.t, k.cmd.Wait())
}

// connected waits until a standby is connected to the holder.
func connected(t *testing.T, admin string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, s := ask(t, admin, http.MethodGet, "/api/leader/status", "", "")
		return s["standbys"] == 1.0
	}, time.Minute, time.Millisecond)
}

// A stopped process, and one whose connection is the only proof.
func TestAStandbyTakesOverAtOnceFromAProcessThatWasKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	holder := begin(t, path, adminVar+"=127.0.0.1:0")
	holder.leads()
	store, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	defer store.Close()
	post(t, store, func(b *leader.Beat) { b.Said.Process = "" })
	cfg := config(1)
	cfg.Lease = time.Hour // nothing but the death can be the reason
	cfg.Poll = time.Second
	standby := start(t, store, cfg)
	standby.reached(t, leader.ReadyToPromote)
	connected(t, signOfLife(t, store).Admin)
	require.NoError(t, holder.cmd.Process.Signal(syscall.SIGSTOP)) // which is no death
	require.Never(t, func() bool { return standby.Status().Phase != leader.ReadyToPromote }, 300*time.Millisecond, 10*time.Millisecond)
	holder.kill()
	standby.reached(t, leader.Leading)
	history := claims(t, store)
	require.Len(t, history, 2)
	require.Contains(t, history[1].Reason, "is gone: its connection broke")
	require.NoError(t, standby.end(t))
}

// A connection that broke proves nothing a second time.
func TestAStandbyWhoseClaimFailedStillKnowsThatTheHolderIsDead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "catalog.db")
	holder := begin(t, path, adminVar+"=127.0.0.1:0")
	holder.leads()
	file, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	defer file.Close()
	post(t, file, func(b *leader.Beat) { b.Said.Process = "" })
	store := &unclaimable{Store: file}
	store.refuses.Store(true)
	cfg := config(1)
	cfg.Lease, cfg.Poll, cfg.HandoverTimeout = time.Hour, time.Second, 10*time.Millisecond
	cfg.Catalog.ClaimTimeout = 10 * time.Millisecond
	standby := start(t, store, cfg)
	standby.reached(t, leader.ReadyToPromote)
	connected(t, signOfLife(t, file).Admin)
	holder.kill()
	require.Eventually(t, func() bool { return store.tries.Load() > 0 }, time.Minute, time.Millisecond)
	store.refuses.Store(false)
	standby.reached(t, leader.Leading)
	require.NoError(t, standby.end(t))
}

// unclaimable is a store whose claims are blocked for a while.
type unclaimable struct {
	driver.Store
	refuses atomic.Bool
	tries   atomic.Int64
}

func (u *unclaimable) Claim(ctx context.Context) (driver.Claiming, error) {
	if !u.refuses.Load() {
		return u.Store.Claim(ctx)
	}
	u.tries.Add(1)
	<-ctx.Done()
	return nil, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: u.String(), Op: "claim", Err: driver.ErrBlocked}
}

// a relay passes connections on to a holder, until it is told otherwise.
type relay struct {
	ln    net.Listener
	mu    sync.Mutex
	conns []net.Conn
	to    string
	wg    sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{ln: ln, to: to}
	r.wg.Go(r.serve)
	t.Cleanup(func() { r.close(); r.wg.Wait() })
	return r
}

func (r *relay) serve() {
	for {
		in, err := r.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		r.wg.Go(func() { _, _ = io.Copy(in, out); in.Close() })
		r.wg.Go(func() { _, _ = io.Copy(out, in); out.Close() })
	}
}

// cut breaks every connection, and goes on taking new ones.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// close refuses connections from now on, and breaks those that are there.
func (r *relay) close() {
	r.ln.Close()
	r.cut()
}

// post changes the holder's sign of life, as if it had given another one.
func post(t *testing.T, store driver.Store, change func(*leader.Beat)) {
	t.Helper()
	signOfLife(t, store)
	_, err := catalog.UpdateNote(t.Context(), catalog.NewBoard(store, catalog.Config{}), "holder", func(b *leader.Beat) error {
		change(b)
		return nil
	})
	require.NoError(t, err)
}

// signOfLife waits for the one with which the holder says that it serves, behind which
// none comes before it is due.
func signOfLife(t *testing.T, store driver.Store) (b leader.Beat) {
	t.Helper()
	require.Eventually(t, func() (ok bool) {
		var err error
		b, err = leader.ReadBeat(t.Context(), store, catalog.Config{})
		return err == nil && b.Said != nil && b.Said.Serving
	}, time.Minute, time.Millisecond)
	return b
}

// behind starts a holder that others reach by a relay.
func behind(t *testing.T, store *memory.Store) (*process, *relay) {
	cfg := called(1)
	cfg.Lease = time.Hour
	holder := start(t, store.Open(), cfg)
	require.Eventually(t, func() bool { // the last heartbeat for long, so that what a test posts stays
		said, ok := signOfLife(t, store).State()
		return ok && said.Serving
	}, time.Minute, time.Millisecond)
	return holder, newRelay(t, holder.Status().Admin)
}

func standbyOf(t *testing.T, store *memory.Store) *process {
	cfg := called(1)
	cfg.Lease = 30 * time.Second
	p := start(t, store.Open(), cfg)
	p.reached(t, leader.ReadyToPromote)
	return p
}

func TestALostConnectionAloneIsNoDeath(t *testing.T) {
	t.Parallel()
	store := memory.New()
	holder, way := behind(t, store)
	post(t, store, func(b *leader.Beat) { b.Admin = way.ln.Addr().String() })
	standby := standbyOf(t, store)
	for range 5 {
		require.Eventually(t, func() bool { return holder.Status().Standbys == 1 }, time.Minute, time.Millisecond)
		way.cut()
		require.Eventually(t, func() bool { return holder.Status().Standbys == 0 }, time.Minute, time.Millisecond)
	}
	require.Eventually(t, func() bool { return holder.Status().Standbys == 1 }, time.Minute, time.Millisecond)
	require.Len(t, claims(t, store), 1)

	way.close() // and now the address refuses connections
	standby.reached(t, leader.Leading)
	require.ErrorIs(t, <-holder.ended, fence.ErrFenced)
	require.NoError(t, standby.end(t))
}

func TestARefusalWithoutAConnectionThatProvedTheClaimIsNoDeath(t *testing.T) {
	t.Parallel()
	store := memory.New()
	holder, way := behind(t, store)
	way.close()
	post(t, store, func(b *leader.Beat) { b.Admin = way.ln.Addr().String() })
	standby := standbyOf(t, store)
	require.Never(t, func() bool { return standby.Status().Phase != leader.ReadyToPromote }, time.Second, 10*time.Millisecond)
	require.Len(t, claims(t, store), 1)
	require.NoError(t, standby.end(t))
	require.NoError(t, holder.end(t))
}

func TestAStandbyOnAnotherHostDoesNotCallALoopbackAddress(t *testing.T) {
	t.Parallel()
	store := memory.New()
	holder, way := behind(t, store)
	post(t, store, func(b *leader.Beat) { b.Admin, b.Host = way.ln.Addr().String(), "another boot" })
	standby := standbyOf(t, store)
	require.Never(t, func() bool { return holder.Status().Standbys > 0 || standby.Status().Phase != leader.ReadyToPromote }, 500*time.Millisecond, 10*time.Millisecond)
	way.close()
	require.Never(t, func() bool { return standby.Status().Phase != leader.ReadyToPromote }, 500*time.Millisecond, 10*time.Millisecond)
	require.Len(t, claims(t, store), 1)
	require.NoError(t, standby.end(t))
	require.NoError(t, holder.end(t))
}

func TestAnotherProcessAtTheHoldersAddressProvesNothing(t *testing.T) {
	t.Parallel()
	other := memory.New()
	impostor := start(t, other, called(1)) // leads another catalog
	impostor.reached(t, leader.Leading)
	store := memory.New()
	holder, _ := behind(t, store)
	post(t, store, func(b *leader.Beat) { b.Admin = impostor.Status().Admin })
	standby := standbyOf(t, store)
	require.NoError(t, impostor.end(t))
	require.Never(t, func() bool { return standby.Status().Phase != leader.ReadyToPromote }, 500*time.Millisecond, 10*time.Millisecond)
	require.NoError(t, standby.end(t))
	require.NoError(t, holder.end(t))
}

func TestAProcessOfAnotherHostCallsThePeerAddressWhichObeysNobody(t *testing.T) {
	t.Parallel()
	store := memory.New()
	cfg := called(1)
	cfg.Peer = "127.0.0.1:0" // stands for an address that others reach
	holder := start(t, store.Open(), cfg)
	holder.reached(t, leader.Leading)
	beat := signOfLife(t, store)
	require.NotEmpty(t, beat.Peer)
	for _, path := range []string{"/api/leader/promote", "/api/leader/abort", "/api/leader/step-down", "/api/leader/preference"} {
		code, _ := ask(t, beat.Peer, http.MethodPost, path, "", `{"generation": 1, "reason": "", "prefer_not_to_lead": true}`)
		require.Equal(t, http.StatusNotFound, code, path)
	}
	post(t, store, func(b *leader.Beat) { b.Host = "another boot" })
	cfg = called(2)
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	promote(t, store, 2)
	require.ErrorIs(t, <-holder.ended, fence.ErrSuperseded)
	require.Contains(t, phases(holder), leader.HandingOver, "it was not asked")
	require.NoError(t, green.end(t))
}

func TestOneListenerThatIsTakenOpensNeither(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	cfg := called(1)
	cfg.Peer = taken.Addr().String()
	l, err := leader.New(memory.New(), cfg)
	require.NoError(t, err)
	err = l.Run(t.Context(), func(context.Context, *leader.Term) error { return nil })
	require.ErrorContains(t, err, "peer")
	_, err = net.Dial("tcp", l.Status().Admin)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.True(t, strings.HasPrefix(l.Status().Admin, "127.0.0.1:"))
}
