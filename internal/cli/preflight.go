package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// A preflight is one preflight command. It is not the service's own binary: of
// its build it knows what the command line says.
type preflight struct {
	app        *app
	generation generation.Generation
	build      string
	version    uint64 // the newest data version that the build knows
	readableBy uint64 // once the build's migrations have run
	versioned  bool   // the two above were given
}

func (a *app) preflightCommand() *cobra.Command {
	p := preflight{app: a}
	var number string
	cmd := &cobra.Command{
		Use:   "preflight --generation N",
		Short: "Say whether generation N could be deployed now, and could be rolled back",
		Long: `Preflight asks, before a deploy, what would stop it: whether the store answers
and may be read and written, which servers keep it, whether generation N is free and above the one that
leads, whether another one is promoted, whether the log and the history can be
read, how long a round trip and a sync take, and whether the store is set up so
that it could lose a commit. It writes nothing to database or log.

Whether a build can read the data, the command knows only by --data-version and
--readable-by; a service that calls leader.Preflight (or catalog.Preflight) with
its own configuration knows it from its migrations. See docs/rollback.md.

It ends with 0 where nothing fails, warnings or not; with 1 where a check has
failed; with 75 where the store can't be reached; with 78 where it can't be used
as it is configured.`,
		Example: `  fencepost preflight --generation 8
  fencepost preflight --generation 8 --data-version 12 --readable-by 11
  fencepost preflight --generation 8 --json | jq -r '.checks[] | select(.grade != "ok")'`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&number, "generation", "", "`N`, the generation that is to be deployed (required)")
	flags.StringVar(&p.build, "build", "", "the build's name, as its processes give it")
	flags.Uint64Var(&p.version, "data-version", 0, "the newest data version `V` that the build knows")
	flags.Uint64Var(&p.readableBy, "readable-by", 0, "the oldest data version `V` that a build must know once this one has led; default is --data-version")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if p.generation, err = parseGeneration("preflight", number); err != nil {
			return err
		}
		p.versioned = cmd.Flags().Changed("data-version")
		if p.readableBy > p.version {
			return fmt.Errorf("--readable-by is %d, want no more than --data-version, which is %d", p.readableBy, p.version)
		}
		return a.action(func(ctx context.Context) error { return a.withStore(ctx, p.run) })(cmd, args)
	}
	return cmd
}

func (p *preflight) run(ctx context.Context, store driver.Store) error {
	short, cancel := context.WithTimeout(ctx, p.app.timeout)
	defer cancel()
	cfg := p.app.config(p.app.timeout)
	cfg.Generation = p.generation
	cfg.Holder.Build = p.build
	if p.versioned && p.version > 0 {
		// The last migration says all that is asked of a build; which ones
		// it still has of the older ones, the command can't know.
		head, err := catalog.ReadHead(short, store, cfg)
		if err == nil {
			cfg.Migrations = p.migrations(head.Claim.DataVersion)
		}
	}
	r := leader.Preflight(short, store, cfg)
	if r.Unreachable != nil {
		return bounded(ctx, p.app.timeout, func(context.Context) error { return exitcodes.With(r.Unreachable, exitcodes.Retry) })
	}
	if !p.versioned {
		p.forgetVersions(&r)
	}
	if r.Worst() == driver.Failure {
		p.app.code = exitcodes.Failure
	}
	if r.Refused != nil {
		p.app.code = exitcodes.Config
	}
	return p.app.show(answerOf(r), func(w io.Writer) error { return printReport(w, r) })
}

// migrations are those from the data's version to the build's, in name only.
func (p *preflight) migrations(data uint64) []catalog.Migration {
	const most = 10_000 // further ones change nothing about the answer
	first := min(data+1, p.version)
	if p.version-first > most {
		first = p.version - most
	}
	var ms []catalog.Migration
	for v := first; v <= p.version; v++ {
		readableBy := uint64(1)
		if v == p.version {
			readableBy = p.readableBy
		}
		ms = append(ms, catalog.Migration{Version: v, ReadableBy: readableBy, Up: func(*catalog.Tx) error { return catalog.ErrNameOnly }})
	}
	return ms
}

// forgetVersions takes out what was not asked for by a build.
func (p *preflight) forgetVersions(r *catalog.Report) {
	r.Checks = slices.DeleteFunc(r.Checks, func(f driver.Finding) bool {
		return f.Name == catalog.CheckReadable || f.Name == catalog.CheckRollback
	})
	if c := r.Head.Claim; !r.Head.IsZero() {
		r.Add(catalog.CheckReadable, driver.Warning, "give --data-version, or ask the service's own binary",
			"not checked: the data are at version %d, readable by builds that know version %d or later", c.DataVersion, c.ReadableBy)
	}
}

// preflown is the answer in JSON.
type preflown struct {
	Store      string                `json:"store"`
	Generation generation.Generation `json:"generation"`
	Grade      driver.Grade          `json:"grade"` // the worst of all
	Checks     []driver.Finding      `json:"checks"`
	Hosts      []driver.Host         `json:"hosts"` // null for a store that does not tell
	P50        float64               `json:"round_trip_p50_us"`
	P99        float64               `json:"round_trip_p99_us"`
}

func answerOf(r catalog.Report) preflown {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return preflown{Store: r.Store, Generation: r.Generation, Grade: r.Worst(), Hosts: r.Hosts, Checks: r.Checks, P50: us(r.P50), P99: us(r.P99)}
}

// printReport lays a report out for people, remedies beneath what they mend.
func printReport(w io.Writer, r catalog.Report) error {
	rows := [][]string{{"CHECK", "GRADE", "FOUND"}}
	count := map[driver.Grade]int{}
	for _, c := range r.Checks {
		count[c.Grade]++
		rows = append(rows, []string{c.Name, c.Grade.String(), cell(c.Detail)})
		if c.Remedy != "" {
			rows = append(rows, []string{"", "", "→ " + cell(c.Remedy)})
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\ngeneration %v on %s: %s failed, %s warned, %s are well\n", r.Generation, r.Store,
		strconv.Itoa(count[driver.Failure]), strconv.Itoa(count[driver.Warning]), strconv.Itoa(count[driver.Fine]))
	return err
}
