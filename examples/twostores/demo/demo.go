// Package demo is the example "twostores": a shop whose catalog is in etcd, and whose
// stock is in PostgreSQL and in a SQLite file; and a zombie.
//
// Twice, once with tables that nobody guards and once with guarded ones, the same is
// played with real processes:
//
//	blue   leads, reads the stock of both stores, and is stopped there (SIGSTOP)
//	green  a newer generation, is promoted, raises the register of both stores,
//	       leads and sells
//	blue   goes on (SIGCONT) and writes back what it had calculated, to both
//
// Then each store is held against the ledger: what was in stock at first, less each sale
// that was acknowledged. Without guards green's sales are lost in both; with them blue is
// refused by both. Anything stale in a guarded table, or a ledger that does not add up
// there, ends the demo with status 1.
package demo

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/examples/guarded/process"
)

const (
	stock   = 100 // at first, in each store
	byBlue  = 10  // before it is stopped
	stale   = 1   // by blue, behind green's claim
	byGreen = 5

	plain   = "plain"
	guarded = "guarded"
)

// limit bounds the whole demo.
const limit = 2 * time.Minute

// Main plays the demo, and returns the exit status: 0 if the guards held, 1 if not,
// 64 if the command line is wrong.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("twostores", flag.ContinueOnError)
	flags.SetOutput(stderr)
	server := flags.String("postgres", os.Getenv("FENCEPOST_TEST_POSTGRES"), "`URL` of a PostgreSQL server whose user may create databases (make demo-twostores starts one)")
	cluster := flags.String("etcd", os.Getenv("FENCEPOST_TEST_ETCD"), "`URL` of an etcd server, such as etcd://host:2379 (make demo-twostores starts one)")
	verbose := flags.Bool("v", false, "show what the processes log")
	if err := flags.Parse(args); err != nil {
		return 64
	}
	if *server == "" || *cluster == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "twostores: which servers? Give -postgres URL and -etcd URL, or use make demo-twostores")
		return 64
	}
	return process.Play(ctx, "twostores", limit, stderr, *verbose, func(ctx context.Context, logs io.Writer) (bool, error) {
		return play(ctx, *server, *cluster, stdout, logs)
	})
}

