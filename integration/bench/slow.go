package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/integration/replicas"
	"github.com/fencepost/fencepost/leader"
)

// blockedFor is how long a claim is kept from passing, and migrationTakes what it
// says. Neither is shorter in a quick run: delays that grow are what is looked for.
const (
	blockedFor     = 45 * time.Second
	migrationTakes = 7 * time.Second
)

// A blocker keeps the claim of a standby from passing. Release removes the blocker;
// after that the holder is dead.
type blocker func(context.Context, *replicas.Set, *replicas.Server, *replicas.Pulse) (release func() error, err error)

// blocked measures for how long nobody serves once the blocker of a standby's claim is
// gone. On etcd nothing blocks a claim for longer than Config.ClaimTTL.
func blocked(b *bench) error {
	block, what := b.lockHead, "a lock"
	switch b.backend.(type) {
	case *etcdBackend:
		return nil
	case *sqliteBackend:
		block, what = b.stopInWrite, "a stopped process"
	}
	name := fmt.Sprintf("claim behind %s of %.0f s", what, blockedFor.Seconds())
	return b.reportOutage(name, b.slow, blockedGoalP95, func(f *replicas.Set) (time.Duration, error) {
		all, p, err := b.serve(f, replicas.Options{Generation: 1, Admin: true}, replicas.Options{Generation: 1, Admin: true})
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		release, err := block(b.ctx, f, all[0], p)
		if err != nil {
			return 0, err
		}
		time.Sleep(blockedFor)
		b.untilItWaits(all[1])
		if err := release(); err != nil {
			return 0, err
		}
		return after(p, time.Now())
	})
}

// untilItWaits returns right after a claim of s has failed, if its log soon says so:
// from then on s waits the longest before it tries again.
func (b *bench) untilItWaits(s *replicas.Server) {
	const most = 30 * time.Second
	failed := func() int { return strings.Count(s.Log(), "level=WARN") }
	for before, late := failed(), time.Now().Add(most); failed() == before && time.Now().Before(late); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(warmUp)
}

// lockHead has somebody lock the row that every claim locks first.
func (b *bench) lockHead(ctx context.Context, f *replicas.Set, holder *replicas.Server, p *replicas.Pulse) (func() error, error) {
	conn, err := pgx.Connect(ctx, b.backend.(*postgresBackend).dsn)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `begin; select from fencepost.token for share`); err != nil {
		return nil, err
	}
	holder.Kill()
	return func() error { return conn.Close(ctx) }, nil
}

// stopInWrite stops the holder inside a write, in which it holds the file.
func (b *bench) stopInWrite(ctx context.Context, f *replicas.Set, holder *replicas.Server, p *replicas.Pulse) (func() error, error) {
	var more []*replicas.Pulse
	for range 4 { // so that there is a write under way most of the time
		more = append(more, replicas.NewPulse(holder.Address))
	}
	_, err := b.stop(f, holder, true)
	return func() error {
		for _, p := range more {
			p.Stop()
		}
		holder.Kill()
		return nil
	}, err
}

// migrations measures the longest time without an acknowledged write during a deploy
// whose migration takes long: one that reads nothing of what is written meanwhile, and
// one that reads what clients write all the time.
func migrations(b *bench) error {
	for _, m := range []struct {
		name, reads string
		goal        time.Duration
	}{
		{"reads nothing that is written", "", handoverPause},
		{"reads what is written", replicas.PulseKey, migrationTakes + handoverPause},
	} {
		if err := b.migration(m.name, m.reads, m.goal); err != nil {
			return err
		}
	}
	return b.unknownAtADeploy()
}

// unknownAtADeploy counts the writes that a promotion leaves unknown to a program that
// writes by the context of its work, in a loop. A server with contexts of its own, such
// as kvserver, has none.
func (b *bench) unknownAtADeploy() error {
	unknown, writes := 0, 0
	for range b.outages {
		name, ended := fresh("unknown"), make(chan error, 1)
		blue, err := b.contendFor(name, leader.Config{Catalog: catalog.Config{Generation: 1}}, func(ctx context.Context, term *leader.Term) error {
			for {
				if err := term.Update(ctx, func(tx *catalog.Tx) error { return entries.Set(tx, key(0), b.next()) }); err != nil {
					ended <- err
					return context.Cause(ctx)
				}
				writes++
			}
		})
		if err != nil {
			return err
		}
		if err := blue.until(in(leader.Leading)); err != nil {
			return err
		}
		_, green, err := b.promotion(name, blue, 2)
		if err != nil {
			return err
		}
		if catalog.OutcomeOf(<-ended) == driver.Unknown {
			unknown++
		}
		if err := green.end(); err != nil {
			return err
		}
	}
	f := figure{Name: "deploy, writes of unknown outcome by the work's context", Ratio: float64(unknown), Note: fmt.Sprintf("in %d deploys, %d writes", b.outages, writes)}
	b.report(f.atMost(float64(unknown), 0, ""))
	return nil
}

// handoverPause is how long nobody serves at a deploy, besides its migration.
const handoverPause = 500 * time.Millisecond

// noPause is what a write may take on a busy machine.
const noPause = time.Second

func (b *bench) migration(name, reads string, goal time.Duration) error {
	var pauses, unknown, most int
	took, err := b.outagesOf(b.slow, func(f *replicas.Set) (time.Duration, error) {
		blue, p, err := b.serve(f, replicas.Options{Generation: 1, Admin: true})
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		began := time.Now()
		green, err := f.Start(replicas.Options{Generation: 2, Admin: true, Program: os.Args[0], Env: []string{slowVar + "=" + migrationTakes.String(), slowReadsVar + "=" + reads}})
		if err != nil {
			return 0, err
		}
		if err := green.Until(b.ctx, replicas.Ready); err != nil {
			return 0, err
		}
		if err := post("http://"+green.AdminAddress+"/api/leader/promote", `{"generation":2}`); err != nil {
			return 0, err
		}
		if err := green.Until(b.ctx, replicas.Leading); err != nil {
			return 0, err
		}
		if _, err := after(p, time.Now()); err != nil { // blue forwards
			return 0, err
		}
		if code, err := blue[0].Exit(b.ctx); err != nil {
			return 0, err
		} else if code != 0 {
			return 0, fmt.Errorf("blue ended with %d", code)
		}
		gaps := p.Gaps(began, noPause)
		most, pauses, unknown = max(most, len(gaps)), pauses+len(gaps), unknown+len(p.Unknown())
		return longest(p, began), nil
	})
	if err != nil {
		return err
	}
	name = fmt.Sprintf("deploy, a migration of %.0f s %s", migrationTakes.Seconds(), name)
	b.report(distribution(figure{Name: name}, took).atMost(p95(took), micros(goal), " µs at p95"))
	b.report(figure{Name: fmt.Sprintf("… its pauses above %v", noPause), Ratio: float64(most), Note: fmt.Sprintf("%d in %d deploys; the ratio is the most of one deploy", pauses, len(took))}.atMost(float64(most), 1, ""))
	b.report(figure{Name: "… its writes of unknown outcome", Ratio: float64(unknown)}.atMost(float64(unknown), 0, ""))
	return nil
}
