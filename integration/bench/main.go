// Command bench measures what the catalog costs beside the raw store.
//
//	make bench                     every store, every section
//	make bench BENCH=-quick        fewer rounds and entries
//	make bench BENCH='-stores=sqlite -sections=commit -cpuprofile=/tmp/cpu'
//
// Each figure is measured together with its floor, which is what the same
// client does on the same server without us: a commit of one row of 232 bytes,
// a read of it, a scan. Floor and ours take turns within a run, in alternating
// order, and the medians over the rounds are compared. So the ratios can be
// compared between machines, and the times can't. Before anything is timed, the
// store's own counter shows that each commit is synced, theirs and ours.
//
// A table goes to standard output, and one JSON object a line to the file named
// by -out. A goal that is missed is reported so and is no error: the exit
// status says only whether everything could be measured.
//
// FENCEPOST_TEST_POSTGRES and FENCEPOST_TEST_ETCD name the servers, as for the
// tests.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
)

// A plan says how much is measured.
type plan struct {
	rounds   int // of each comparison, of which the medians are taken
	serial   int // operations of one round, one after the other
	each     int // operations of one round by each of the workers
	entries  int // of the large catalog
	bulks    int // rounds of opening it
	takeover int // takeovers, promotions and failovers
	handover int // promotions under load
	outages  int // of each kind
	slow     int // of those kinds that take half a minute or more

	overwrites int // updates of a thousand entries

	workJobs int // jobs of one round
	orphans  int // that a takeover finds
	waiting  int // jobs that wait
}

var (
	full  = plan{rounds: 7, serial: 1000, each: 250, entries: 1_000_000, bulks: 3, takeover: 200, handover: 50, outages: 20, slow: 3, overwrites: 1_000_000, workJobs: 100_000, orphans: 100_000, waiting: 1_000_000}
	quick = plan{rounds: 3, serial: 300, each: 80, entries: 100_000, bulks: 3, takeover: 50, handover: 10, outages: 5, slow: 1, overwrites: 50_000, workJobs: 20_000, orphans: 100_000, waiting: 100_000}
)

// options are the command line.
type options struct {
	plan
	stores, sections     []string
	dir, out, cpuprofile string
}

func parse(args []string) (options, error) {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	isQuick := set.Bool("quick", false, "fewer rounds, and 100,000 entries")
	entries := set.Int("entries", 0, "entries of the large catalog (default 1,000,000)")
	stores := set.String("stores", "sqlite,postgres,etcd", "stores to measure")
	sections := set.String("sections", strings.Join(sectionNames(), ","), "sections to measure")
	dir := set.String("dir", "", "folder for SQLite's files, on the disk to be measured (default: the system's for temporary files)")
	out := set.String("out", "bench.jsonl", "file for the figures, one JSON object a line")
	profile := set.String("cpuprofile", "", "file for a CPU profile")
	if err := set.Parse(args); err != nil {
		return options{}, err
	}
	o := options{plan: full, dir: *dir, out: *out, cpuprofile: *profile}
	o.stores, o.sections = strings.Split(*stores, ","), strings.Split(*sections, ",")
	if *isQuick {
		o.plan = quick
	}
	if *entries > 0 {
		o.entries = *entries
	}
	return o, nil
}

// A section is a group of figures of one store.
type section struct {
	name string
	run  func(*bench) error
}

func sections() []section {
	return []section{
		{"commit", commits},
		{"confirm", confirms},
		{"guard", guards},
		{"view", views},
		{"takeover", takeovers},
		{"work", works},
		{"waiting", workWaiting},
		{"promotion", promotions},
		{"failover", failovers},
		{"handover", handovers},
		{"restart", restarts},
		{"killed", kills},
		{"stopped", promotionsOverAStop},
		{"fence", fences},
		{"stepdown", stepDowns},
		{"reluctant", reluctance},
		{"blocked", blocked},
		{"migration", migrations},
		{"open", opens},
		{"compact", compacts},
		{"reap", reaps},
	}
}

func sectionNames() (names []string) {
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

func main() {
	if spec := os.Getenv(childVar); spec != "" {
		fmt.Fprintln(os.Stderr, "bench: a child ended:", child(spec))
		os.Exit(1)
	}
	if spec := os.Getenv(slowVar); spec != "" {
		slowServer(spec)
	}
	if spec := os.Getenv(reapVar); spec != "" {
		if err := reaper(spec); err != nil {
			fmt.Fprintln(os.Stderr, "bench: a reaper ended:", err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(64)
	}
	if err := run(context.Background(), o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, and reports what was measured even where a later part fails.
func run(ctx context.Context, o options, w io.Writer) (err error) {
	stop, err := profile(o.cpuprofile)
	if err != nil {
		return err
	}
	defer stop()
	var shop workshop
	defer shop.close()
	var figures []figure
	for _, name := range o.stores {
		found, err := measure(ctx, o, name, &shop)
		figures = append(figures, found...)
		if err != nil {
			table(w, figures)
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	table(w, figures)
	return writeLines(o.out, figures)
}

// measure runs the wanted sections on one store.
func measure(ctx context.Context, o options, name string, w *workshop) ([]figure, error) {
	b, err := newBackend(name, o.dir)
	if err != nil {
		return nil, err
	}
	defer b.close()
	r := &bench{plan: o.plan, ctx: ctx, backend: b, tracer: newTracer(), workshop: w}
	if err := r.checkSyncs(); err != nil {
		return nil, err
	}
	for _, s := range sections() {
		if !slices.Contains(o.sections, s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "== %s: %s\n", name, s.name)
		if err := s.run(r); err != nil {
			return r.figures, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return r.figures, nil
}

func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // a profile is an aid, no result
	}, nil
}
