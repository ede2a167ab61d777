package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// The goals of a promotion: its median as a multiple of four raw commits, two
// HTTP calls and a wake-up, and its 95th percentile, in µs.
const (
	promotionGoal    = 1.5
	promotionGoalP95 = 50_000
)

// A contender is one process's Leader, in this process. Its first commit as the
// leader is timed.
type contender struct {
	*leader.Leader
	store     driver.Store
	stop      context.CancelFunc
	ended     chan error
	committed chan time.Time
}

func (b *bench) contend(name string, cfg leader.Config) (*contender, error) {
	return b.contendFor(name, cfg, nil)
}

// contendFor starts a contender that does work, or nil for one commit.
func (b *bench) contendFor(name string, cfg leader.Config, work leader.Work) (*contender, error) {
	store, err := b.backend.open(b.ctx, name)
	if err != nil {
		return nil, err
	}
	cfg.Admin = "127.0.0.1:0"
	if b.tracer != nil {
		store = &tracedStore{store, b.tracer, fmt.Sprintf("g%v", cfg.Catalog.Generation)}
	}
	l, err := leader.New(store, cfg)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	c := &contender{Leader: l, store: store, ended: make(chan error, 1), committed: make(chan time.Time, 1)}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(b.ctx)
	if work == nil {
		work = c.work(b)
	}
	go func() { c.ended <- l.Run(ctx, work) }()
	return c, nil
}

func (c *contender) work(b *bench) leader.Work {
	return func(ctx context.Context, term *leader.Term) error {
		if err := term.Update(ctx, func(tx *catalog.Tx) error { return entries.Set(tx, key(0), b.next()) }); err != nil {
			return err
		}
		select {
		case c.committed <- time.Now():
		default: // not the first time
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

// end stops the contender and joins it.
func (c *contender) end() error {
	c.stop()
	err := <-c.ended
	return errors.Join(err, c.store.Close())
}

// until waits for a state of the contender.
func (c *contender) until(is func(leader.Status) bool) error {
	const patience = 30 * time.Second
	for late := time.Now().Add(patience); !is(c.Status()); time.Sleep(time.Millisecond) {
		select {
		case err := <-c.ended:
			c.ended <- err
			return fmt.Errorf("a contender ended as %v: %w", c.Status().Phase, err)
		default:
		}
		if time.Now().After(late) {
			return fmt.Errorf("a contender is still %v: %s", c.Status().Phase, c.Status().Reason)
		}
	}
	return nil
}

func in(p leader.Phase) func(leader.Status) bool {
	return func(s leader.Status) bool { return s.Phase == p }
}

// promotions measures from a call to green's admin API until green has made its
// first commit, while blue leads and is asked to hand over.
func promotions(b *bench) error {
	floor, idle, note, err := b.promotionFloor()
	if err != nil {
		return err
	}
	name := fresh("promote")
	blue, err := b.contend(name, leader.Config{Catalog: catalog.Config{Generation: 1}})
	if err != nil {
		return err
	}
	if err := blue.until(in(leader.Leading)); err != nil {
		return err
	}
	<-blue.committed
	var took []time.Duration
	for range b.takeover {
		// A deploy has its number before it begins.
		g, err := catalog.NewBoard(blue.store, catalog.Config{}).NextGeneration(b.ctx)
		if err != nil {
			return err
		}
		d, green, err := b.promotion(name, blue, g)
		if err != nil {
			return err
		}
		took, blue = append(took, d), green
	}
	f := distribution(figure{Name: "promotion until the first commit", FloorUS: floor, Note: note}, took)
	f.Ratio = f.P50 / floor
	b.report(f.atMost(f.Ratio, promotionGoal, "x floor"))
	f = figure{Name: "promotion, floor from idle", P50: f.P50, P99: f.P99, FloorUS: idle, Ratio: f.P50 / idle}
	b.report(f.atMost(f.Ratio, promotionGoal, "x floor"))
	b.report(figure{Name: "promotion, p95", P50: p95(took)}.atMost(p95(took), promotionGoalP95, " µs"))
	return blue.end()
}

func (b *bench) promotion(name string, blue *contender, g generation.Generation) (time.Duration, *contender, error) {
	green, err := b.contend(name, leader.Config{Catalog: catalog.Config{Generation: g}})
	if err != nil {
		return 0, nil, err
	}
	if err := green.until(in(leader.ReadyToPromote)); err != nil {
		return 0, nil, err
	}
	time.Sleep(quiet + rand.N(quiet)) // so that it does not fall in with a poll
	began := time.Now()
	b.tracer.start(began)
	if err := post("http://"+green.Status().Admin+"/api/leader/promote", fmt.Sprintf(`{"generation":%v}`, g)); err != nil {
		return 0, nil, err
	}
	b.tracer.note("client", "promote", began)
	committed := <-green.committed
	if err := <-blue.ended; !errors.Is(err, fence.ErrSuperseded) {
		return 0, nil, fmt.Errorf("blue ended otherwise than superseded: %w", err)
	}
	b.tracer.print(append(blue.Status().Moves[1:], green.Status().Moves...), committed)
	blue.stop()
	return committed.Sub(began), green, blue.store.Close()
}

// post makes one HTTP call, on a connection of its own.
func post(target, body string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(target, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, said)
	}
	return err
}

// promotionFloor measures what no promotion can go without, in µs: in a loop, one
// after the other, and each from idle, as a promotion begins, where caches are
// cold and processes asleep.
func (b *bench) promotionFloor() (busy, idle float64, note string, err error) {
	r, h, err := b.pair()
	if err != nil {
		return 0, 0, "", err
	}
	defer r.close()
	defer h.close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body) // a client that is gone fails by itself
	}))
	defer server.Close()
	write := b.rawWrite(r)
	ask := func(context.Context, int) error { return post(server.URL, `{"generation":1}`) }
	commit, err1 := load(b.ctx, 1, b.serial, write)
	call, err2 := load(b.ctx, 1, b.serial, ask)
	idleCommit, err3 := b.fromIdle(write)
	idleCall, err4 := b.fromIdle(ask)
	wake, err5 := b.wakeUp(h)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return 0, 0, "", err
	}
	note = fmt.Sprintf("4 raw commits of %.0f (from idle %.0f), 2 calls of %.0f (%.0f), 1 wake-up of %.0f µs",
		commit.p50, idleCommit, call.p50, idleCall, wake)
	return 4*commit.p50 + 2*call.p50 + wake, 4*idleCommit + 2*idleCall + wake, note, nil
}

