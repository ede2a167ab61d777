package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/integration/replicas"
)

// The goals of what follows, at the 95th percentile, in µs: for how long nobody
// serves. Clients write in a loop to every process that there is, and the time is
// from the event, or from the last acknowledged write before it, to the next one.
const (
	deathGoalP95    = 150_000   // and the start of the process where there is no other
	stoppedGoalP95  = 1_000_000 // a promotion over a holder that is stopped
	fenceGoalP95    = 200_000
	stepDownGoalP95 = 50_000 // a step-down that nobody could take over is refused: no longer than any write
	blockedGoalP95  = 500_000
)

const (
	outagePatience = 2 * time.Minute
	hoursAgo       = 3 * time.Second        // by then every standby has heard a heartbeat of who leads
	warmUp         = 700 * time.Millisecond // of clients and standbys, before the event
)

// An outage makes one event happen to a service, and returns how long nobody
// served.
type outage func(*replicas.Set) (time.Duration, error)

// outagesOf measures an outage n times, each with a service of its own.
func (b *bench) outagesOf(n int, once outage) (took []time.Duration, err error) {
	for range n {
		err := b.withSet(func(f *replicas.Set) error {
			d, err := once(f)
			took = append(took, d)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return took, nil
}

// reportOutage measures n of an outage and reports them beside their goal.
func (b *bench) reportOutage(name string, n int, goal float64, once outage) error {
	took, err := b.outagesOf(n, once)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b.report(distribution(figure{Name: name}, took).atMost(p95(took), goal, " µs at p95"))
	return nil
}

// serve starts servers, the first of which leads and all others of which are ready,
// and clients of all of them.
func (b *bench) serve(f *replicas.Set, all ...replicas.Options) (servers []*replicas.Server, p *replicas.Pulse, err error) {
	var addresses []string
	for i, o := range all {
		s, err := f.Start(o)
		if err != nil {
			return nil, nil, err
		}
		phase := replicas.Ready
		if i == 0 {
			phase = replicas.Leading
		}
		if err := s.Until(b.ctx, phase); err != nil {
			return nil, nil, err
		}
		servers, addresses = append(servers, s), append(addresses, s.Address)
	}
	p = replicas.NewPulse(addresses...)
	if _, ok := p.Await(time.Time{}, outagePatience); !ok {
		p.Stop()
		return nil, nil, errors.New("no write was acknowledged")
	}
	time.Sleep(warmUp)
	return servers, p, nil
}

// after returns how long after t a write was acknowledged.
func after(p *replicas.Pulse, t time.Time) (time.Duration, error) {
	at, ok := p.Await(t, outagePatience)
	if !ok {
		return 0, fmt.Errorf("no write was acknowledged within %v", outagePatience)
	}
	return at.Sub(t), nil
}

// longest returns the longest time without an acknowledged write since t.
func longest(p *replicas.Pulse, t time.Time) time.Duration {
	return slices.Max(append(p.Gaps(t, 0), 0))
}

// restarts measures from the SIGKILL of a holder that has no standby: it is started
// again at once by whoever watches it, and by `fencepost run`. The floor is the
// start of the process until it answers anything.
func restarts(b *bench) error {
	var starts []time.Duration
	took, err := b.outagesOf(b.outages, func(f *replicas.Set) (time.Duration, error) {
		all, p, err := b.serve(f, replicas.Options{Generation: 1})
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		all[0].Kill()
		killed := time.Now()
		p.Forget(all[0].Address)
		again, err := f.Start(replicas.Options{Generation: 1, Listen: all[0].Address})
		if err != nil {
			return 0, err
		}
		d, err := after(p, killed)
		starts = append(starts, p.Answered(again.Address).Sub(again.Started))
		return d, err
	})
	if err != nil {
		return err
	}
	b.reportRestart("SIGKILL, no standby, started again at once", took, starts)
	took, err = b.outagesOf(b.outages, func(f *replicas.Set) (time.Duration, error) {
		all, p, err := b.serve(f, replicas.Options{Generation: 1, Supervised: true})
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		killed := time.Now()
		if err := all[0].KillChild(); err != nil {
			return 0, err
		}
		return after(p, killed.Add(time.Millisecond)) // an acknowledgement may be under way
	})
	if err != nil {
		return err
	}
	b.reportRestart("SIGKILL, no standby, under fencepost run", took, starts)
	return nil
}

func (b *bench) reportRestart(name string, took, starts []time.Duration) {
	floor := newTiming(slices.Clone(starts), time.Second).p50
	f := distribution(figure{Name: name, FloorUS: floor, Note: fmt.Sprintf("the floor, the start of the process, is %.0f µs at p95", p95(starts))}, took)
	f.Ratio = f.P50 / floor
	b.report(f.atMost(p95(took)-p95(starts), deathGoalP95, " µs + start at p95"))
}

// kills measures from the SIGKILL of a holder with a standby on the same host: without
// an admin address, and right after its claim, when no heartbeat of it was seen yet.
func kills(b *bench) error {
	err := b.reportOutage("SIGKILL, standby on the host, no admin address", b.outages, deathGoalP95, func(f *replicas.Set) (time.Duration, error) {
		return b.kill(f, replicas.Options{Generation: 1}, func([]*replicas.Server) error { return nil })
	})
	if err != nil {
		return err
	}
	return b.reportOutage("SIGKILL, as soon as it leads, another standby", b.outages, deathGoalP95, b.killTwice)
}

// killTwice kills a holder, and then its successor as soon as that leads.
func (b *bench) killTwice(f *replicas.Set) (time.Duration, error) {
	o := replicas.Options{Generation: 1, Admin: true}
	all, p, err := b.serve(f, o, o, o)
	if err != nil {
		return 0, err
	}
	defer p.Stop()
	all[0].Kill()
	for late := time.Now().Add(outagePatience); time.Now().Before(late); {
		for _, s := range all[1:] {
			if s.Phase(time.Second) == replicas.Leading {
				s.Kill()
				return after(p, time.Now())
			}
		}
	}
	return 0, errors.New("no standby leads after a SIGKILL")
}

// kill starts a holder and a standby, calls prepare, and then kills the process that
// leads.
func (b *bench) kill(f *replicas.Set, o replicas.Options, prepare func([]*replicas.Server) error) (time.Duration, error) {
	all, p, err := b.serve(f, o, o)
	if err != nil {
		return 0, err
	}
	defer p.Stop()
	if err := prepare(all); err != nil {
		return 0, err
	}
	victim := all[0]
	if victim.Phase(time.Second) != replicas.Leading {
		victim = all[1]
	}
	time.Sleep(warmUp)
	victim.Kill()
	return after(p, time.Now())
}

// reluctance measures a failover to a process that stepped down before. Another one
// has led since.
func reluctance(b *bench) error {
	return b.reportOutage("SIGKILL, the standby stepped down before", b.outages, deathGoalP95, func(f *replicas.Set) (time.Duration, error) {
		return b.kill(f, replicas.Options{Generation: 1, Admin: true}, func(all []*replicas.Server) error {
			if err := f.Must(b.ctx, "step-down", "--admin", all[0].AdminAddress); err != nil {
				return err
			}
			if err := errors.Join(all[1].Until(b.ctx, replicas.Leading), all[0].Until(b.ctx, replicas.Ready)); err != nil {
				return err
			}
			time.Sleep(hoursAgo)
			return nil
		})
	})
}

// promotionsOverAStop measures from the promotion of a generation while the holder is
// stopped, in the middle of no write: on SQLite it would hold the file.
func promotionsOverAStop(b *bench) error {
	return b.reportOutage("promotion, the holder is stopped", b.outages, stoppedGoalP95, func(f *replicas.Set) (time.Duration, error) {
		all, p, err := b.serve(f, replicas.Options{Generation: 1, Admin: true}, replicas.Options{Generation: 2, Admin: true})
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		p.Pause()
		if _, err := b.stop(f, all[0], false); err != nil {
			return 0, err
		}
		p.Resume()
		asked := time.Now()
		if err := post("http://"+all[1].AdminAddress+"/api/leader/promote", `{"generation":2}`); err != nil {
			return 0, err
		}
		return after(p, asked)
	})
}

// stop stops a holder until it stands inside a write, or outside of any, as far as
// another process finds by a write of its own. It returns how often it tried.
func (b *bench) stop(f *replicas.Set, s *replicas.Server, inside bool) (tries int, err error) {
	const most = 500
	for tries = 1; tries <= most; tries++ {
		if err := s.Signal(syscall.SIGSTOP); err != nil {
			return tries, err
		}
		_, code, err := f.Fencepost(b.ctx, "generation", "next", "--timeout", "400ms")
		if err != nil || (code != 0) == inside {
			return tries, err
		}
		if err := s.Signal(syscall.SIGCONT); err != nil {
			return tries, err
		}
		time.Sleep(warmUp / 10)
	}
	return tries, fmt.Errorf("%s was never stopped inside a write: %v", s, inside)
}

// fences measures an epoch fence from the command, while a standby is ready: the
// longest time without an acknowledged write.
func fences(b *bench) error {
	return b.reportOutage("fencepost fence, standby ready", b.outages, fenceGoalP95, func(f *replicas.Set) (time.Duration, error) {
		all, p, err := b.serve(f, replicas.Options{Generation: 1, Admin: true}, replicas.Options{Generation: 1, Admin: true})
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		began := time.Now()
		if err := f.Must(b.ctx, "fence", "--reason", "bench"); err != nil {
			return 0, err
		}
		if _, err := all[0].Exit(b.ctx); err != nil {
			return 0, err
		}
		_, err = after(p, time.Now())
		return longest(p, began), err
	})
}

// stepDowns measures the longest time without an acknowledged write while a holder
// is asked to step down and nobody could take over. The floor is the same just before.
func stepDowns(b *bench) error {
	var codes []string
	var before []time.Duration
	took, err := b.outagesOf(b.outages, func(f *replicas.Set) (time.Duration, error) {
		all, p, err := b.serve(f, replicas.Options{Generation: 1, Admin: true})
		if err != nil {
			return 0, err
		}
		defer p.Stop()
		began := time.Now()
		before = append(before, longest(p, began.Add(-warmUp)))
		out, code, err := f.Fencepost(b.ctx, "step-down", "--admin", all[0].AdminAddress)
		if err != nil {
			return 0, err
		}
		codes = append(codes, fmt.Sprint(code))
		if code == 0 {
			return 0, fmt.Errorf("step-down ended with 0, and nobody is there to take over: %s", out)
		}
		_, err = after(p, time.Now())
		return longest(p, began), err
	})
	if err != nil {
		return err
	}
	note := "exit status " + strings.Join(slices.Compact(codes), ", ")
	f := distribution(figure{Name: "step-down without a standby", FloorUS: p95(before), Note: note}, took)
	b.report(f.atMost(p95(took)-p95(before), stepDownGoalP95, " µs + floor at p95"))
	return nil
}
