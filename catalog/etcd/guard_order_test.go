package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/orders"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// The orders of an old holder's write against a new holder's claim are enumerated,
// not sampled. A write has two steps: it leaves the old process, and it arrives at
// the server; between them it is on its way, or its process is stopped.

// A guardWay is how an old holder writes.
type guardWay struct {
	name   string
	guards bool // no order may accept anything stale; of the others some order must
	before func(context.Context, *oldHolder) error
	write  func(context.Context, *oldHolder) error
}

func guardWays() []guardWay {
	guarded := func(name string, write func(context.Context, *oldHolder) error) guardWay {
		return guardWay{name, true, guardIt, write}
	}
	there := func(h *oldHolder) clientv3.Cmp { return clientv3.Compare(clientv3.Version(h.row("a")), ">", 0) }
	gone := func(h *oldHolder) clientv3.Cmp { return clientv3.Compare(clientv3.Version(h.row("a")), "=", 0) }
	two := func(h *oldHolder) []clientv3.Op {
		return []clientv3.Op{clientv3.OpPut(h.row("a"), "old"), clientv3.OpDelete(h.row("b"))}
	}
	txn := func(succeeds bool, build func(h *oldHolder) clientv3.Txn) func(context.Context, *oldHolder) error {
		return func(_ context.Context, h *oldHolder) error {
			resp, err := build(h).Commit()
			if err == nil && resp.Succeeded != succeeds {
				err = errors.New("another branch was taken than the one asked for")
			}
			return err
		}
	}
	return []guardWay{
		guarded("put", func(ctx context.Context, h *oldHolder) error {
			_, err := h.kv.Put(ctx, h.row("a"), "old")
			return err
		}),
		guarded("put with a lease", func(ctx context.Context, h *oldHolder) error {
			_, err := h.kv.Put(ctx, h.row("a"), "old", clientv3.WithLease(h.lease))
			return err
		}),
		guarded("delete", func(ctx context.Context, h *oldHolder) error {
			_, err := h.kv.Delete(ctx, h.row(""), clientv3.WithPrefix())
			return err
		}),
		guarded("several keys", txn(true, func(h *oldHolder) clientv3.Txn {
			return h.kv.Txn(h.t.Context()).If(there(h)).Then(two(h)...).Else(clientv3.OpGet(h.row("a")))
		})),
		guarded("several keys, else a write", txn(true, func(h *oldHolder) clientv3.Txn {
			return h.kv.Txn(h.t.Context()).If(there(h)).Then(two(h)...).Else(clientv3.OpPut(h.row("b"), "old"))
		})),
		guarded("the else", txn(false, func(h *oldHolder) clientv3.Txn {
			return h.kv.Txn(h.t.Context()).If(gone(h)).Then(clientv3.OpGet(h.row("a"))).Else(two(h)...)
		})),
		guarded("do, nested", func(ctx context.Context, h *oldHolder) error {
			_, err := h.kv.Do(ctx, clientv3.OpTxn([]clientv3.Cmp{gone(h)}, nil, []clientv3.Op{clientv3.OpTxn([]clientv3.Cmp{there(h)}, two(h), nil)}))
			return err
		}),
		guarded("stm", func(ctx context.Context, h *oldHolder) error {
			client := clientv3.NewCtxClient(ctx) // of no connection: STM needs the KV alone
			client.KV = h.kv
			_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
				stm.Put(h.row("a"), stm.Get(h.row("b"))+"old")
				return nil
			}, concurrency.WithAbortContext(ctx))
			return err
		}),
		{"the condition by hand", true,
			func(ctx context.Context, h *oldHolder) (err error) {
				h.live, err = etcd.Guard(ctx, h.client, h.catalog, h.token)
				return err
			},
			func(ctx context.Context, h *oldHolder) error {
				resp, err := h.client.Txn(ctx).If(h.live).Then(two(h)...).Commit()
				if err == nil && !resp.Succeeded {
					_, err = etcd.Guard(ctx, h.client, h.catalog, h.token)
				}
				return err
			}},
		{"a look before", false, lookAtToken, func(ctx context.Context, h *oldHolder) error {
			_, err := h.client.Put(ctx, h.row("a"), "old")
			return err
		}},
		{"a look before and behind", false, lookAtToken, func(ctx context.Context, h *oldHolder) error {
			_, err := h.client.Put(ctx, h.row("a"), "old")
			return errors.Join(err, lookAtToken(ctx, h))
		}},
		{"the row's own revision", false,
			func(ctx context.Context, h *oldHolder) error {
				resp, err := h.client.Get(ctx, h.row("a"))
				if err == nil {
					h.live = clientv3.Compare(clientv3.ModRevision(h.row("a")), "=", resp.Kvs[0].ModRevision)
				}
				return errors.Join(err, lookAtToken(ctx, h))
			},
			func(ctx context.Context, h *oldHolder) error {
				resp, err := h.client.Txn(ctx).If(h.live).Then(clientv3.OpPut(h.row("a"), "old")).Commit()
				if err == nil && !resp.Succeeded {
					err = errStaleLook
				}
				return err
			}},
	}
}

