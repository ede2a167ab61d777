// Package demo is the example "generations": a service of which each generation makes a
// folder and a PostgreSQL schema for itself; and a zombie that cleans up.
//
// Twice the same is played with real processes. Six generations have led and left what
// they made. Then:
//
//	blue   generation 7 leads, and is stopped when it is about to clean up (SIGSTOP)
//	green  generation 8 is promoted, leads, and makes a folder and a schema
//	blue   goes on (SIGCONT) and cleans up
//
// Once by a script's rule, everything that is not mine is old: the zombie removes what
// green has just made. And once by package reap, which keeps the newest two superseded
// generations for a rollback: green and many tools, which hold no token, clean up at once,
// and remove each thing once; the zombie then finds nothing that it may remove. Anything
// else ends the demo with status 1.
package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/examples/guarded/process"
	"github.com/fencepost/fencepost/generation"
)

const (
	past  = 6 // generations that have led before
	blue  = 7
	green = 8

	limit = 2 * time.Minute // of the whole demo
)

// Main plays the demo, and returns the exit status: 0 if reaping kept what it has to, 1 if
// not, 64 if the command line is wrong.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("generations", flag.ContinueOnError)
	flags.SetOutput(stderr)
	server := flags.String("postgres", os.Getenv("FENCEPOST_TEST_POSTGRES"), "`URL` of a PostgreSQL server whose user may create databases (make demo-generations starts one)")
	tools := flags.Int("tools", 20, "how many tools clean up at once")
	verbose := flags.Bool("v", false, "show what the processes log")
	if err := flags.Parse(args); err != nil {
		return 64
	}
	if *server == "" || *tools < 0 || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "generations: which server? Give -postgres URL, or use make demo-generations")
		return 64
	}
	return process.Play(ctx, "generations", limit, stderr, *verbose, func(ctx context.Context, logs io.Writer) (bool, error) {
		return play(ctx, *server, *tools, stdout, logs)
	})
}

// play makes a database and a folder of its own and plays both rounds.
func play(ctx context.Context, server string, tools int, stdout, logs io.Writer) (held bool, err error) {
	_, dsn, drop, err := process.NewDatabase(ctx, server, "generations")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	root, err := os.MkdirTemp("", "generations-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	swept, reaped := round{rule: "sweep", logs: logs}, round{rule: "reap", tools: tools, logs: logs}
	for _, r := range []*round{&swept, &reaped} {
		if r.place, err = newPlace(dsn, root, r.rule); err != nil {
			return false, err
		}
		if err := r.play(ctx); err != nil {
			return false, fmt.Errorf("%s: %w", r.rule, err)
		}
		r.draw(stdout)
	}
	if slices.Contains(swept.folders, green) || slices.Contains(swept.schemas, green) {
		return false, errors.New("the script's rule removed nothing of green, so that the other round shows nothing")
	}
	return reaped.held(), nil
}

// newPlace is a round's own, in one database.
func newPlace(dsn, root, name string) (p place, err error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return p, err
	}
	q := u.Query()
	q.Set("catalog", name)
	u.RawQuery = q.Encode()
	p = place{database: dsn, store: u.String(), folder: filepath.Join(root, name), prefix: name + "_"}
	return p, os.Mkdir(p.folder, 0o755)
}

// A round is one play.
type round struct {
	rule  string // by which blue cleans up
	tools int
	place place
	logs  io.Writer

	zombie           process.Event // what blue did when it went on
	status           int           // of blue
	deleted, gone    int           // by green and the tools
	failed           int
	folders, schemas []int // the generations that have them still
}

// held reports whether everything is as it has to be: what is superseded was removed by
// one reaper each, and everything else is there.
func (r round) held() bool {
	left := []int{past, blue, green} // two superseded ones, and the one that leads
	return slices.Equal(r.folders, left) && slices.Equal(r.schemas, left) && r.failed == 0 &&
		r.deleted == 2*(past-1) && r.zombie.Left["deleted"] == 0 && r.gone <= 2*r.tools
}

