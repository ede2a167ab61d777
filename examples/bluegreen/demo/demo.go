package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

// Env is everything that the program takes from its surroundings.
type Env struct {
	Args           []string // without the program's name
	Getenv         func(string) string
	Stdout, Stderr io.Writer
}

// Main is the whole program. It returns the status with which the process is to
// end: 0 where every step happened and the ledger agrees with the store, 64
// where the command line is wrong, and 1 otherwise.
func Main(ctx context.Context, env Env) int {
	opts, err := parseFlags(env)
	switch {
	case errors.Is(err, errAnswered):
		return int(exitcodes.Success)
	case err != nil:
		_, _ = fmt.Fprintf(env.Stderr, "bluegreen: %v: see -h\n", err)
		return int(exitcodes.Usage)
	}
	report, err := run(ctx, opts, env)
	if err != nil {
		_, _ = fmt.Fprintf(env.Stderr, "bluegreen: %v\n", err)
		return int(exitcodes.Failure)
	}
	if opts.json {
		_ = json.NewEncoder(env.Stdout).Encode(report) // nobody is left to be told
	}
	if !report.good() {
		return int(exitcodes.Failure)
	}
	return int(exitcodes.Success)
}

// A demo is one run of the program.
type demo struct {
	opts     options
	env      Env
	dir      string // temporary, for binaries, logs and SQLite's files
	id       string // keeps the catalogs of different runs apart
	binaries binaries
	progress *progress
}

// run plays both rounds. An error means that there is nothing to report on.
func run(ctx context.Context, opts options, env Env) (r report, err error) {
	dir, err := os.MkdirTemp("", "bluegreen-")
	if err != nil {
		return r, err
	}
	d := &demo{
		opts: opts, env: env, dir: dir, id: strings.ToLower(rand.Text()[:8]),
		progress: &progress{out: env.Stderr, began: time.Now()},
	}
	defer d.cleanUp()
	if d.binaries, err = d.findBinaries(ctx); err != nil {
		return r, err
	}
	var rounds []*round
	for i, play := range scripts() {
		if ctx.Err() != nil {
			break
		}
		round := d.newRound(i+1, play)
		rounds = append(rounds, round)
		if err := round.run(ctx); err != nil {
			return r, err
		}
	}
	if ctx.Err() != nil {
		return r, errors.New("interrupted: every process that was started has ended")
	}
	r = newReport(rounds)
	d.show(rounds, r)
	return r, nil
}

// cleanUp removes the temporary folder, unless it is to be kept.
func (d *demo) cleanUp() {
	if d.opts.keep {
		d.progress.say("logs and data are kept in %s", d.dir)
		return
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.progress.say("%v", err)
	}
}

// storeURL names the catalog of one round, which nobody has used before.
func (d *demo) storeURL(number int) string {
	name := fmt.Sprintf("bluegreen-%s-%d", d.id, number)
	base := d.opts.store
	scheme, _, _ := strings.Cut(base, ":")
	switch scheme {
	case "":
		return "sqlite:" + filepath.Join(d.dir, name+".db")
	case "sqlite":
		return base + "-" + name
	case "postgres", "postgresql":
		// A question mark before the @ belongs to the password.
		separator := "?"
		if strings.Contains(base[strings.LastIndex(base, "@")+1:], "?") {
			separator = "&"
		}
		return base + separator + "catalog=" + name
	default:
		return strings.TrimSuffix(base, "/") + "/" + name
	}
}
