package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/reapsim"
	"github.com/fencepost/fencepost/reap"
)

const (
	reapVar = "FENCEPOST_BENCH_REAPER" // tells a child of this program how and where it cleans up

	hostProcesses = 60
	hostItems     = 200
	hostListing   = 500 * time.Millisecond
	hostGoal      = 2 // listings of all processes together

	fleetMachines = 12
	fleetItems    = 200
	fleetListing  = 5 * time.Millisecond // a hundredth of what a cloud's API takes
	fleetDeletion = 2 * time.Millisecond

	throttleSeeds  = 20
	throttleGoal   = 4  // % of all calls that are refused
	clearGoal      = 90 // seconds
	throttleSpread = 90 // calls, the standard deviation between clients
)

// reaps measures what a clean-up by many costs. No store is asked, so it is measured once.
func reaps(b *bench) error {
	if b.backend.name() != "sqlite" {
		return nil
	}
	if err := host(b); err != nil {
		return err
	}
	if err := fleet(b); err != nil {
		return err
	}
	return throttle(b)
}

func (b *bench) reportReap(f figure) {
	f.Store = "none"
	b.figures = append(b.figures, f)
}

// host has 60 processes of this host begin a pass at once, with a lock and without one.
func host(b *bench) error {
	without, _, err := crowd(b.ctx, "alone")
	if err != nil {
		return err
	}
	with, took, err := crowd(b.ctx, "lock")
	if err != nil {
		return err
	}
	b.reportReap(figure{
		Name: "clean-up by 60 processes of one host: listings", Ratio: float64(with), P50: micros(took),
		Note: fmt.Sprintf("the ratio is the number of listings; without a lock %d", without),
	}.atMost(float64(with), hostGoal, " listings"))
	return nil
}

// crowd returns how many listings the processes have made together.
func crowd(ctx context.Context, how string) (lists int, took time.Duration, err error) {
	folder, err := os.MkdirTemp("", "fencepost-bench")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if err := os.Mkdir(filepath.Join(folder, "items"), 0o700); err != nil {
		return 0, 0, err
	}
	for n := range hostItems {
		if err := os.WriteFile(filepath.Join(folder, "items", fmt.Sprintf("%03d", n)), nil, 0o600); err != nil {
			return 0, 0, err
		}
	}
	began, err := atOnce(ctx, how+"|"+folder)
	if err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	text, err := os.ReadFile(filepath.Join(folder, "lists"))
	return len(text), took, err
}

// atOnce starts the processes, and has them begin when all of them have started.
func atOnce(ctx context.Context, spec string) (began time.Time, err error) {
	var ready, ended sync.WaitGroup
	var word []io.Closer
	errs := make([]error, hostProcesses)
	for n := range hostProcesses {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), reapVar+"="+spec)
		cmd.Stderr = os.Stderr
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			return began, err
		}
		word = append(word, in)
		ready.Add(1)
		ended.Go(func() {
			_, rerr := io.ReadFull(out, make([]byte, 1))
			ready.Done()
			_, cerr := io.Copy(io.Discard, out)
			errs[n] = errors.Join(rerr, cerr, cmd.Wait())
		})
	}
	ready.Wait()
	began = time.Now()
	for _, w := range word {
		err = errors.Join(err, w.Close())
	}
	ended.Wait()
	return began, errors.Join(append(errs, err)...)
}

// reaper is one process of the crowd.
func reaper(spec string) error {
	how, folder, _ := strings.Cut(spec, "|")
	var p reap.Policy
	if how == "lock" {
		p.Lock = filepath.Join(folder, "lock")
	}
	if _, err := os.Stdout.WriteString("."); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	_, err := reap.Pass(context.Background(), reap.Source{
		List: func(context.Context) ([]reap.Item, error) { return listFolder(folder) },
		Delete: func(_ context.Context, item reap.Item) error {
			err := os.Remove(filepath.Join(folder, "items", item.ID))
			if errors.Is(err, fs.ErrNotExist) {
				return reap.ErrGone
			}
			return err
		},
	}, fence.Token{Generation: 9, Epoch: 9}, p)
	return err
}

