// Package cli is the command fencepost: it shows who holds a catalog's token
// and why, hands out generations, promotes one, and runs a server under the
// entrypoint.
//
// Standard output has the answer and nothing else: a table for people, or with
// --json exactly one JSON object; a dump is JSON lines either way, and what explain
// lists is an array. Standard error has one line, or with --json one JSON object, where a command fails. Exit statuses are those of package
// exitcodes; 0 means that what was asked for is so.
//
// Commands that show something need no token and write nothing. No command
// prints a secret: a password on the command line is refused, and one from the
// environment or a file is only handed on.
//
// The package decides nothing about tokens. What is promoted, and what that
// means, is package leader's; what follows the end of a server, package
// entrypoint's.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/spool"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// Env is everything the command takes from its surroundings. The standard
// streams of a program that `fencepost run` starts are these where they are
// files, and otherwise the process's own.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// Main runs one command and returns the status with which the process is to
// end. It does not exit itself.
func Main(ctx context.Context, env Env) exitcodes.Code {
	a := &app{env: env}
	err := a.execute(ctx)
	if err == nil {
		return a.code
	}
	f := a.failureOf(err)
	f.print(printable{env.Stderr}, a.json)
	return f.Code
}

// An app is one run of the command.
type app struct {
	env Env

	// Global flags.
	store                 string
	register              string // of the commands guard
	json                  bool
	timeout, storeTimeout time.Duration

	started bool           // the command line was understood
	name    string         // of the store, once it is known; never has a secret
	code    exitcodes.Code // where no error says more: that of a program that was run
}

// execute parses the command line and runs what it says.
func (a *app) execute(ctx context.Context) error {
	args := append([]string{}, a.env.Args...) // never nil: cobra would take the process's own
	// Whatever keeps the command line from being parsed is said as asked.
	defer func() { a.json = a.json || !a.started && wantsJSON(args) }()
	if err := checkArguments(args); err != nil {
		return err
	}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.env.Stdin)
	root.SetOut(a.env.Stdout)
	root.SetErr(a.env.Stderr)
	return root.ExecuteContext(ctx)
}

// wantsJSON looks for --json by hand, and in the forms that the flag itself takes:
// the last one decides.
func wantsJSON(args []string) (wants bool) {
	for _, arg := range args {
		if arg == "--" {
			break
		}
		flag, value, found := strings.Cut(arg, "=")
		if flag != "--json" {
			continue
		}
		if on, err := strconv.ParseBool(value); err == nil || !found {
			wants = on || !found
		}
	}
	return wants
}

// checkArguments refuses a password anywhere on the command line of our own,
// also where it stands in the wrong place: the message about that would show
// it. What follows -- is another program's.
func checkArguments(args []string) error {
	for _, arg := range args {
		if arg == "--" {
			return nil
		}
		if flag, value, found := strings.Cut(arg, "="); found && strings.HasPrefix(flag, "-") {
			arg = value
		}
		if !strings.Contains(arg, "://") && !strings.Contains(strings.ToLower(arg), "password") {
			continue
		}
		if err := storeurl.CheckArgument(arg); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "fencepost",
		Short: "Show and move the fencing token of a single-writer service",
		Long: `Fencepost shows who holds the fencing token of a service, hands out the numbers
of its releases, promotes one, keeps a server running by its exit codes, and runs
programs of any language only while they hold the token.

The store is named by --store or by FENCEPOST_STORE:

  sqlite:PATH                           (PATH?filesystem=trusted: see docs/guarantees.md)
  postgres://user@host:port/database?catalog=NAME
  etcd://host:2379,host:2379/prefix     (etcds:// with TLS; ?hedge-after=100ms
                                        and other timings: see docs/leading.md)

A password never belongs on a command line. Put the URL into FENCEPOST_STORE or
into a file that FENCEPOST_STORE_FILE names, or the password alone into
PGPASSWORD, PGPASSFILE or FENCEPOST_ETCD_PASSWORD.

Exit statuses: 0 done; 1 what was asked for can't be; 2 the catalog is broken;
64 the command line is wrong; 75 the store can't be reached, or the time is
over; 78 configuration; 166 start anew.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(*cobra.Command, []string) error { return errNoCommand },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.store, "store", "", "`URL` of the store; default is $FENCEPOST_STORE")
	flags.BoolVar(&a.json, "json", false, "print one JSON object")
	flags.DurationVar(&a.timeout, "timeout", defaultTimeout, "how long the store may take")
	flags.DurationVar(&a.storeTimeout, "store-timeout", longestCall, "how long one call of the store may take before it is made again")
	root.AddCommand(a.statusCommand(), a.historyCommand(), a.generationCommand(),
		a.preflightCommand(), a.promoteCommand(), a.abortCommand(), a.stepDownCommand(), a.preferenceCommand(), a.fenceCommand(), a.restoredCommand(), a.dumpCommand(), a.schemaCommand(), a.storeCommand(), a.guardCommand(), a.reapCommand(), a.workCommand(),
		a.explainCommand(), a.runCommand(), a.leadCommand(), a.keeperCommand(), a.healthCommand(), a.versionCommand())
	return root
}

var errNoCommand = errors.New("no command given")

// action is what a command does once its command line was understood. What
// goes wrong before is a mistake of usage.
func (a *app) action(do func(ctx context.Context) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if a.timeout <= 0 {
			return fmt.Errorf("--timeout is %v, want more than 0", a.timeout)
		}
		if a.storeTimeout <= 0 {
			return fmt.Errorf("--store-timeout is %v, want more than 0", a.storeTimeout)
		}
		a.started = true
		return do(cmd.Context())
	}
}

// A failure is how a command that failed is reported.
type failure struct {
	Error       string         `json:"error"`
	Code        exitcodes.Code `json:"code"`
	Disposition string         `json:"disposition"`
	Store       string         `json:"store"`
}

// failureOf is the one place that says with which status a failed command
// ends. No failure of a command is a success: an error that would end a
// superseded server with 0 ends a command with 1.
func (a *app) failureOf(err error) failure {
	if !a.started && exitcodes.CodeOf(err) == exitcodes.Failure {
		err = exitcodes.WithCode(fmt.Errorf("%w: see fencepost --help", err), exitcodes.Usage)
	}
	if exitcodes.Of(err) == exitcodes.GracefulExit {
		err = exitcodes.With(err, exitcodes.None)
	}
	return failure{
		Error:       exitcodes.OneLine(err.Error()),
		Code:        exitcodes.CodeOf(err),
		Disposition: exitcodes.Of(err).String(),
		Store:       a.name,
	}
}

// farewell is how long a command waits for whoever reads how it failed.
const farewell = time.Second

// print reports f. When that fails, or takes too long, nobody is left to tell.
func (f failure) print(stderr io.Writer, asJSON bool) {
	line := []byte("fencepost: " + f.Error)
	if text, err := json.Marshal(f); asJSON && err == nil {
		line = text
	}
	out := spool.New(1, func(line []byte, _ int) { _, _ = stderr.Write(line) })
	out.Put(append(line, '\n'))
	out.Flush(farewell)
}

// show prints the answer: v as one JSON object, or what people does.
func (a *app) show(v any, people func(w io.Writer) error) error {
	if a.json {
		return json.NewEncoder(printable{a.env.Stdout}).Encode(v)
	}
	return people(printable{a.env.Stdout})
}
