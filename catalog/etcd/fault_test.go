package etcd_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestACommitWhoseAnswerIsLostIsUnknownAndLandsOnce(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	direct := open(t, url, etcd.Config{})
	head := claim(t, direct)
	p, through := startProxy(t, url)
	s := open(t, through, etcd.Config{})
	_, err := s.Head(within(t, time.Minute))
	require.NoError(t, err)

	p.lose(answers)
	rec := record(head, "once")
	ctx, expire := expires(t)
	done := make(chan error, 1)
	go func() { done <- s.Append(ctx, head, rec) }()
	require.Eventually(t, func() bool {
		now, err := direct.Head(within(t, time.Minute))
		return err == nil && now.Commit == rec.ID
	}, time.Minute, 5*time.Millisecond, "it has landed")
	expire()
	err = <-done
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())

	p.lose(nothing)
	err = resend(t, s, head, rec)
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	require.Equal(t, []driver.ID{head.Commit, rec.ID}, ids(t, s))
}

func TestACommitThatIsLostOnItsWayIsUnknownAndLandsWhenSentAgain(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	head := claim(t, open(t, url, etcd.Config{}))
	p, through := startProxy(t, url)
	s := open(t, through, etcd.Config{})
	_, err := s.Head(within(t, time.Minute))
	require.NoError(t, err)

	p.lose(requests)
	rec := record(head, "again")
	err = p.expireInVain(t, func(ctx context.Context) error { return s.Append(ctx, head, rec) })
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	p.lose(nothing)
	require.NoError(t, resend(t, s, head, rec))
	require.Equal(t, []driver.ID{head.Commit, rec.ID}, ids(t, s))
}

// resend sends the same commit until there is an answer: on a connection that
// was just cut there may be none.
func resend(t *testing.T, s *etcd.Store, head driver.Head, rec driver.Record) error {
	t.Helper()
	ctx := within(t, time.Minute)
	for {
		err := s.Append(ctx, head, rec)
		if err == nil || driver.OutcomeOf(err) == driver.NotApplied || ctx.Err() != nil {
			return err
		}
	}
}

// An evasiveServer says of every Txn that its time was over.
type evasiveServer struct {
	pb.UnimplementedKVServer
	txns atomic.Int64
}

func (s *evasiveServer) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.txns.Add(1)
	return nil, rpctypes.ErrGRPCDeadlineExceeded
}

func TestAWriteIsSentOnceWhereTheServerSaysThatItsTimeWasOver(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	evasive, server := new(evasiveServer), grpc.NewServer()
	pb.RegisterKVServer(server, evasive)
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); tasks.Wait() })

	s := open(t, "etcd://"+l.Addr().String()+"/p", etcd.Config{})
	_, err = s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v")})
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	require.EqualValues(t, 1, evasive.txns.Load())
}

func TestAnInstallThatIsNeverAnsweredBlocksOthersNoLongerThanItsLease(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	direct := open(t, url, etcd.Config{})
	p, through := startProxy(t, url)
	s := open(t, through, etcd.Config{ClaimTTL: 6 * time.Second}) // its renewal, which is lost too, comes after a third
	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	p.lose(requests)
	next, rec := claimAfter(c.Head())
	err = p.expireInVain(t, func(ctx context.Context) error { return c.Install(ctx, next, rec) })
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	require.Equal(t, "install", classed(t, err).Op)

	head := claim(t, direct) // bounded by ten seconds
	require.NotEqual(t, next.ID, head.Commit)
	p.lose(nothing)
}