func guardIt(ctx context.Context, h *oldHolder) (err error) {
	h.kv, err = etcd.GuardKV(ctx, h.client, h.catalog, h.token)
	return err
}

var errStaleLook = errors.New("another process has claimed")

// lookAtToken is the guard that everybody writes first.
func lookAtToken(ctx context.Context, h *oldHolder) error {
	resp, err := h.client.Get(ctx, h.catalog+"/token")
	if err != nil {
		return err
	}
	claim, err := driver.UnmarshalClaim(resp.Kvs[0].Value)
	if err == nil && claim.Token != h.token {
		err = errStaleLook
	}
	return err
}

func TestInNoOrderOfStepsIsAGuardedWriteAcceptedBehindAClaim(t *testing.T) {
	t.Parallel()
	neverBehind(t, newOldHolder, "want", "install", "write")
}

func TestInNoOrderOfStepsIsAGuardedWriteAcceptedBehindARaise(t *testing.T) {
	t.Parallel()
	neverBehind(t, newOldHolderElsewhere, "read", "raise", "write")
}

// neverBehind plays every way in every order against the steps of a new holder.
func neverBehind(t *testing.T, newOldHolder func(*testing.T) *oldHolder, news ...string) {
	for _, w := range guardWays() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			h := newOldHolder(t)
			stale, refused := 0, 0
			for _, order := range orders.Merges([]string{"before", "send", "arrive"}, news) {
				accepted, err := h.play(w, order)
				if accepted {
					stale++
				}
				if err != nil {
					refused++
					if w.guards {
						var fenced *fence.Error
						require.ErrorAs(t, etcd.Refusal(err), &fenced, "%v", order)
						require.Equal(t, h.token, fenced.Held)
						require.Equal(t, "holder", fenced.By.Name)
					}
				}
				require.False(t, accepted && w.guards, "%v", order)
			}
			require.Positive(t, refused)
			require.Equal(t, w.guards, stale == 0, "%d stale writes were accepted", stale)
		})
	}
}

// An oldHolder plays against one new holder after the other.
type oldHolder struct {
	t             *testing.T
	store         *etcd.Store
	register      *etcd.Register // whose token it is, in place of the store's; nil: none
	base, catalog string
	look          *clientv3.Client // past the gate
	client        *clientv3.Client
	gate          *gate
	raiser        *gate // of the register's raise
	lease         clientv3.LeaseID

	token fence.Token // of a round
	kv    *etcd.GuardedKV
	live  clientv3.Cmp
}

func (h *oldHolder) row(name string) string { return h.base + "/rows/" + name }

func newOldHolder(t *testing.T) *oldHolder {
	url, g := testetcd.URL(t), newGate()
	h := &oldHolder{
		t: t, base: testetcd.Prefix(t, url), catalog: testetcd.Prefix(t, url) + "/catalog", gate: g,
		store: open(t, url+"/catalog", etcd.Config{}), look: testetcd.Client(t, url), client: gatedClient(t, url, g),
	}
	lease, err := h.look.Grant(within(t, time.Minute), 600)
	require.NoError(t, err)
	h.lease = lease.ID
	claimBy(t, h.store, 1)
	return h
}

// newOldHolderElsewhere is one whose catalog is elsewhere.
func newOldHolderElsewhere(t *testing.T) *oldHolder {
	url, g, past := testetcd.URL(t), newGate(), newGate()
	h := &oldHolder{
		t: t, base: testetcd.Prefix(t, url), catalog: testetcd.Prefix(t, url) + "/register", gate: g,
		look: testetcd.Client(t, url), client: gatedClient(t, url, g), raiser: past,
	}
	var err error
	h.register, err = etcd.OpenRegister(t.Context(), "etcd:///"+h.catalog, etcd.Config{Client: gatedClient(t, url, past)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.register.Close()) })
	lease, err := h.look.Grant(within(t, time.Minute), 600)
	require.NoError(t, err)
	h.lease = lease.ID
	require.NoError(t, h.register.Raise(within(t, time.Minute), tokenOf(1, 1), fence.Holder{Name: "holder"}))
	return h
}