func (r *round) play(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, closeAll, err := r.place.open(ctx)
	if err != nil {
		return err
	}
	defer closeAll()
	for g := generation.Generation(1); g <= past; g++ {
		c, err := catalog.Open(ctx, t.store, catalog.Config{Generation: g})
		if err != nil {
			return err
		}
		if err := errors.Join(t.make(ctx, c.Claim().Token), c.Close()); err != nil {
			return err
		}
	}
	if err := r.replace(ctx, t); err != nil {
		return err
	}
	r.folders, r.schemas, err = t.there(ctx)
	return err
}

// replace replaces blue by green while blue is stopped.
func (r *round) replace(ctx context.Context, t things) error {
	old, err := r.lead(ctx, t, "blue", blue)
	if err != nil {
		return err
	}
	defer old.Kill()
	if err := begin(old, r.rule); err != nil {
		return err
	}
	if err := old.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	next, err := r.lead(ctx, t, "green", green)
	if err != nil {
		return err
	}
	defer next.Kill()
	if r.rule == "reap" {
		if err := r.together(ctx, next); err != nil {
			return err
		}
	}
	if err := errors.Join(old.Tell("go on"), old.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	if r.zombie, err = old.Expect("reaped"); err != nil {
		return err
	}
	if r.status, err = old.End(); err != nil {
		return err
	}
	if r.status != 0 {
		return fmt.Errorf("blue ended with %d, want 0: it was superseded", r.status)
	}
	if err := next.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_, err = next.End()
	return err
}

// begin has a server be about to clean up.
func begin(p *process.Process, rule string) error {
	if err := p.Tell(rule); err != nil {
		return err
	}
	_, err := p.Expect("about to")
	return err
}

// together has green and the tools clean up at once.
func (r *round) together(ctx context.Context, green *process.Process) error {
	reapers := []*process.Process{green}
	if err := begin(green, r.rule); err != nil {
		return err
	}
	for range r.tools {
		p, err := process.Start(ctx, r.logs, tool, append(r.place.environment(), RoleVar+"="+tool)...)
		if err != nil {
			return err
		}
		defer p.Kill()
		reapers = append(reapers, p)
	}
	for _, p := range reapers[1:] {
		if _, err := p.Expect("ready"); err != nil {
			return err
		}
	}
	for _, p := range reapers {
		if err := p.Tell("go on"); err != nil {
			return err
		}
	}
	for _, p := range reapers {
		e, err := p.Expect("reaped")
		if err != nil {
			return err
		}
		r.deleted += e.Left["deleted"]
		r.gone += e.Left["gone"]
		r.failed += e.Left["failed"]
	}
	return nil
}

// lead starts a server that leads.
func (r *round) lead(ctx context.Context, t things, name string, g int) (*process.Process, error) {
	p, _, err := process.Lead(ctx, r.logs, t.store, name, g, append(r.place.environment(), RoleVar+"="+name)...)
	return p, err
}

// draw shows what has happened, for people.
func (r round) draw(w io.Writer) {
	rule := "everything that is not mine is old"
	if r.rule == "reap" {
		rule = fmt.Sprintf("package reap, which keeps %d superseded generations", keep)
	}
	fmt.Fprintf(w, "clean-up by %s\n\n", rule)
	fmt.Fprintf(w, "  blue   g%d  about to clean up ──┤ stopped ├─────────────┤ removed %d things, exit status %d\n", blue, r.zombie.Left["deleted"], r.status)
	fmt.Fprintf(w, "  green  g%d                          claimed, made ──┤\n\n", green)
	if r.rule == "reap" {
		fmt.Fprintf(w, "  green and %d tools at once: %d removed, %d that another one had removed, %d failed\n", r.tools, r.deleted, r.gone, r.failed)
	}
	fmt.Fprintf(w, "  folders of generations %v and schemas of %v are left: ", r.folders, r.schemas)
	if !slices.Contains(r.folders, green) || !slices.Contains(r.schemas, green) {
		fmt.Fprintf(w, "those of %d, which leads, are gone.\n\n", green)
		return
	}
	fmt.Fprint(w, "the one that leads, and those for a rollback.\n\n")
}
