package app

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/storeurl"
)

const usage = `kvserver is a database server that speaks the Redis protocol. Its data are in a
Fencepost catalog, and its next generation can take over while it is in use.

  kvserver [flags]

Start it, and write to it:
  kvserver -store sqlite:/tmp/kv.db -generation 1
  redis-cli -p 6380 SET greeting hello

Start its next generation beside it, and promote that:
  kvserver -store sqlite:/tmp/kv.db -generation 2 -listen 127.0.0.1:6381 -admin 127.0.0.1:7002
  fencepost promote --store sqlite:/tmp/kv.db --generation 2

Flags:
`

// adminEnv names the variable with the default of -admin.
const adminEnv = "FENCEPOST_ADMIN"

// flags are the settings of one process.
type flags struct {
	store        string
	generation   generation.Generation
	listen       string
	admin        string
	autoPromote  bool
	name         string
	confirmReads bool
	compactAfter int64
	peer         string
	advertise    string
	lease        time.Duration
	storeTimeout time.Duration
	priority     int
	drain        time.Duration
	acceptLoss   bool
}

// errAnswered means that the command line asked a question, which was answered.
var errAnswered = errors.New("answered")

// parseFlags reads the command line and, where that says nothing, the
// environment. Its errors ask for the code for usage or for configuration.
func parseFlags(args []string, getenv func(string) string, stdout io.Writer) (flags, error) {
	var f flags
	var number string
	var version bool
	set := flag.NewFlagSet(Name, flag.ContinueOnError)
	set.SetOutput(stdout)
	set.Usage = func() {
		_, _ = fmt.Fprint(set.Output(), usage) // to memory
		set.PrintDefaults()
	}
	set.StringVar(&f.store, "store", "", "the `URL` of the catalog's store, without a password: sqlite:PATH, postgres://host/database?catalog=NAME, etcd://host:2379/prefix; default "+storeurl.EnvVar)
	set.StringVar(&number, "generation", "", "the `number` of this release; default "+generation.EnvVar)
	set.StringVar(&f.listen, "listen", "127.0.0.1:6380", "the `address` for clients")
	set.StringVar(&f.admin, "admin", getenv(adminEnv), "the loopback `address` of the admin API; none where empty; default "+adminEnv)
	set.BoolVar(&f.autoPromote, "auto-promote", false, "lead as soon as it is ready, without being asked")
	set.StringVar(&f.name, "name", "", "the `name` of this process, for people; default the host's and the client address")
	set.BoolVar(&f.confirmReads, "confirm-reads", false, "ask the store after every read whether this process still holds the token")
	set.Int64Var(&f.compactAfter, "compact-after", 0, "how many `bytes` of log are kept at least; default 1048576")
	set.StringVar(&f.peer, "peer", "", "the `address` at which processes of other hosts reach this one, for handover and failover")
	set.StringVar(&f.advertise, "advertise", "", "the `address` at which others reach the clients' port, to forward there; default -listen, with the host's name where it names none")
	set.DurationVar(&f.storeTimeout, "store-timeout", 0, "for how `long` one call of the store may take; default two thirds of -lease, from 1s to 5s")
	set.DurationVar(&f.lease, "lease", 0, "for how `long` the token is believed without a confirmation; default 7.5s")
	set.IntVar(&f.priority, "priority", 0, "the `number` from 0 to 9 by which standbys take over, 0 first")
	set.DurationVar(&f.drain, "drain", 10*time.Second, "for how `long` a server that was superseded forwards its clients' commands at most; with 0 it refuses them at once")
	set.BoolVar(&f.acceptLoss, "accept-loss", false, "claim over a loss of commits that was found in the store, which otherwise ends with 78 until fencepost restored")
	set.BoolVar(&version, "version", false, "print the version and end")
	err := exitcodes.ParseFlags(set, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return f, errAnswered
	case err != nil:
		return f, err
	case set.NArg() > 0:
		return f, misused(fmt.Errorf("%q is no flag", set.Arg(0)))
	case version:
		return f, answer(stdout, "%s %s %s\n", Name, cmp.Or(build(), "(unknown)"), runtime.Version())
	}
	if err := storeurl.CheckArgument(f.store); err != nil {
		return f, err
	}
	if f.compactAfter < 0 {
		return f, misused(fmt.Errorf("-compact-after is %d, want more than 0", f.compactAfter))
	}
	if f.storeTimeout < 0 {
		return f, misused(fmt.Errorf("-store-timeout is %v, want no less than 0", f.storeTimeout))
	}
	if f.drain < 0 {
		return f, misused(fmt.Errorf("-drain is %v, want no less than 0", f.drain))
	}
	f.name = cmp.Or(f.name, processName(f.listen))
	f.generation, err = whichGeneration(number, getenv)
	return f, err
}

func whichGeneration(number string, getenv func(string) string) (g generation.Generation, err error) {
	if number != "" {
		if g, err = generation.Parse(number); err != nil {
			return g, misused(fmt.Errorf("-generation: %w", err))
		}
	}
	return generation.Resolve(g, getenv)
}

// misused marks an error of whoever typed the command line.
func misused(err error) error {
	return exitcodes.WithCode(fmt.Errorf("%w: see %s -h", err, Name), exitcodes.Usage)
}

// answer prints what was asked for.
func answer(stdout io.Writer, format string, args ...any) error {
	if _, err := fmt.Fprintf(stdout, format, args...); err != nil {
		return err
	}
	return errAnswered
}

// processName names a process by its host and its client address.
func processName(listen string) string {
	host, err := os.Hostname()
	if err != nil {
		return listen
	}
	return host + " " + listen
}
