package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/lead"
	"github.com/fencepost/fencepost/internal/process"
	"github.com/fencepost/fencepost/internal/spool"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// A leading is one lead command.
type leading struct {
	app        *app
	generation generation.Generation
	name       string
	guardURL   string
	registers  []string
	holder     lead.Config
}

const leadHelp = `Lead waits for its turn and runs CMD only while it holds the token. CMD may be
written in any language: it finds its token in its environment, and is stopped
before the token is handed to anybody else.

What CMD finds in its environment:

  FENCEPOST_TOKEN         g7.e41; FENCEPOST_GENERATION=7, FENCEPOST_EPOCH=41
  FENCEPOST_TOKEN_FILE    the file of --token-file, which holds the token
  FENCEPOST_GUARDED_URL   the database of --guard-url, with the token in it:
                          behind "fencepost guard install" its sessions can write
                          only while that token is the newest. It holds the
                          password, if there is one; a pooler in transaction mode
                          needs "set local fencepost.token" instead
                          A program that reads another variable:
                          -- sh -c 'DATABASE_URL=$FENCEPOST_GUARDED_URL exec CMD'
  FENCEPOST_CATALOG       the name for: select fencepost.guard('NAME', 'TOKEN')
  NOTIFY_SOCKET           where it may say READY=1, STATUS=... and
                          X_FENCEPOST_BUSY=... (Linux)

What ends CMD:

  a handover (promote, step-down)  --hold, --stop-signal, then SIGKILL once three
                                   quarters of --handover-timeout are over; then
                                   the token is handed over. If the successor
                                   gives up, CMD is started anew. A successor asks
                                   by --admin, or from other hosts by --peer:
                                   without them it takes the token, which is a
                                   loss, and its own CMD may begin before this one
                                   is killed
  lead is told to stop (SIGTERM)   --stop-signal, --stop-grace, SIGKILL; then the
                                   token is given back, and a standby claims
  the token is lost, or its lease  SIGKILL at once: another process may lead
  expires while the store is away  already. CMD is started anew if none does
  lead is killed or hangs          SIGKILL, by a second process of lead's

Whatever CMD has started is ended with it. Only guards stop what is already on
its way: see docs/guards.md.

Hooks are run by /bin/sh, with what CMD finds. --hold comes before CMD is stopped
for a handover, so that a proxy queues requests; --resume comes once CMD is ready,
at every start of it, so that the proxy lets them through. One that fails, or
takes longer than --hook-timeout, is killed and logged, and nothing waits for it.
--prepare says with 0 that CMD could serve, and is run without a token while lead
waits for its turn: until it does, this process is not ready, and nobody hands over
to it.

CMD is ready once it was started, or as one of --ready-notify, --ready-url,
--ready-address and --ready-command says. Until then "fencepost health leader" says
no. CMD sends X_FENCEPOST_BUSY=TEXT to its NOTIFY_SOCKET while something runs that a
deploy should not interrupt, and X_FENCEPOST_BUSY= when that is done: "promote
--when-idle" waits for it.

SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to CMD while it runs.

Exit statuses: 0 a newer generation leads, or lead was told to stop, or CMD ended
with 0; 166 another process of this generation leads; 64 the command line is
wrong; 75 the store can't be reached, or CMD can't be started now; 78
configuration; 126, 127 CMD can't be executed, was not found. Any other is CMD's
own, 128+N if signal N killed it.`

