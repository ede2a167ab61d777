package demo

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/fencepost/fencepost/internal/storeurl"
)

const usage = `bluegreen replaces a database server by its next generation under load, and
checks against the store that no acknowledged write was lost.

  go run ./examples/bluegreen [flags]

On PostgreSQL or etcd, in a catalog of its own for each round:
  go run ./examples/bluegreen -store 'postgres://postgres@127.0.0.1:5432/postgres'
  go run ./examples/bluegreen -store etcd://127.0.0.1:2379

Exit status: 0, or 1 where a write was lost, is there twice or was accepted from
a server that no longer held the token, or where a step did not happen.

Flags:
`

// options are the settings of one run.
type options struct {
	store     string
	json      bool
	clients   int
	load      time.Duration
	patience  time.Duration
	server    string
	fencepost string
	keep      bool
}

// errAnswered means that the command line asked a question, which was answered.
var errAnswered = errors.New("answered")

func parseFlags(env Env) (options, error) {
	var o options
	set := flag.NewFlagSet("bluegreen", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&o.store, "store", "", "the `URL` of a store, without a password; default "+storeurl.EnvVar+", else SQLite in a temporary folder")
	set.BoolVar(&o.json, "json", false, "print one JSON object on standard output at the end")
	set.IntVar(&o.clients, "clients", 16, "how many clients write through the stable address")
	set.DurationVar(&o.load, "load", 1500*time.Millisecond, "for how long clients write between two steps")
	set.DurationVar(&o.patience, "patience", 30*time.Second, "how long one step may take")
	set.StringVar(&o.server, "server", "", "the `path` of kvserver; default: it is built")
	set.StringVar(&o.fencepost, "fencepost", "", "the `path` of the command fencepost; default: it is built")
	set.BoolVar(&o.keep, "keep", false, "keep the temporary folder")
	err := set.Parse(env.Args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprint(env.Stdout, usage) // nobody is left to be told
		set.SetOutput(env.Stdout)
		set.PrintDefaults()
		return o, errAnswered
	case err != nil:
		return o, err
	case set.NArg() > 0:
		return o, fmt.Errorf("%q is no flag", set.Arg(0))
	case o.clients < 1 || o.load <= 0 || o.patience <= 0:
		return o, errors.New("-clients, -load and -patience must be above 0")
	}
	if err := storeurl.CheckArgument(o.store); err != nil {
		return o, err
	}
	o.store = cmp.Or(o.store, env.Getenv(storeurl.EnvVar))
	return o, nil
}
