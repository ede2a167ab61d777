package app

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/storeurl"
)

const usage = `indexer is a small package registry. Its packages are in a Fencepost catalog, and
its index is a git repository on disk that jobs keep equal to the catalog.

  indexer init  -index DIR -store URL    make an index that only the newest holder can change
  indexer serve -index DIR -store URL    answer clients, and run the jobs
  indexer demo                           see it work: indexer demo -h

Start it, and publish:
  indexer init  -index /tmp/index.git -store sqlite:/tmp/registry.db
  indexer serve -index /tmp/index.git -store sqlite:/tmp/registry.db -generation 1 -auto-promote
  curl -d '{"name":"left-pad","version":"1.0.0","checksum":"'$(echo x | sha256sum | head -c 64)'"}' 127.0.0.1:8080/publish
  curl 127.0.0.1:8080/publishes/ID

Flags:
`

// The commands.
const (
	initCommand  = "init"
	serveCommand = "serve"
	guardCommand = "guard" // called by the index's hook
)

// flags are the settings of one process.
type flags struct {
	store       string
	index       string
	checkout    string
	listen      string
	admin       string
	name        string
	generation  generation.Generation
	autoPromote bool
	lease       time.Duration
	args        []string // of guard
}

// errAnswered means that the command line asked a question, which was answered.
var errAnswered = errors.New("answered")

// parse reads the command line and, where that says nothing, the environment. Its
// errors ask for the code for usage or for configuration.
func parse(args []string, getenv func(string) string, stdout io.Writer) (command string, f flags, err error) {
	var number string
	set := flag.NewFlagSet(Name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.store, "store", "", "the `URL` of the catalog's store, without a password; default "+storeurl.EnvVar)
	set.StringVar(&f.index, "index", "", "the `folder` of the index")
	set.StringVar(&f.checkout, "checkout", "", "the `folder` of this process's copy of the index, which no other process uses; default: the index's with .checkout and the name of the process")
	set.StringVar(&f.listen, "listen", "127.0.0.1:8080", "the `address` for clients")
	set.StringVar(&f.admin, "admin", "", "the loopback `address` of the admin API; none if empty")
	set.StringVar(&f.name, "name", "", "the `name` of this process; default: the address for clients")
	set.StringVar(&number, "generation", "", "the `number` of this release; default "+generation.EnvVar)
	set.BoolVar(&f.autoPromote, "auto-promote", false, "lead as soon as it is ready, without being asked")
	set.DurationVar(&f.lease, "lease", 0, "how `long` the token is trusted without a confirmation; default 7.5s")
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "-h", "-help", "--help", "help":
		return command, f, help(set, stdout)
	case initCommand, serveCommand, guardCommand:
	default:
		return command, f, misused(fmt.Errorf("%.64q is no command: want init, serve or demo", command))
	}
	if err := exitcodes.ParseFlags(set, args); errors.Is(err, flag.ErrHelp) {
		return command, f, help(set, stdout)
	} else if err != nil {
		return command, f, err
	}
	if err := storeurl.CheckArgument(f.store); err != nil {
		return command, f, err
	}
	f.args = set.Args()
	switch {
	case command == guardCommand:
		return command, f, nil
	case len(f.args) > 0:
		return command, f, misused(fmt.Errorf("%.64q is no flag", f.args[0]))
	case f.index == "":
		return command, f, misused(errors.New("-index is missing"))
	case command == initCommand:
		return command, f, nil
	}
	f.name = cmp.Or(f.name, f.listen)
	f.checkout = cmp.Or(f.checkout, f.index+".checkout-"+fileName(f.name))
	f.generation, err = whichGeneration(number, getenv)
	return command, f, err
}

func whichGeneration(number string, getenv func(string) string) (g generation.Generation, err error) {
	if number != "" {
		if g, err = generation.Parse(number); err != nil {
			return g, misused(fmt.Errorf("-generation: %w", err))
		}
	}
	return generation.Resolve(g, getenv)
}

// fileName replaces what is not good in the name of a file.
func fileName(name string) string {
	text := []byte(name)
	for i, c := range text {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' {
			text[i] = '-'
		}
	}
	return string(text)
}

// misused marks an error of the command line.
func misused(err error) error {
	return exitcodes.WithCode(fmt.Errorf("%w: see %s -h", err, Name), exitcodes.Usage)
}

func help(set *flag.FlagSet, stdout io.Writer) error {
	if _, err := fmt.Fprint(stdout, usage); err != nil {
		return err
	}
	set.SetOutput(stdout)
	set.PrintDefaults()
	return errAnswered
}
