package postgres

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/orders"
	"github.com/fencepost/fencepost/internal/testpg"
)

// The orders of an old holder's transaction against a new holder's claim are
// enumerated, not sampled: every order of the old one's steps, in every merge with
// the new one's. A step whose session has to wait for the other one stays under way
// while the other goes on.

const part = 16 // of so many orders one is played

// A way is how an old holder guards its transaction.
type way struct {
	name   string
	guards bool // no order may commit anything stale; of the others some order must
	begin  string
	table  string
	guard  func(ctx context.Context, p *player) error
}

func run(sql string) func(context.Context, *player) error {
	return func(ctx context.Context, p *player) error {
		_, err := p.conn.Exec(ctx, sql)
		return err
	}
}

// asked refuses what a look on another connection finds stale, as a lease check or
// Confirm does: the statement is not part of the transaction.
func asked(ctx context.Context, p *player) error {
	return looked(ctx, p.aside)
}

// inTransaction is the guard that everybody writes first.
func inTransaction(ctx context.Context, p *player) error { return looked(ctx, p.conn) }

func looked(ctx context.Context, conn *pgx.Conn) error {
	var mine bool
	err := conn.QueryRow(ctx, `select exists (select from fencepost.token where catalog = 'main' and generation = 1 and epoch = 1)`).Scan(&mine)
	if err == nil && !mine {
		err = errStaleLook
	}
	return err
}

var errStaleLook = errors.New("another process has claimed")

func ways() []way {
	var all []way
	for _, level := range []string{"read committed", "repeatable read", "serializable"} {
		begin := "begin isolation level " + level
		all = append(all,
			way{"guard, " + level, true, begin, "plain", run(`select fencepost.guard('main', 'g1.e1')`)},
			way{"lock, " + level, true, begin, "plain", run(guard{catalog: "main"}.lockSQL(fence.Token{Generation: 1, Epoch: 1}))},
			way{"trigger, " + level, true, begin, "guarded", run(`set local fencepost.token = 'g1.e1'`)},
			way{"exists, " + level, false, begin, "plain", inTransaction},
			way{"look aside, " + level, false, begin, "plain", asked},
		)
	}
	return all
}

func TestInNoOrderOfStepsDoesAGuardedTransactionCommitBehindAClaim(t *testing.T) {
	t.Parallel()
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			g := newGame(t, w)
			stale, played := 0, 0
			for i, old := range orders.Permutations([]string{"snapshot", "guard", "write"}) {
				old = slices.Concat([]string{"begin"}, old, []string{"commit"})
				for j, order := range orders.Merges(orders.Steps("old", old...), orders.Steps("new", "lock", "claim", "commit")) {
					if os.Getenv(drivertest.WholeVar) == "" && w.guards && (i*7+j)%part != 0 {
						continue
					}
					played++
					accepted := g.play(order)
					require.False(t, accepted && w.guards, "%v", order)
					if accepted {
						stale++
					}
					if stale > 2 && os.Getenv(drivertest.WholeVar) == "" {
						return // the naive way was shown to fail
					}
				}
			}
			t.Logf("%d of %d orders committed something stale", stale, played)
			require.Equal(t, w.guards, stale == 0)
		})
	}
}

// A player is one side of a game. It plays one step at a time.
type player struct {
	name        string
	conn, aside *pgx.Conn
	pid         int
	play        map[string]func(context.Context, *player) error
	steps       chan func(context.Context, *player) error
	answers     chan error

	queue   []string // the steps that are due; the first may be under way
	pending bool     // it is
	err     error    // of the first step that failed; the others are not played
}

func newPlayer(t *testing.T, name, dsn string, play map[string]func(context.Context, *player) error) *player {
	p := &player{
		name: name, conn: testpg.Connect(t, dsn), aside: testpg.Connect(t, dsn), play: play,
		steps: make(chan func(context.Context, *player) error), answers: make(chan error),
	}
	p.pid = int(p.conn.PgConn().PID())
	ctx := drivertest.Context(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for step := range p.steps {
			p.answers <- step(ctx, p)
		}
	}()
	t.Cleanup(func() { close(p.steps); <-done })
	return p
}

// A game is played in rounds, one for each order of steps.
type game struct {
	t        *testing.T
	old, new *player
	look     *pgx.Conn
	commits  []string // of a round: who committed, in order
}

