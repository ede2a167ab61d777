// Package demo is the example "guarded": a shop on PostgreSQL, and a zombie.
//
// Twice, once with a table that nobody guards and once with one that the database
// guards, the same is played with real processes:
//
//	blue   leads, reads the stock in a transaction, and is stopped there (SIGSTOP)
//	green  a newer generation, is promoted, leads and sells
//	blue   goes on (SIGCONT) and writes back what it had calculated
//
// Then the stock is held against the ledger: what was in it at first, less each sale
// that was acknowledged. Without a guard green's sales are lost; with one blue is
// refused. Something stale in the guarded table, or a ledger that does not add up
// there, ends the demo with status 1.
package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/examples/guarded/process"
)

const (
	stock   = 100 // at first
	byBlue  = 10  // before it is stopped
	stale   = 1   // by blue, behind green's claim
	byGreen = 5
)

// limit bounds the whole demo.
const limit = 2 * time.Minute

// Main plays the demo, and returns the exit status: 0 if the guard held, 1 if not,
// 64 if the command line is wrong.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("guarded", flag.ContinueOnError)
	flags.SetOutput(stderr)
	server := flags.String("postgres", os.Getenv("FENCEPOST_TEST_POSTGRES"), "`URL` of a PostgreSQL server whose user may create databases (make demo-guarded starts one)")
	verbose := flags.Bool("v", false, "show what the processes log")
	if err := flags.Parse(args); err != nil {
		return 64
	}
	if *server == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "guarded: which server? Give -postgres URL, or use make demo-guarded")
		return 64
	}
	return process.Play(ctx, "guarded", limit, stderr, *verbose, func(ctx context.Context, logs io.Writer) (bool, error) { return play(ctx, *server, stdout, logs) })
}

// play makes a database of its own and plays a round with each table.
func play(ctx context.Context, server string, stdout, logs io.Writer) (held bool, err error) {
	_, dsn, drop, err := process.NewDatabase(ctx, server, "guarded")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	var rounds []round
	for i, guarded := range []bool{false, true} {
		r := round{table: map[bool]string{false: "plain", true: "guarded"}[guarded], guarded: guarded, dsn: dsn, first: 2*i + 1, logs: logs}
		if err := r.play(ctx); err != nil {
			return false, fmt.Errorf("table %s: %w", r.table, err)
		}
		r.draw(stdout)
		rounds = append(rounds, r)
	}
	if rounds[0].lost() == 0 {
		return false, errors.New("the unguarded table lost nothing, so that the guarded one shows nothing")
	}
	return !rounds[1].accepted && rounds[1].lost() == 0, nil
}

// A round is one play, with one table.
type round struct {
	table   string
	guarded bool
	dsn     string
	first   int // blue's generation; green's is the next one
	logs    io.Writer

	blue, green struct {
		token   string
		read    int
		left    int
		status  int
		refused string
	}
	accepted bool // blue's stale write was
	sold     int  // and acknowledged
	left     int  // as the table says in the end
}

// lost is by how much the table has more than the ledger.
func (r round) lost() int { return r.left - (stock - r.sold) }

func (r *round) play(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is lost with it
	if _, err := conn.Exec(ctx, fmt.Sprintf(`create table %[1]s (n int); insert into %[1]s values (%[2]d)`, r.table, stock)); err != nil {
		return err
	}
	store, err := postgres.Open(ctx, r.dsn, postgres.Config{})
	if err != nil {
		return err
	}
	defer store.Close()
	if r.guarded {
		if err := store.InstallGuards(ctx, driver.GuardedTables{Tables: []string{r.table}}); err != nil {
			return err
		}
	}
	if err := r.replace(ctx, store); err != nil {
		return err
	}
	return conn.QueryRow(ctx, `select n from `+r.table).Scan(&r.left)
}

// replace replaces blue by green while blue is stopped in the middle of a sale.
func (r *round) replace(ctx context.Context, store driver.Store) error {
	blue, err := r.lead(ctx, store, "blue", r.first)
	if err != nil {
		return err
	}
	defer blue.Kill()
	if err := r.sell(blue, byBlue); err != nil {
		return err
	}
	if err := blue.Tell(fmt.Sprintf("slowly %d", stale)); err != nil {
		return err
	}
	read, err := blue.Expect("read")
	if err != nil {
		return err
	}
	r.blue.token, r.blue.read = read.Token.String(), read.Left[r.table]
	if err := blue.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	green, err := r.lead(ctx, store, "green", r.first+1)
	if err != nil {
		return err
	}
	defer green.Kill()
	if err := r.sell(green, byGreen); err != nil {
		return err
	}
	if err := errors.Join(blue.Tell("go on"), blue.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	e, err := blue.Expect("sold", "refused")
	if err != nil {
		return err
	}
	if r.accepted = e.What == "sold"; r.accepted {
		r.sold += stale
	}
	r.blue.left, r.blue.refused = e.Left[r.table], e.Text
	if r.blue.status, err = blue.End(); err != nil {
		return err
	}
	if r.blue.status != 0 {
		return fmt.Errorf("blue ended with %d, want 0: it was superseded", r.blue.status)
	}
	if err := green.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	r.green.status, err = green.End()
	return err
}

// lead starts a shop that leads.
func (r *round) lead(ctx context.Context, store driver.Store, name string, g int) (*process.Process, error) {
	p, token, err := process.Lead(ctx, r.logs, store, name, g, ShopVar+"="+name, storeVar+"="+r.dsn, tableVar+"="+r.table)
	if name == "green" {
		r.green.token = token.String()
	}
	return p, err
}

// sell has a shop sell, and counts what it acknowledges.
func (r *round) sell(p *process.Process, n int) error {
	if err := p.Tell(fmt.Sprintf("sell %d", n)); err != nil {
		return err
	}
	e, err := p.Expect("sold")
	if err == nil {
		r.sold, r.green.left = r.sold+n, e.Left[r.table]
	}
	return err
}

// draw shows what has happened, for people.
func (r round) draw(w io.Writer) {
	end := fmt.Sprintf("wrote %d, and it was accepted", r.blue.left)
	if !r.accepted {
		end = "was refused"
	}
	guard := "nobody guards"
	if r.guarded {
		guard = "the database guards"
	}
	fmt.Fprintf(w, "table %s, which %s\n\n", r.table, guard)
	fmt.Fprintf(w, "  blue   %-7s read %d ──┤ stopped ├───────────────────┤ %s, exit status %d\n", r.blue.token, r.blue.read, end, r.blue.status)
	fmt.Fprintf(w, "  green  %-7s              claimed ── sold %d, left %d ──┤\n\n", r.green.token, byGreen, r.green.left)
	if r.blue.refused != "" {
		fmt.Fprintf(w, "  %s\n\n", r.blue.refused)
	}
	fmt.Fprintf(w, "  ledger: %d in stock, %d sold and acknowledged: %d must be left. The table has %d: ", stock, r.sold, stock-r.sold, r.left)
	if n := r.lost(); n != 0 {
		fmt.Fprintf(w, "%d sales are lost.\n\n", n)
		return
	}
	fmt.Fprint(w, "nothing is lost.\n\n")
}
