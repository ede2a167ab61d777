package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/reap"
	"github.com/fencepost/fencepost/reap/leftovers"
)

// reapFlags are what the command line says of a pass.
type reapFlags struct {
	dryRun   bool
	keep     int
	older    time.Duration
	strategy string
	limit    int
}

func (a *app) reapCommand() *cobra.Command {
	var f reapFlags
	cmd := &cobra.Command{
		Use:   "reap",
		Short: "Remove what the library itself has left beside the catalog",
		Long: `Reap removes what Fencepost leaves behind: notes on the board of generations that
are over, the scratch places of store checks that were killed in the middle, and
files that a process was about to name when it died. It prints what it found,
what it removed and why it kept the rest.

It touches nothing of the generation that leads or of a higher one, and neither
head nor log, claims or losses. It needs no token, may run at any time, also
while the service runs and beside other reapers, and does no harm if it is
stopped and goes on much later. What dead processes left is removed after a day,
whatever the flags say. Records, parts of snapshots and staged batches are the
holder's part, which trims them as it goes (docs/reap.md).

On PostgreSQL only the owner of schema fencepost may remove a scratch place.

It ends with 0 if nothing is left to remove, or another reaper is at it; with 75
if the store can't be reached or other reapers were in the way for too long; with
the code of the error, such as 78 for missing rights, if something could not be
removed.`,
		Example: `  fencepost reap --dry-run
  fencepost reap --keep 2 --older-than 24h
  fencepost reap --strategy yield --json | jq '.items[] | select(.fate == "failed")'`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be removed")
	flags.IntVar(&f.keep, "keep", 1, "`N`, how many superseded generations that have led keep their notes")
	flags.DurationVar(&f.older, "older-than", 10*time.Minute, "remove nothing younger than that; 0 asks for no age")
	flags.StringVar(&f.strategy, "strategy", reap.Refresh.String(), "what to do if another reaper is at work: "+strings.Join(strategies(), ", "))
	flags.IntVar(&f.limit, "limit", 0, "`N`, the number of items below which "+reap.StopUnderLimit.String()+" stops")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		policy, err := f.policy()
		if err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error {
			return a.withReadStore(ctx, func(ctx context.Context, store driver.Store) error { return a.reap(ctx, store, policy, f.dryRun) })
		})(cmd, args)
	}
	return cmd
}

func strategies() (names []string) {
	for _, c := range []reap.Conflict{reap.Refresh, reap.Yield, reap.StopUnderLimit} {
		names = append(names, c.String())
	}
	return names
}

// policy returns what the flags say, or what is wrong with them.
func (f reapFlags) policy() (p reap.Policy, err error) {
	for _, c := range []reap.Conflict{reap.Refresh, reap.Yield, reap.StopUnderLimit} {
		if c.String() == f.strategy {
			p.OnConflict = c
		}
	}
	switch {
	case p.OnConflict.String() != f.strategy:
		err = fmt.Errorf("--strategy is %.64q, want one of %s", f.strategy, strings.Join(strategies(), ", "))
	case f.keep < 0:
		err = fmt.Errorf("--keep is %d, want 0 or more", f.keep)
	case f.older < 0:
		err = fmt.Errorf("--older-than is %v, want 0 or more", f.older)
	case (p.OnConflict == reap.StopUnderLimit) != (f.limit > 0):
		err = fmt.Errorf("--limit is %d with --strategy %s: want a limit above 0 with %s, and none without", f.limit, f.strategy, reap.StopUnderLimit)
	}
	p.Keep, p.MinAge, p.Limit = f.keep, f.older, f.limit
	if p.Keep == 0 {
		p.Keep = reap.KeepNone
	}
	if p.MinAge == 0 {
		p.MinAge = reap.NoMinAge
	}
	p.Backoff = reap.Backoff{Base: 100 * time.Millisecond, Cap: 2 * time.Second}
	return p, err
}

// reap prints what became of everything, also if something could not be removed.
func (a *app) reap(ctx context.Context, store driver.Store, policy reap.Policy, dryRun bool) error {
	var report leftovers.Report
	found := false
	err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		if policy.Led, err = led(ctx, store); err != nil {
			return err
		}
		policy.MaxWait, found = a.timeout, true
		report, err = leftovers.Pass(ctx, store, leftovers.Config{Catalog: a.config(a.timeout), Policy: policy, DryRun: dryRun})
		return err
	})
	if !found {
		return err
	}
	return errors.Join(a.show(report, func(w io.Writer) error { return printReaped(w, report) }), err, report.Err(), unfinished(report))
}

// led returns the generations that have led.
func led(ctx context.Context, store driver.Store) (all []generation.Generation, err error) {
	claims, err := catalog.History(ctx, store)
	for _, c := range claims {
		all = append(all, c.Token.Generation)
	}
	return slices.Compact(all), err
}

// unfinished is an error if other reapers were in the way until the time was over.
func unfinished(r leftovers.Report) error {
	for kind, done := range r.Passes {
		if done.Stopped == reap.StoppedConflicts || done.Stopped == reap.StoppedWaited {
			return exitcodes.With(fmt.Errorf("%s: other reapers were in the way, and %d are left: run it again", kind, done.Left), exitcodes.Retry)
		}
	}
	return nil
}

func printReaped(w io.Writer, r leftovers.Report) error {
	verb, token := "removed", cell(r.Token.String())
	if r.DryRun {
		verb = "to be removed"
	}
	if r.Token.IsZero() {
		token = "none: nobody has claimed this catalog yet"
	}
	rows := [][]string{{"store", r.Store}, {"token", token}, {verb, fmt.Sprint(r.Count(leftovers.Deleted))}}
	for _, fate := range []leftovers.Fate{leftovers.Kept, leftovers.Gone, leftovers.Failed, leftovers.NotTried} {
		if n := r.Count(fate); n > 0 || fate == leftovers.Kept {
			rows = append(rows, []string{string(fate), fmt.Sprint(n)})
		}
	}
	for _, done := range r.Passes {
		if d := done.Slept(); d > 0 {
			rows = append(rows, []string{"waited", fmt.Sprintf("%.1f s for other reapers", d.Seconds())})
		}
	}
	if err := table(w, rows); err != nil || len(r.Items) == 0 {
		return err
	}
	rows = [][]string{{"", "", "", "", "", ""}, {"FATE", "KIND", "NAME", "GENERATION", "MADE", "WHY"}}
	for _, i := range r.Items {
		of := "-"
		if i.Generation != generation.None {
			of = i.Generation.String()
		}
		fate := string(i.Fate)
		if r.DryRun && i.Fate == leftovers.Deleted {
			fate = "would be " + fate
		}
		rows = append(rows, []string{fate, string(i.Kind), cell(i.Name), of, when(i.At, time.Now()), cell(i.Why)})
	}
	return table(w, rows)
}