func TestAStoppedServerIsRetryWithinTheDeadlineAndNamed(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{})
	s := open(t, server.URL(), etcd.Config{})
	head := claim(t, s)
	server.Stop()

	began := time.Now()
	_, err := s.Head(within(t, 500*time.Millisecond))
	require.Less(t, time.Since(began), time.Minute)
	require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	require.ErrorContains(t, err, server.URL())

	rec := record(head, "x")
	err = longer(t, 500*time.Millisecond, func(ctx context.Context) error { return s.Append(ctx, head, rec) },
		func(err error) bool { return strings.Contains(err.Error(), "refused") })
	require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())
	require.ErrorContains(t, err, "refused", "it says why nobody answered")

	server.Start()
	require.NoError(t, s.Append(within(t, time.Minute), head, rec))
}

func TestOpenAsksNoServer(t *testing.T) {
	t.Parallel()
	s := open(t, "etcd://user:secret@127.0.0.1:1/none", etcd.Config{})
	_, err := s.Head(within(t, 300*time.Millisecond))
	require.Equal(t, exitcodes.Retry, classed(t, err).Disposition(), "%v", err)
	require.NotContains(t, err.Error(), "secret")
}

// The write that crosses the quota is applied, and answered with the same error
// as those that are refused after it.
func TestAFullStoreLeavesTheOutcomeUnknownAndGoesOnReading(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{Quota: 8 << 20})
	s := open(t, server.URL(), etcd.Config{})
	head := claim(t, s)
	payload := strings.Repeat("x", 500<<10)
	var err error
	var rec driver.Record
	for range 100 {
		rec = record(head, payload)
		if err = s.Append(within(t, time.Minute), head, rec); err != nil {
			break
		}
		head = head.After(rec)
	}
	require.ErrorIs(t, err, driver.ErrFull)
	e := classed(t, err)
	require.Equal(t, exitcodes.Retry, e.Disposition())
	require.Equal(t, driver.Unknown, e.Outcome)
	require.Contains(t, e.Remedy, "disarm")

	now, err := s.Head(within(t, time.Minute))
	require.NoError(t, err)
	require.Contains(t, []driver.ID{head.Commit, rec.ID}, now.Commit)
	require.Len(t, ids(t, s), int(now.Revision))
	_, err = s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v")})
	require.ErrorIs(t, err, driver.ErrFull)
	_, err = s.Claim(within(t, time.Minute))
	require.ErrorIs(t, err, driver.ErrFull)
}

func TestAWrongPasswordHaltsWithTheCodeForConfigurationAndStaysSecret(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{})
	client, ctx := testetcd.Client(t, server.URL()), within(t, time.Minute)
	prefix := testetcd.Prefix(t, server.URL()) + "/"
	for _, name := range []string{"root", "app", "stranger"} {
		_, err := client.UserAdd(ctx, name, "right-"+name)
		require.NoError(t, err)
	}
	for name, role := range map[string]string{"root": "root", "app": "catalog"} {
		_, err := client.RoleAdd(ctx, role)
		require.NoError(t, err)
		_, err = client.UserGrantRole(ctx, name, role)
		require.NoError(t, err)
	}
	_, err := client.RoleGrantPermission(ctx, "catalog", prefix, prefix[:len(prefix)-1]+"0", 2) // read and write
	require.NoError(t, err)
	_, err = client.AuthEnable(ctx)
	require.NoError(t, err)

	as := func(user string) string { return strings.Replace(server.URL(), "://", "://"+user, 1) }
	head := claim(t, open(t, as("app:right-app@"), etcd.Config{}))
	for _, user := range []string{"app:wrong-secret@", "nobody:wrong-secret@", "stranger:right-stranger@", ""} {
		s := open(t, as(user), etcd.Config{})
		for _, err := range []error{
			s.Append(within(t, time.Minute), head, record(head, "x")),
			func() error { _, err := s.Head(within(t, time.Minute)); return err }(),
		} {
			require.Equal(t, exitcodes.Halt, classed(t, err).Disposition(), "%q: %v", user, err)
			require.Equal(t, exitcodes.Config, classed(t, err).ExitCode())
			require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
			require.NotContains(t, err.Error()+s.String(), "wrong-")
			require.NotContains(t, err.Error()+s.String(), "right-")
		}
	}
	env := map[string]string{"FENCEPOST_ETCD_USERNAME": "app", "FENCEPOST_ETCD_PASSWORD": "right-app"}
	commit(t, open(t, server.URL(), etcd.Config{Getenv: func(k string) string { return env[k] }}), head, 1, "x")
}

