// Package demo plays what the example "indexer" is about, with real processes, and
// checks the result.
//
// Clients publish, yank and unyank in quick succession. Meanwhile, in each round,
// three things happen in some order: the index is moved away for a while, the leading
// process is killed (SIGKILL), and the next generation is promoted. In the end the
// index must equal the catalog, every change that was accepted must be in the index as
// GET /publishes/ID says, and must be in the feed once. If not, the demo ends with
// status 1.
package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// roundLimit bounds one round.
const roundLimit = 3 * time.Minute

// Main plays the demo, and returns the exit status: 0 if everything adds up, 1 if not,
// 64 if the command line is wrong.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("indexer demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := options{out: &screen{w: stdout, begun: time.Now()}, logs: io.Discard}
	flags.StringVar(&o.store, "store", "", "the `URL` of a store whose catalog nobody has used, without a password; default: SQLite in a temporary folder")
	flags.IntVar(&o.rounds, "rounds", 1, "how many rounds are played")
	flags.Uint64Var(&o.seed, "seed", 0, "the `number` that decides about the order of the faults; 0: in the first round promotion, outage, kill")
	flags.DurationVar(&o.pause, "pause", 600*time.Millisecond, "how long clients go on between two faults")
	flags.IntVar(&o.clients, "clients", 3, "how many clients there are")
	verbose := flags.Bool("v", false, "show what the processes log")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 64
	}
	err := storeurl.CheckArgument(o.store)
	if err == nil && (flags.NArg() > 0 || o.rounds < 1 || o.clients < 1) {
		err = errors.New("want flags alone, and -rounds and -clients of at least 1: see indexer demo -h")
	}
	if err != nil {
		fmt.Fprintf(stderr, "indexer: %v\n", err)
		return 64
	}
	if *verbose {
		o.logs = &lines{w: stderr}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(o.rounds)*roundLimit)
	defer cancel()
	if err := play(ctx, o); err != nil {
		fmt.Fprintf(stderr, "indexer: %v\n", err)
		return 1
	}
	return 0
}

type options struct {
	store   string
	rounds  int
	seed    uint64
	pause   time.Duration
	clients int
	out     *screen
	logs    io.Writer
}

// A demo is one run.
type demo struct {
	options
	dir   string
	index string
	store driver.Store
	url   string
	order *rand.Rand

	cluster cluster
	load    *load
	checked map[string]bool // changes that were found in the index
}

// play makes a registry in a temporary folder, and plays every round on it.
func play(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "indexer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{options: o, dir: dir, index: filepath.Join(dir, "index.git"), url: o.store, checked: map[string]bool{}, order: rand.New(rand.NewPCG(o.seed, 1))}
	if d.url == "" {
		d.url = "sqlite:" + filepath.Join(dir, "registry.db")
	}
	if d.store, err = storeurl.Open(ctx, d.url, storeurl.Config{}); err != nil {
		return err
	}
	defer d.store.Close()
	d.cluster = cluster{demo: d, generation: 1}
	defer d.cluster.end()
	if err := d.cluster.init(ctx); err != nil {
		return err
	}
	return d.rounds(ctx)
}

// rounds plays every round.
func (d *demo) rounds(ctx context.Context) error {
	if err := d.cluster.start(ctx); err != nil {
		return err
	}
	d.out.say("generation 1 leads; %d clients publish, yank and unyank", d.clients)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.load = newLoad(d)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { d.monitor(ctx) })
	for n := range d.options.rounds {
		if err := d.round(ctx, n); err != nil {
			return fmt.Errorf("round %d of seed %d: %w", n+1, d.seed, err)
		}
	}
	return nil
}

// round lets the faults come while clients write, and then checks what is left.
func (d *demo) round(ctx context.Context, n int) error {
	end := d.load.begin(ctx)
	err := d.faults(ctx, n)
	end()
	if err != nil {
		return err
	}
	if err := d.zombie(ctx); err != nil {
		return err
	}
	return d.check(ctx)
}

// A fault is one thing that happens.
type fault func(context.Context) error

// faults has each fault happen, in an order. The index comes back after the others, or
// between them.
func (d *demo) faults(ctx context.Context, n int) error {
	all := []fault{d.promote, d.takeAway, d.kill, d.bringBack}
	if n > 0 || d.seed != 0 {
		d.order.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	for _, happen := range all {
		if err := rest(ctx, d.pause); err != nil {
			return err
		}
		if err := happen(ctx); err != nil {
			return err
		}
	}
	if d.away() {
		return d.bringBack(ctx)
	}
	return nil
}

func (d *demo) away() bool {
	_, err := os.Lstat(d.index)
	return err != nil
}

func (d *demo) takeAway(context.Context) error {
	d.out.say("the index is moved away")
	return os.Rename(d.index, d.index+".away")
}

// bringBack moves the index back, if it is away.
func (d *demo) bringBack(context.Context) error {
	if !d.away() {
		return nil
	}
	d.out.say("the index is back")
	return os.Rename(d.index+".away", d.index)
}

// promote replaces the generation that leads by the next one.
func (d *demo) promote(ctx context.Context) error {
	from := d.cluster.generation
	d.out.say("generation %d is promoted over %d", from+1, from)
	if err := d.cluster.replace(ctx); err != nil {
		return err
	}
	d.out.say("generation %d leads, and generation %d has ended with status 0", from+1, from)
	return nil
}

// kill kills the process that leads. Its standby takes over.
func (d *demo) kill(ctx context.Context) error {
	d.out.say("the process that leads is killed")
	token, took, err := d.cluster.kill(ctx)
	if err == nil {
		d.out.say("its standby leads under %s, after %v", token, took.Round(time.Millisecond))
	}
	return err
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A screen shows what happens to a person.
type screen struct {
	mu    sync.Mutex
	w     io.Writer
	begun time.Time
}

func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "%6.2fs  %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

// lines is a writer for what several processes log.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// plural returns n and a noun.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// lower returns the token before t, of the same generation or the one before.
func lower(t fence.Token) fence.Token {
	t.Epoch--
	if t.Generation > 1 {
		t.Generation--
	}
	return t
}