// listFolder counts itself in a file.
func listFolder(folder string) (items []reap.Item, err error) {
	f, err := os.OpenFile(filepath.Join(folder, "lists"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(".")
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	time.Sleep(hostListing)
	all, err := os.ReadDir(filepath.Join(folder, "items"))
	for _, e := range all {
		items = append(items, reap.Item{ID: e.Name(), Made: fence.Token{Generation: 1, Epoch: 1}, At: time.Unix(0, 0)})
	}
	return items, err
}

// fleet has 12 machines meet 200 superseded items: the holder of the token alone, and
// all of them by the strategies for those that hold none.
func fleet(b *bench) error {
	naive, err := reapsim.Fleet{Machines: fleetMachines, Items: fleetItems, List: fleetListing, Delete: fleetDeletion, Ignore: true}.Play(b.ctx)
	if err != nil {
		return err
	}
	for _, way := range []struct {
		name     string
		machines int
		policy   reap.Policy
		wasted   float64 // at most
	}{
		{"the token's holder alone", 1, reap.Policy{}, 0},
		{"12 machines that yield", fleetMachines, reap.Policy{}, fleetMachines},
		{"12 machines that refresh", fleetMachines, reap.Policy{OnConflict: reap.Refresh, Backoff: reap.Backoff{Base: 10 * time.Millisecond, Cap: 600 * time.Millisecond}}, fleetMachines * 9},
	} {
		f := reapsim.Fleet{Machines: way.machines, Items: fleetItems, List: fleetListing, Delete: fleetDeletion, Policy: way.policy}
		cost, err := f.Play(b.ctx)
		if err != nil {
			return err
		}
		if cost.Left > 0 || cost.Deletes != fleetItems {
			return fmt.Errorf("%s: %d items of %d were deleted, %d are left", way.name, cost.Deletes, fleetItems, cost.Left)
		}
		b.reportReap(figure{
			Name: "clean-up of 200 items, " + way.name + ": wasted deletions", Ratio: float64(cost.Wasted),
			Note: fmt.Sprintf("the ratio is their number; %d listings; 12 machines that ignore each other waste %d", cost.Lists, naive.Wasted),
		}.atMost(float64(cost.Wasted), way.wasted, " wasted"))
	}
	return nil
}

// throttle plays ours and the published algorithms at the published load.
func throttle(b *bench) error {
	for _, p := range reapsim.Peers() {
		b.reportReap(played(p.Name+" (published)", func(g reapsim.Game, start time.Duration) maker {
			return func(_ func() time.Time, random func() float64) reapsim.Algorithm { return p.New(g, start, random) }
		}).figure)
	}
	var failed error
	ours := played("ours", func(g reapsim.Game, start time.Duration) maker {
		return func(now func() time.Time, random func() float64) reapsim.Algorithm {
			a, err := reapsim.Ours(g, start, true, now, random)
			failed = errors.Join(failed, err)
			return a
		}
	})
	b.reportReap(ours.figure.atMost(ours.figure.Ratio, throttleGoal, " % refused"))
	b.reportReap(figure{Name: "throttle, ours: calls of 10 clients, standard deviation", Ratio: ours.spread}.atMost(ours.spread, throttleSpread, " calls"))
	b.reportReap(figure{Name: "throttle, ours: 4500 allowed calls", Ratio: ours.cleared.Seconds(), Note: "the ratio is in seconds"}.atMost(ours.cleared.Seconds(), clearGoal, " s"))
	return failed
}

type maker = func(now func() time.Time, random func() float64) reapsim.Algorithm

// A playing is the mean of the games of one algorithm.
type playing struct {
	figure  figure
	spread  float64
	cleared time.Duration
}

func played(name string, deal func(g reapsim.Game, start time.Duration) maker) playing {
	var ratio, spread float64
	var longest, cleared time.Duration
	served := 0
	for seed := range uint64(throttleSeeds) {
		g := reapsim.Published(seed)
		r := reapsim.Play(g, deal(g, 0))
		ratio, spread, served, longest = ratio+100*r.Ratio()/throttleSeeds, spread+r.Spread/throttleSeeds, served+r.Served(), max(longest, r.MaxSleep)
		c := reapsim.Clearing(seed)
		cleared += reapsim.Play(c, deal(c, time.Second)).Took / throttleSeeds
	}
	return playing{
		figure: figure{
			Name: "throttle, " + name + ": refused calls", Ratio: ratio, Met: true,
			Note: fmt.Sprintf("the ratio is in %%; 10 clients, 30 min: served %d of 2250, spread %.0f, longest pause %.0f s; 4500 allowed calls in %.0f s",
				served/throttleSeeds, spread, longest.Seconds(), cleared.Seconds()),
		},
		spread: spread, cleared: cleared,
	}
}