func (a *app) leadCommand() *cobra.Command {
	l := leading{app: a}
	cfg := &l.holder
	var number, stopSignal string
	cmd := &cobra.Command{
		Use:   "lead --generation N [flags] -- CMD [ARG...]",
		Short: "Run a program of any language only while it holds the token",
		Long:  leadHelp,
		Example: `  fencepost lead --generation 7 --admin 127.0.0.1:7001 -- ./server --port 8080
  fencepost lead --generation 7 --guard-url postgres://app@db/app -- python3 worker.py
  fencepost run -- fencepost lead --generation 7 --admin 127.0.0.1:7001 \
      --hold './proxy hold' --resume './proxy resume 127.0.0.1:8080' \
      --ready-url http://127.0.0.1:8080/healthz -- ./server --port 8080`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 || len(args) == 0 {
				return errors.New("no command after --: want fencepost lead --generation N [flags] -- CMD [ARG...]")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&number, "generation", "", "`N`, the generation of this release; default is $"+generation.EnvVar)
	flags.StringVar(&l.name, "name", "", "who this process is, for people; default is the host's name")
	flags.StringVar(&cfg.Lead.Catalog.Holder.Address, "address", "", "`HOST:PORT` at which others reach CMD, for people and for refusals")
	flags.StringVar(&cfg.Lead.Admin, "admin", "", "`HOST:PORT` of the admin API and the probes, on loopback; default is $"+adminEnv)
	flags.StringVar(&cfg.Lead.Peer, "peer", "", "`HOST:PORT` at which lead on other hosts reaches this one, for handovers")
	flags.BoolVar(&cfg.Lead.AutoPromote, "auto-promote", false, "promote this generation as soon as it is ready, without being asked")
	flags.DurationVar(&cfg.Lead.Lease, "lease", 7500*time.Millisecond, "for how long the token is believed without asking the store")
	flags.DurationVar(&cfg.Lead.HandoverTimeout, "handover-timeout", 5*time.Second, "how long a handover may take")
	flags.IntVar(&cfg.Lead.Priority, "priority", 0, "0 to 9: standbys with lower `numbers` claim first")
	flags.StringVar(&stopSignal, "stop-signal", "TERM", "`signal` that asks CMD to stop")
	flags.DurationVar(&cfg.StopGrace, "stop-grace", 30*time.Second, "how long CMD may take to stop; less in a handover")
	flags.StringVar(&cfg.TokenFile, "token-file", "", "`file` in which CMD finds the token, too")
	flags.StringVar(&l.guardURL, "guard-url", "", "`URL` of PostgreSQL without a password, for FENCEPOST_GUARDED_URL; default is $"+storeurl.GuardEnvVar+", or what $"+storeurl.GuardFileEnvVar+" holds")
	flags.StringArrayVar(&l.registers, "register", nil, "`URL` of another store whose guards refuse older tokens before CMD is started; may be given several times; default is $"+storeurl.RegistersEnvVar)
	flags.StringVar(&cfg.Prepare, "prepare", "", "`shell command` that ends with 0 if CMD could serve")
	flags.StringVar(&cfg.Hold, "hold", "", "`shell command` before CMD is stopped for a handover")
	flags.StringVar(&cfg.Resume, "resume", "", "`shell command` once CMD is ready")
	flags.DurationVar(&cfg.HookTimeout, "hook-timeout", 5*time.Second, "how long --prepare, --hold and --resume may take")
	flags.BoolVar(&cfg.Ready.Notify, "ready-notify", false, "CMD is ready when it says READY=1 at its NOTIFY_SOCKET")
	flags.StringVar(&cfg.Ready.URL, "ready-url", "", "CMD is ready when this `URL` answers with 200 to 299")
	flags.StringVar(&cfg.Ready.Address, "ready-address", "", "CMD is ready when it accepts a connection at `HOST:PORT`")
	flags.StringVar(&cfg.Ready.Command, "ready-command", "", "CMD is ready when this `shell command` ends with 0")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		cfg.Command = args
		if number != "" {
			if l.generation, err = parseGeneration("lead", number); err != nil {
				return err
			}
		}
		if cfg.StopSignal, err = process.ParseSignal(stopSignal); err != nil {
			return fmt.Errorf("--stop-signal: %w", err)
		}
		if err := l.checkTimes(); err != nil {
			return err
		}
		if cfg.TokenFile != "" { // CMD may have another working directory
			if cfg.TokenFile, err = filepath.Abs(cfg.TokenFile); err != nil {
				return fmt.Errorf("--token-file: %w", err)
			}
		}
		return a.action(func(context.Context) error { l.main(); return nil })(cmd, args)
	}
	return cmd
}

// checkTimes refuses a time of nothing, which can't be meant.
func (l *leading) checkTimes() error {
	for _, t := range []struct {
		flag string
		is   time.Duration
	}{
		{"--stop-grace", l.holder.StopGrace}, {"--hook-timeout", l.holder.HookTimeout},
		{"--lease", l.holder.Lead.Lease}, {"--handover-timeout", l.holder.Lead.HandoverTimeout},
	} {
		if t.is <= 0 {
			return fmt.Errorf("%s is %v, want more than 0, such as 1s", t.flag, t.is)
		}
	}
	return nil
}

