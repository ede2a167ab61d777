// Command river measures package work beside River (riverqueue.com), a well-known job
// queue on PostgreSQL, on the same server in the same run.
//
//	make bench-river                  everything, a quarter of an hour
//	make bench-river BENCH=-quick     fewer jobs and rounds
//
// The two take turns, in alternating order, and medians over the rounds are compared.
// So the ratios can be compared between machines, and the figures can't. River runs
// with the settings of its own command `river bench`, which favour throughput, and
// inserts by COPY, which is its fastest way. Figures that depend on its defaults are
// measured with them, too.
//
// FENCEPOST_TEST_POSTGRES names the server, as for the tests.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// A plan says how much is measured.
type plan struct {
	rounds  int
	jobs    int // of one round
	pickups int // jobs enqueued one by one by another process
	zombies int // jobs whose first run hangs
}

var (
	full  = plan{rounds: 5, jobs: 100_000, pickups: 500, zombies: 1000}
	quick = plan{rounds: 3, jobs: 20_000, pickups: 100, zombies: 100}
)

// A figure compares ours with River's.
type figure struct {
	name         string
	ours, rivers string
	ratio        float64 // of ours to River's, the larger the better for us; 0: there is none
	note         string
}

// A section measures something.
type section struct {
	name string
	run  func(*trial) ([]figure, error)
}

func sections() []section {
	return []section{
		{"throughput", throughput},
		{"pickup", pickup},
		{"idle", underIdleTransaction},
		{"zombie", zombies},
		{"killed", killedWorker},
		{"outage", outage},
	}
}

// A trial is one run of the command.
type trial struct {
	plan
	ctx    context.Context
	server string
}

func main() {
	if part := os.Getenv(partVar); part != "" {
		if err := play(part); err != nil {
			fmt.Fprintln(os.Stderr, "river: a child ended:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	set := flag.NewFlagSet("river", flag.ContinueOnError)
	isQuick := set.Bool("quick", false, "fewer jobs and rounds")
	wanted := set.String("sections", "", "sections to measure (default: all)")
	if err := set.Parse(args); err != nil {
		return err
	}
	t := &trial{plan: full, ctx: context.Background(), server: os.Getenv("FENCEPOST_TEST_POSTGRES")}
	if *isQuick {
		t.plan = quick
	}
	if t.server == "" {
		return fmt.Errorf("FENCEPOST_TEST_POSTGRES is not set: use make bench-river")
	}
	before := load()
	var figures []figure
	for _, s := range sections() {
		if *wanted != "" && !slices.Contains(strings.Split(*wanted, ","), s.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "==", s.name)
		found, err := s.run(t)
		figures = append(figures, found...)
		if err != nil {
			table(os.Stdout, figures)
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	table(os.Stdout, figures)
	fmt.Printf("medians of %d rounds; load of the machine before: %s, after: %s\n", t.rounds, before, load())
	return nil
}

func table(w io.Writer, figures []figure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tours\tRiver\tratio\tnote")
	for _, f := range figures {
		ratio := "-"
		if f.ratio > 0 {
			ratio = fmt.Sprintf("%.2f", f.ratio)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", f.name, f.ours, f.rivers, ratio, f.note)
	}
	_ = t.Flush() // standard output: nobody is left to tell
}

// load returns the machine's load over the last minute.
func load() string {
	f, err := os.Open("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	defer func() { _ = f.Close() }() // it was only read
	words := bufio.NewScanner(f)
	words.Split(bufio.ScanWords)
	words.Scan()
	return words.Text()
}