// fromIdle returns the median of op, in µs, where nothing went before it for a
// while.
func (b *bench) fromIdle(op operation) (float64, error) {
	var took []float64
	for range 30 {
		time.Sleep(quiet)
		began := time.Now()
		if err := op(b.ctx, 0); err != nil {
			return 0, err
		}
		took = append(took, micros(time.Since(began)))
	}
	return median(took), nil
}

// wakeUp measures how long after a claim was acknowledged another handle is
// woken, in µs; 0 where it is woken before.
func (b *bench) wakeUp(h *holder) (float64, error) {
	store, err := b.backend.open(b.ctx, h.name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = store.Close() }()
	w, ok := store.(driver.Watcher)
	if !ok {
		return 0, fmt.Errorf("%s wakes nobody", store)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	woken, watched := make(chan time.Time, 64), make(chan error, 1)
	go func() {
		watched <- w.Watch(ctx, func() {
			select {
			case woken <- time.Now():
			default: // nobody waits
			}
		})
	}()
	defer func() { cancel(); <-watched }()
	<-woken // it watches
	var late []float64
	for range 20 {
		d, err := b.wakeUpOnce(h.name, woken)
		if err != nil {
			return 0, err
		}
		late = append(late, d)
	}
	return median(late), nil
}

// wakeUpOnce claims, and returns how much later than the acknowledgement woken
// received.
func (b *bench) wakeUpOnce(name string, woken <-chan time.Time) (float64, error) {
	store, err := b.backend.open(b.ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = store.Close() }()
	time.Sleep(quiet)
	for len(woken) > 0 {
		<-woken
	}
	timed := &timedStore{Store: store}
	c, err := catalog.Open(b.ctx, timed, catalog.Config{Generation: 1})
	if err != nil {
		return 0, err
	}
	select {
	case at := <-woken:
		return max(0, micros(at.Sub(timed.landed))), c.Close()
	case <-time.After(time.Second):
		return 0, errors.Join(fmt.Errorf("%s wakes nobody after a claim", store), c.Close())
	}
}

// distribution fills in what many measurements of one thing come to.
func distribution(f figure, took []time.Duration) figure {
	t := newTiming(took, time.Second)
	f.P50, f.P99 = t.p50, t.p99
	f.Note = strings.TrimPrefix(f.Note+fmt.Sprintf("; p95 %.0f, longest %.0f µs, n=%d", p95(took), micros(slices.Max(took)), len(took)), "; ")
	return f
}

func p95(took []time.Duration) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return micros(sorted[int(0.95*float64(len(sorted)-1))])
}

// freePort returns an address of loopback at which nobody listens.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