// play makes stores of its own, and plays a round with each table.
func play(ctx context.Context, server, cluster string, stdout, logs io.Writer) (held bool, err error) {
	name, dsn, drop, err := process.NewDatabase(ctx, server, "twostores")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	folder, err := os.MkdirTemp("", name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	s := stores{catalog: strings.TrimSuffix(cluster, "/") + "/" + name, rows: dsn, file: filepath.Join(folder, "stock.db")}
	if err := s.make(ctx); err != nil {
		return false, err
	}
	var rounds []round
	for i, table := range []string{plain, guarded} {
		r := round{stores: s, table: table, first: 2*i + 1, logs: logs}
		if err := r.play(ctx); err != nil {
			return false, fmt.Errorf("tables %s: %w", table, err)
		}
		r.draw(stdout)
		rounds = append(rounds, r)
	}
	for _, store := range []string{rows, file} {
		if rounds[0].lost(store) == 0 {
			return false, fmt.Errorf("the unguarded table in %s lost nothing, so that the guarded one shows nothing", store)
		}
	}
	return len(rounds[1].accepted) == 0 && rounds[1].lost(rows) == 0 && rounds[1].lost(file) == 0, nil
}

// stores are where everything is.
type stores struct{ catalog, rows, file string }

// make makes the tables, and guards those that are to be. The SQLite file's are guarded
// by the shop itself.
func (s stores) make(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.rows)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is lost with it
	db, err := sql.Open("sqlite", s.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, table := range []string{plain, guarded} {
		statement := fmt.Sprintf(`create table %[1]s (n int); insert into %[1]s values (%[2]d)`, table, stock)
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	register, err := postgres.OpenRegister(ctx, s.rows, postgres.Config{})
	if err != nil {
		return err
	}
	err = register.InstallGuards(ctx, driver.GuardedTables{Tables: []string{guarded}})
	return errors.Join(err, register.Close())
}

// left reads what is in stock.
func (s stores) left(ctx context.Context, table string) (left map[string]int, err error) {
	conn, err := pgx.Connect(ctx, s.rows)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // only read
	db, err := sql.Open("sqlite", s.file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var inRows, inFile int
	err = conn.QueryRow(ctx, `select n from `+table).Scan(&inRows)
	err = errors.Join(err, db.QueryRowContext(ctx, `SELECT n FROM `+table).Scan(&inFile))
	return map[string]int{rows: inRows, file: inFile}, err
}

// A round is one play, with the tables of one name.
type round struct {
	stores
	table string
	first int // blue's generation; green's is the next one
	logs  io.Writer

	blue, green string         // their tokens
	read        map[string]int // by blue, before it was stopped
	accepted    map[string]int // of blue's stale writes
	refused     string
	status      int // with which blue ended
	sold        int // and acknowledged, in each store
	left        map[string]int
}

// lost is by how much a store has more than the ledger.
func (r round) lost(store string) int {
	sold := r.sold
	if _, accepted := r.accepted[store]; accepted {
		sold += stale
	}
	return r.left[store] - (stock - sold)
}

// play replaces blue by green while blue is stopped in the middle of a sale.
func (r *round) play(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	store, err := etcd.Open(ctx, r.catalog, etcd.Config{})
	if err != nil {
		return err
	}
	defer store.Close()
	blue, err := r.lead(ctx, store, "blue", r.first, &r.blue)
	if err != nil {
		return err
	}
	defer blue.Kill()
	if err := errors.Join(r.sell(blue, byBlue), blue.Tell(fmt.Sprintf("slowly %d", stale))); err != nil {
		return err
	}
	read, err := blue.Expect("read")
	if err != nil {
		return err
	}
	r.read = read.Left
	if err := blue.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	green, err := r.lead(ctx, store, "green", r.first+1, &r.green)
	if err != nil {
		return err
	}
	defer green.Kill()
	if err := errors.Join(r.sell(green, byGreen), blue.Tell("go on"), blue.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	e, err := blue.Expect("sold", "refused")
	if err != nil {
		return err
	}
	r.accepted, r.refused = e.Left, e.Text
	if r.status, err = blue.End(); err != nil {
		return err
	}
	if r.status != 0 {
		return fmt.Errorf("blue ended with %d, want 0: it was superseded", r.status)
	}
	if err := green.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := green.End(); err != nil {
		return err
	}
	r.left, err = r.stores.left(ctx, r.table)
	return err
}

// lead starts a shop that leads, and notes its token.
func (r *round) lead(ctx context.Context, store driver.Store, name string, g int, token *string) (*process.Process, error) {
	p, leads, err := process.Lead(ctx, r.logs, store, name, g, ShopVar+"="+name, catalogVar+"="+r.catalog, rowsVar+"="+r.rows, fileVar+"="+r.file, tableVar+"="+r.table)
	*token = leads.String()
	return p, err
}

// sell has a shop sell, and counts what it acknowledges.
func (r *round) sell(p *process.Process, n int) error {
	if err := p.Tell(fmt.Sprintf("sell %d", n)); err != nil {
		return err
	}
	_, err := p.Expect("sold")
	r.sold += n
	return err
}

// draw shows what has happened, for people.
func (r round) draw(w io.Writer) {
	end := "wrote back"
	if r.refused != "" {
		end = "was refused"
	}
	fmt.Fprintf(w, "tables named %s\n\n", r.table)
	fmt.Fprintf(w, "  blue   %-7s read %d ──┤ stopped ├──────────────────────────────────────────┤ %s, exit status %d\n", r.blue, r.read[rows], end, r.status)
	fmt.Fprintf(w, "  green  %-7s              claimed ── raised both registers ── sold %d ──┤\n\n", r.green, byGreen)
	for line := range strings.Lines(r.refused) {
		fmt.Fprintf(w, "  %s\n", strings.TrimSpace(line))
	}
	for _, store := range []string{rows, file} {
		took, sold := "refused blue's", r.sold
		if _, accepted := r.accepted[store]; accepted {
			took, sold = "accepted blue's", sold+stale
		}
		fmt.Fprintf(w, "  %-11s %s; ledger: %d in stock, %d sold and acknowledged: %d must be left, and there are %d: ", store, took, stock, sold, stock-sold, r.left[store])
		if n := r.lost(store); n != 0 {
			fmt.Fprintf(w, "%d sales are lost.\n", n)
			continue
		}
		fmt.Fprint(w, "nothing is lost.\n")
	}
	fmt.Fprintln(w)
}