// newGame makes a catalog that g1.e1 holds, with a plain and a guarded table.
func newGame(t *testing.T, w way) *game {
	dsn := testpg.URL(t)
	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	drivertest.Install(t, s, 1)
	testpg.Exec(t, dsn, `create table plain (n int)`, `create table guarded (n int)`,
		`create table first_token as select * from fencepost.token`, `create table first_head as select * from fencepost.head`)
	require.NoError(t, s.InstallGuards(drivertest.Context(t), driver.GuardedTables{Tables: []string{"guarded"}}))
	claim := strings.NewReplacer("$catalog", "'main'", "$token", "g2.e2").Replace(`
		update fencepost.head set revision = 2, commit_id = gen_random_uuid(), claim = '{"token":"$token"}' where catalog = $catalog;
		insert into fencepost.token select catalog, 2, 2, commit_id, 'x', 1 from fencepost.head where catalog = $catalog
			on conflict (catalog) do update set generation = 2, epoch = 2, claim_id = excluded.claim_id;
		insert into fencepost.claim (catalog, revision, claim) select catalog, revision, claim from fencepost.head where catalog = $catalog`)
	locks := []string{"begin", lockTokenSQL, awaitSQL, lockHeadSQL}
	return &game{
		t: t, look: testpg.Connect(t, dsn),
		old: newPlayer(t, "old", dsn, map[string]func(context.Context, *player) error{
			"begin": run(w.begin), "snapshot": run(`select count(*) from plain`), "guard": w.guard,
			"write": run("insert into " + w.table + " values (1)"), "commit": run("commit"),
		}),
		new: newPlayer(t, "new", dsn, map[string]func(context.Context, *player) error{
			"lock": run(strings.ReplaceAll(strings.Join(locks, ";"), "$1", "'main'")), "claim": run(claim), "commit": run("commit"),
		}),
	}
}

// play plays one round, and reports whether the old holder's write was committed
// behind the new one's claim.
func (g *game) play(order []orders.Step) (stale bool) {
	g.reset()
	sides := map[string]*player{"old": g.old, "new": g.new}
	for _, step := range order {
		p := sides[step.Who]
		p.queue = append(p.queue, step.What)
		g.advance(p)
	}
	for len(g.old.queue)+len(g.new.queue) > 0 { // what waited for the other side
		g.advance(g.old)
		g.advance(g.new)
	}
	return slices.Equal(g.commits, []string{"new", "old"})
}

// advance plays what is due until nothing is, or a step waits for the other side.
func (g *game) advance(p *player) {
	for len(p.queue) > 0 {
		if !p.pending {
			step := p.play[p.queue[0]]
			if p.err != nil {
				step = run("rollback")
			}
			p.steps <- step
			p.pending = true
		}
		err, blocked := g.await(p)
		if blocked {
			return
		}
		p.pending = false
		if p.err == nil {
			p.err = err
		}
		if p.queue[0] == "commit" && p.err == nil {
			g.commits = append(g.commits, p.name)
		}
		p.queue = p.queue[1:]
	}
}

// await waits for the answer to a step, or until its session waits for a lock.
func (g *game) await(p *player) (err error, blocked bool) {
	for {
		select {
		case err := <-p.answers:
			return err, false
		case <-time.After(2 * time.Millisecond):
		}
		require.NoError(g.t, g.look.QueryRow(drivertest.Context(g.t), `select cardinality(pg_blocking_pids($1)) > 0`, p.pid).Scan(&blocked))
		if blocked {
			return nil, true
		}
	}
}

// reset goes back to the first claim.
func (g *game) reset() {
	g.commits = nil
	for _, p := range []*player{g.old, g.new} {
		p.err = nil
		_, err := p.conn.Exec(drivertest.Context(g.t), `rollback`)
		require.NoError(g.t, err)
	}
	_, err := g.look.Exec(drivertest.Context(g.t), `truncate plain; set fencepost.token = 'g1.e1';
		delete from fencepost.claim where revision > 1;
		update fencepost.head h set revision = f.revision, commit_id = f.commit_id, claim = f.claim from first_head f;
		update fencepost.token t set generation = f.generation, epoch = f.epoch, claim_id = f.claim_id from first_token f`)
	require.NoError(g.t, err)
}
