package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/internal/clock"
	"github.com/fencepost/fencepost/leader"
)

// The goals of a failover: the 95th percentile behind a kill, in µs, and behind
// a host that is gone, as a multiple of the lease.
const (
	killedGoalP95 = 150_000
	goneGoal      = 1.10
)

// childVar tells a child of this program which catalog it leads: the store, the
// folder, the name and the lease.
const childVar = "FENCEPOST_BENCH_CHILD"

// child leads until it is killed.
func child(spec string) error {
	part := strings.SplitN(spec, "|", 4)
	lease, err := time.ParseDuration(part[3])
	if err != nil {
		return err
	}
	var back backend = &sqliteBackend{part[1]}
	if part[0] != "sqlite" {
		if back, err = newBackend(part[0], ""); err != nil {
			return err
		}
	}
	store, err := back.open(context.Background(), part[2])
	if err != nil {
		return err
	}
	l, err := leader.New(store, leader.Config{Catalog: catalog.Config{Generation: 1}, Admin: "127.0.0.1:0", Lease: lease})
	if err != nil {
		return err
	}
	return l.Run(context.Background(), func(ctx context.Context, term *leader.Term) error {
		term.Serving()
		fmt.Println(l.Status().Admin)
		<-ctx.Done()
		return context.Cause(ctx)
	})
}

// A victim is a process that leads.
type victim struct {
	cmd   *exec.Cmd
	admin string
}

func (b *bench) victim(name string, lease time.Duration) (*victim, error) {
	dir := ""
	if s, ok := b.backend.(*sqliteBackend); ok {
		dir = s.dir
	}
	v := &victim{cmd: exec.CommandContext(b.ctx, os.Args[0])}
	v.cmd.Env = append(os.Environ(), childVar+"="+strings.Join([]string{b.backend.name(), dir, name, lease.String()}, "|"))
	v.cmd.Stderr = os.Stderr
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	v.admin = strings.TrimSpace(line)
	return v, err
}

func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait() // its status is the kill's
}

// watched reports whether a standby is connected to the victim.
func (v *victim) watched() (bool, error) {
	resp, err := http.Get("http://" + v.admin + "/api/leader/status")
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var s leader.Status
	text, err := io.ReadAll(resp.Body)
	return err == nil && json.Unmarshal(text, &s) == nil && s.Standbys > 0, err
}

// failovers measures from the end of the holder's process until a standby has
// made its first commit: by SIGKILL, with the default configuration, and by
// SIGSTOP, as of a host that neither answers nor refuses.
func failovers(b *bench) error {
	killed, err := b.failover(b.takeover, 0, func(v *victim) { _ = v.cmd.Process.Kill() })
	if err != nil {
		return err
	}
	b.report(distribution(figure{Name: "failover, process killed"}, killed).atMost(p95(killed), killedGoalP95, " µs at p95"))
	const lease = 600 * time.Millisecond
	gone, err := b.failover(max(b.takeover/5, 10), lease, func(v *victim) { _ = v.cmd.Process.Signal(syscall.SIGSTOP) })
	if err != nil {
		return err
	}
	f := distribution(figure{Name: "failover, host gone", FloorUS: micros(lease), Note: "the floor is the lease"}, gone)
	f.Ratio = p95(gone) / f.FloorUS
	b.report(f.atMost(f.Ratio, goneGoal, "x lease at p95"))
	return leaseChecks(b)
}

func (b *bench) failover(rounds int, lease time.Duration, strike func(*victim)) (took []time.Duration, err error) {
	for range rounds {
		d, err := b.failoverOnce(lease, strike)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	return took, nil
}

func (b *bench) failoverOnce(lease time.Duration, strike func(*victim)) (time.Duration, error) {
	name := fresh("failover")
	v, err := b.victim(name, lease)
	if err != nil {
		return 0, err
	}
	defer v.kill()
	cfg := leader.Config{Catalog: catalog.Config{Generation: 1}, Lease: lease}
	if lease > 0 {
		cfg.Poll = lease / 60
	}
	standby, err := b.contend(name, cfg)
	if err != nil {
		return 0, err
	}
	if err := standby.until(in(leader.ReadyToPromote)); err != nil {
		return 0, err
	}
	for late := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if ok, err := v.watched(); err != nil {
			return 0, err
		} else if ok {
			break
		}
		if time.Now().After(late) {
			return 0, errors.New("no standby has connected to the holder")
		}
	}
	time.Sleep(quiet)
	began := time.Now()
	strike(v)
	committed := <-standby.committed
	return committed.Sub(began), standby.end()
}

// The goals of looking whether the lease holds, in ns.
const (
	bootGoal      = 300
	monotonicGoal = 60
)

// leaseChecks measures Leader.Held, by both clocks.
func leaseChecks(b *bench) error {
	for _, by := range []struct {
		name  string
		clock leader.Clock
		raw   clock.Clock
		goal  float64
	}{{"boot-time clock", leader.BootTime, clock.Boot, bootGoal}, {"monotonic clock", leader.Monotonic, clock.Monotonic, monotonicGoal}} {
		c, err := b.contend(fresh("lease"), leader.Config{Catalog: catalog.Config{Generation: 1}, Clock: by.clock})
		if err != nil {
			return err
		}
		<-c.committed
		var each, floors []float64
		var allocs int64
		for range b.rounds {
			raw := testing.Benchmark(func(t *testing.B) {
				for t.Loop() {
					by.raw()
				}
			})
			r := testing.Benchmark(func(t *testing.B) {
				for t.Loop() {
					if !c.Held() {
						t.Fatal("the lease has lapsed")
					}
				}
			})
			floors = append(floors, float64(raw.T.Nanoseconds())/float64(raw.N))
			each, allocs = append(each, float64(r.T.Nanoseconds())/float64(r.N)), max(allocs, r.AllocsPerOp())
		}
		ns, floor := median(each), median(floors)
		note := fmt.Sprintf("%.0f ns, of which the clock %.0f, %d allocations", ns, floor, allocs)
		f := figure{Name: "lease check, " + by.name, P50: ns / 1000, FloorUS: floor / 1000, Ratio: ns / floor, Note: note}.atMost(ns, by.goal, " ns")
		f.Met = f.Met && allocs == 0
		b.report(f)
		if err := c.end(); err != nil {
			return err
		}
	}
	return nil
}