// main hands the process over to package exitcodes, and never returns.
func (l *leading) main() {
	log := l.logger()
	exitcodes.Main(func(ctx context.Context) error { return l.run(ctx, log) }, exitcodes.Options{
		Name: "fencepost lead", Grace: l.holder.MainGrace(), OwnHangup: true,
		Flush: func(within time.Duration) { spool.Flush(log, within) },
	})
}

// logger logs to standard error, and holds up nobody if that is not read.
func (l *leading) logger() *slog.Logger {
	stderr := cmp.Or(file(l.app.env.Stderr), os.Stderr)
	if l.app.json {
		return spool.Logger(slog.New(slog.NewJSONHandler(stderr, nil)))
	}
	return spool.Logger(slog.New(slog.NewTextHandler(stderr, nil)))
}

func (l *leading) run(ctx context.Context, log *slog.Logger) (err error) {
	a := l.app
	g, err := generation.Resolve(l.generation, a.env.Getenv)
	if err != nil {
		return err
	}
	opening := storeurl.Config{Getenv: a.env.Getenv, Lease: l.holder.Lead.Lease, Logger: log}
	store, err := storeurl.Open(ctx, a.store, opening)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	guard, err := storeurl.GuardOf(l.guardURL, opening)
	if err != nil {
		return err
	}
	registers, err := storeurl.OpenRegisters(ctx, l.registers, opening)
	if err != nil {
		return err
	}
	for _, r := range registers {
		defer func() { err = errors.Join(err, r.Close()) }()
	}
	cfg := l.config(store, guard, registers, log)
	cfg.Lead.Catalog.Generation = g
	return lead.Run(ctx, store, cfg)
}

// config completes what the flags say.
func (l *leading) config(store driver.Store, guard storeurl.Guard, registers []storeurl.Register, log *slog.Logger) lead.Config {
	a, cfg := l.app, l.holder
	cfg.Stdin, cfg.Stdout, cfg.Stderr = file(a.env.Stdin), file(a.env.Stdout), file(a.env.Stderr)
	cfg.Keeper = itself(keeperName)
	cfg.Lead.Logger = log
	cfg.Lead.Admin = cmp.Or(cfg.Lead.Admin, a.env.Getenv(adminEnv))
	if cfg.Lead.Admin == "" && cfg.Lead.Peer == "" {
		log.Warn("nobody can ask this process to hand over, so a promotion kills its command: give --admin, or --peer if the successor is on another host")
	}
	cfg.Lead.Catalog.Holder.Name = cmp.Or(l.name, hostname())
	if a.storeTimeout != longestCall { // else package leader derives it from the lease
		cfg.Lead.Catalog.StoreTimeout = a.storeTimeout
	}
	for _, r := range registers {
		cfg.Lead.Registers = append(cfg.Lead.Registers, r)
	}
	cfg.Hidden = []string{storeurl.GuardEnvVar, storeurl.GuardFileEnvVar} // without a token in them
	cfg.Catalog = catalogOf(store)
	if !guard.IsZero() {
		cfg.Catalog, cfg.GuardedURL = guard.Catalog, guard.URL
	}
	return cfg
}

// catalogOf is the name of a catalog in PostgreSQL, where several share a database.
func catalogOf(store driver.Store) string {
	name := store.String()
	if !strings.HasPrefix(name, "postgres:") {
		return ""
	}
	_, catalog, _ := strings.Cut(name, "catalog=")
	return catalog
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// keeperName is the command of the process that ends CMD where lead can't.
const keeperName = "lead-keeper"

// itself is this program with another command line, also where its file has been
// replaced since.
func itself(args ...string) lead.Program {
	p := lead.Program{Path: "/proc/self/exe", Args: append([]string{os.Args[0]}, args...)}
	if _, err := os.Stat(p.Path); err != nil {
		p.Path, _ = os.Executable() // what is missing is said when it is started
	}
	return p
}

func (a *app) keeperCommand() *cobra.Command {
	return &cobra.Command{
		Use: keeperName, Short: "Part of fencepost lead, which starts it", Hidden: true, Args: cobra.NoArgs,
		RunE: a.action(func(context.Context) error {
			lead.Keep(a.env.Stdin, a.env.Stderr)
			return nil
		}),
	}
}