// play plays one round. It returns whether the old holder's write changed anything
// behind the new one's claim, and what the old one was told.
func (h *oldHolder) play(w guardWay, order []string) (stale bool, err error) {
	ctx := within(h.t, time.Minute)
	token := h.begin(ctx)
	var under driver.Claiming
	installed, done, raised := false, make(chan error, 1), make(chan error, 1)
	news := map[string]func() error{
		"want":    func() (err error) { under, err = h.store.Claim(ctx); return err },
		"install": func() error { installed = true; return install(ctx, under, token.Generation+1) },
		"read": func() error { // the raise has read the register, and is on its way
			h.raiser.shut()
			go func() {
				raised <- h.register.Raise(ctx, fence.Token{Generation: token.Generation + 1, Epoch: token.Epoch + 1}, fence.Holder{Name: "holder"})
			}()
			h.raiser.await(h.t)
			return nil
		},
		"raise": func() error { installed = true; h.raiser.open(); return <-raised },
		"write": func() error { _, err := h.look.Put(ctx, h.row("a"), "new"); return err },
	}
	olds := map[string]func(){
		"before": func() { err = w.before(ctx, h) },
		"send": func() {
			h.gate.shut()
			go func() { done <- w.write(ctx, h) }()
			h.gate.await(h.t)
		},
		"arrive": func() {
			before := h.rows(ctx)
			h.gate.open()
			err = <-done
			stale = installed && h.rows(ctx) != before
		},
	}
	for _, step := range order {
		if news[step] != nil {
			require.NoError(h.t, news[step]())
		} else if err == nil {
			olds[step]()
		}
	}
	return stale, err
}

// begin puts the rows back, and makes the newest token the old holder's.
func (h *oldHolder) begin(ctx context.Context) fence.Token {
	for _, row := range []string{"a", "b"} {
		_, err := h.look.Put(ctx, h.row(row), "first")
		require.NoError(h.t, err)
	}
	if h.register != nil {
		now, err := h.register.State(ctx)
		require.NoError(h.t, err)
		h.token = now.Token
		return h.token
	}
	head, err := h.store.Head(ctx)
	require.NoError(h.t, err)
	h.token = head.Claim.Token
	return h.token
}

// rows shows all rows, with their revisions.
func (h *oldHolder) rows(ctx context.Context) string {
	resp, err := h.look.Get(ctx, h.row(""), clientv3.WithPrefix())
	require.NoError(h.t, err)
	return fmt.Sprint(resp.Kvs)
}

// claimBy installs the next token of a generation and returns the claim.
func claimBy(t *testing.T, s *etcd.Store, g generation.Generation) driver.Claim {
	t.Helper()
	ctx := within(t, time.Minute)
	c, err := s.Claim(ctx)
	require.NoError(t, err)
	require.NoError(t, install(ctx, c, g))
	head, err := s.Head(ctx)
	require.NoError(t, err)
	return head.Claim
}

func install(ctx context.Context, c driver.Claiming, g generation.Generation) error {
	next, rec := claimAfter(c.Head())
	next.Token.Generation, rec.Token.Generation = g, g
	return c.Install(ctx, next, rec)
}

// A gate keeps the writes of a client from the server while it is shut.
type gate struct {
	mu      sync.Mutex
	closed  chan struct{} // nil while the gate is open
	waiting chan struct{}
}

func newGate() *gate { return &gate{waiting: make(chan struct{}, 16)} }

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.closed)
	g.closed = nil
}

// await waits until a write is at the gate.
func (g *gate) await(t *testing.T) {
	select {
	case <-g.waiting:
	case <-time.After(time.Minute):
		require.Fail(t, "nothing was sent")
	}
}

func (g *gate) pass(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed != nil && strings.HasPrefix(method, "/etcdserverpb.KV/") && !strings.HasSuffix(method, "/Range") {
		g.waiting <- struct{}{}
		<-closed
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

func gatedClient(t *testing.T, url string, g *gate) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{strings.Split(url, "/")[2]}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(g.pass)},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}