func TestACertificateThatNobodyTrustsHaltsWithTheCodeForConfiguration(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	s := open(t, strings.Replace(server.URL, "https://", "etcds://", 1)+"/catalog", etcd.Config{})
	err := longer(t, time.Second, func(ctx context.Context) error { _, err := s.Head(ctx); return err },
		func(err error) bool { return exitcodes.Of(err) == exitcodes.Halt })
	require.Equal(t, exitcodes.Halt, classed(t, err).Disposition(), "%v", err)
	require.Equal(t, exitcodes.Config, classed(t, err).ExitCode())
	require.ErrorContains(t, err, "certificate")
}

// What a proxy loses.
type losses int

const (
	nothing losses = iota
	requests
	answers
)

// A proxy passes bytes between a store and its server, or loses those of one
// direction.
type proxy struct {
	mu    sync.Mutex
	loses losses
	conns []net.Conn
	slow  *slowLink // that answers take; nil: as fast as they come

	answered atomic.Int64 // bytes that went back to the store
	lost     atomic.Int64 // bytes of the store's that went nowhere
	dropped  atomic.Int64 // bytes for the store that went nowhere
}

// startProxy starts a proxy before the server of url and returns the URL of
// the same catalog through it.
func startProxy(t *testing.T, url string) (*proxy, string) {
	t.Helper()
	host := strings.Split(url, "/")[2]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := new(proxy)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", host)
			if err != nil {
				_ = client.Close()
				continue
			}
			p.keep(client, server)
			tasks.Go(func() { p.pass(server, client, requests) })
			tasks.Go(func() { p.pass(client, server, answers) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.lose(nothing)
		tasks.Wait()
	})
	return p, strings.Replace(url, host, l.Addr().String(), 1)
}

// lose makes p lose what it says from now on. With nothing, all connections
// are cut as well: what was lost leaves their streams useless.
func (p *proxy) lose(what losses) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loses = what
	if what == nothing {
		for _, conn := range slices.Concat(p.conns) {
			_ = conn.Close()
		}
		p.conns = nil
	}
}

// expireInVain ends the time of a call once what it asked is lost: gRPC's own
// messages are smaller.
func (p *proxy) expireInVain(t *testing.T, call func(context.Context) error) error {
	t.Helper()
	ctx, expire := expires(t)
	before, done := p.lost.Load(), make(chan error, 1)
	go func() { done <- call(ctx) }()
	require.Eventually(t, func() bool { return p.lost.Load() > before+100 }, time.Minute, 5*time.Millisecond)
	expire()
	return <-done
}

func (p *proxy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
}

func (p *proxy) losing(what losses) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loses == what
}

func (p *proxy) pass(to io.WriteCloser, from io.ReadCloser, direction losses) {
	defer func() { _, _ = to.Close(), from.Close() }()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if direction == answers {
			p.answered.Add(int64(n))
		}
		if p.losing(direction) {
			if direction == requests {
				p.lost.Add(int64(n))
			} else {
				p.dropped.Add(int64(n))
			}
			continue
		}
		if direction == answers {
			p.link().carry(n)
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// A slowLink carries so many bytes a second, for all who share it.
type slowLink struct {
	rate int

	mu   sync.Mutex
	free time.Time // when all that was given so far is carried
}

// carry returns when n bytes are carried.
func (l *slowLink) carry(n int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	wait := time.Until(l.free)
	l.mu.Unlock()
	<-time.After(wait)
}

func (p *proxy) link() *slowLink {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slow
}

func (p *proxy) slowDown(l *slowLink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = l
}
