// Command etcdoutage measures for how long a catalog can't be written while one of
// three etcd servers fails.
//
//	make bench-etcd                       every fault, 30 runs each
//	make bench-etcd BENCH='-runs=5 -faults=leader-killed'
//
// Each run opens a catalog over all three servers, at etcd's default timings,
// commits one entry after the other, makes one server fail, and reports the longest
// time between two commits. It then repairs the server and waits until all three
// have caught up. Which server the catalog speaks to is left to chance.
//
// As root, the program makes network namespaces of its own, one for each server
// and one around them, which end with it. Without root the servers share the
// loopback address; then no server can vanish or be cut off, and the program says
// so.
//
// A table goes to standard output. A goal that is missed is reported, and is no
// error: the exit status says only whether everything could be measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	insideVar = "FENCEPOST_ETCDOUTAGE_INSIDE" // set within the outer namespace
	memberVar = "FENCEPOST_ETCDOUTAGE_MEMBER" // set in the process that becomes a server
)

type options struct {
	binary string
	faults []string
	runs   int
	query  string
}

func parse(args []string) (options, error) {
	set := flag.NewFlagSet("etcdoutage", flag.ContinueOnError)
	binary := set.String("etcd", "", "etcd's server, such as scripts/etcd.sh build prints")
	names := set.String("faults", strings.Join(faultNames(), ","), "faults to measure")
	runs := set.Int("runs", 30, "runs of each fault")
	query := set.String("query", "", "parameters of the store's URL, such as hedge-after=off")
	if err := set.Parse(args); err != nil {
		return options{}, err
	}
	o := options{binary: *binary, faults: strings.Split(*names, ","), runs: *runs, query: *query}
	for _, name := range o.faults {
		if !slices.Contains(faultNames(), name) {
			return o, fmt.Errorf("there is no fault %q: want some of %s", name, strings.Join(faultNames(), ","))
		}
	}
	if o.binary == "" || o.runs < 1 {
		return o, fmt.Errorf("-etcd names no server, or -runs is %d: use make bench-etcd", o.runs)
	}
	return o, nil
}

func main() {
	if os.Getenv(memberVar) != "" {
		becomeServer(os.Args[1:])
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcdoutage:", err)
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() == 0 && os.Getenv(insideVar) == "" {
		os.Exit(runInside(ctx))
	}
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "etcdoutage:", err)
		os.Exit(1)
	}
}

// runInside runs this program again in a network namespace of its own, and returns
// its exit status.
func runInside(ctx context.Context) int {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdoutage:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, o options, w io.Writer) error {
	l, err := newLab(o.binary)
	if err != nil {
		return err
	}
	defer l.close()
	var results []result
	defer func() { table(w, results) }()
	for _, f := range faults() {
		if !slices.Contains(o.faults, f.name) {
			continue
		}
		if f.network && !l.isolated {
			fmt.Fprintf(w, "%s: not measured: it needs network namespaces, and so root\n", f.name)
			continue
		}
		r := result{fault: f}
		for n := range o.runs {
			gap, err := measure(ctx, l, f, fmt.Sprintf("%s-%d", f.name, n), o.query)
			if err != nil {
				return fmt.Errorf("%s, run %d: %w", f.name, n+1, err)
			}
			fmt.Fprintf(os.Stderr, "%-18s %2d  %v\n", f.name, n+1, gap.Round(time.Millisecond))
			r.gaps = append(r.gaps, gap)
		}
		results = append(results, r)
	}
	return nil
}

// A result is what was measured of one fault.
type result struct {
	fault fault
	gaps  []time.Duration
}

// percentile returns the smallest gap that p percent of all don't exceed.
func (r result) percentile(p int) time.Duration {
	sorted := slices.Sorted(slices.Values(r.gaps))
	return sorted[max((len(sorted)*p+99)/100, 1)-1]
}

func table(w io.Writer, results []result) {
	fmt.Fprintln(w, "| fault | runs | p50 | p95 | max | goal for p95 |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, r := range results {
		verdict := "met"
		if r.percentile(95) > r.fault.goal {
			verdict = "missed"
		}
		show := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s, %s |\n", r.fault.title, len(r.gaps),
			show(r.percentile(50)), show(r.percentile(95)), show(r.percentile(100)), show(r.fault.goal), verdict)
	}
}
