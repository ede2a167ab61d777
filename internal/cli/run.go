package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/entrypoint"
)

func (a *app) runCommand() *cobra.Command {
	var admin, superseded string
	var grace, window time.Duration
	var budget int
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Keep a server running by its exit codes, as a container's entrypoint",
		Long: `Run starts CMD and starts it again when its exit status asks for that. Once
CMD ends with 0 and says in its ending record that a newer generation leads, run
parks until it is told to stop, and answers /livez with 200 and /readyz/* with
503 at the server's admin address. Any other 0 ends run with 0. Signals are
forwarded and orphans reaped. One line says why for each decision. A service
manager that listens at NOTIFY_SOCKET hears what CMD says there, and of each
decision. Run waits for none of them to read. Stop signals within 250 ms are one.
If run itself is killed, the kernel kills CMD (Linux).

Restarts wait for 1 s at first, and for twice as long each time, up to 30 s. That
begins anew once CMD was healthy for a minute: ready, if it says READY=1 at
NOTIFY_SOCKET, or up, if it never says anything there. A first halt (166) restarts
at once. Halts are counted besides: where more than --halt-budget of them fall
within --halt-window the next ones wait however healthy CMD was, so that equals
don't fence each other without end: "restarting in 8s: 9 halts within 10m".

CMD gets a process group of its own, which is not the terminal's: a CMD that
reads the terminal is stopped by it. Give it another input, such as </dev/null.`,
		Example: `  fencepost run -- ./server -generation 7
  fencepost run --on-superseded exit --stop-grace 10s -- ./server -listen :6379`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 || len(args) == 0 {
				return errors.New("no command after --: want fencepost run [flags] -- CMD [ARG...]")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&admin, "admin", "", "`HOST:PORT` on loopback to answer at while parked, if the server's record names none")
	flags.StringVar(&superseded, "on-superseded", string(entrypoint.Park), "park, or `exit` with 0, once a newer generation leads")
	flags.DurationVar(&grace, "stop-grace", 30*time.Second, "how long the server may take to stop")
	flags.IntVar(&budget, "halt-budget", 5, "answer at once only the first `N` halts (166) within the window")
	flags.DurationVar(&window, "halt-window", 10*time.Minute, "for how long a halt counts")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if grace <= 0 {
			return fmt.Errorf("--stop-grace is %v, want more than 0, such as 1ms for at once", grace)
		}
		if budget <= 0 || window <= 0 {
			return fmt.Errorf("--halt-budget is %d and --halt-window %v, want more than 0 of each", budget, window)
		}
		return a.action(func(context.Context) error {
			return a.run(entrypoint.Config{
				Command: args, Admin: admin, OnSuperseded: entrypoint.OnSuperseded(superseded), StopGrace: grace,
				HaltBudget: budget, HaltWindow: window,
			})
		})(cmd, args)
	}
	return cmd
}

// run hands the process over to the entrypoint, which receives its signals and
// reports on standard error itself. The status is the entrypoint's, whichever
// it is.
func (a *app) run(cfg entrypoint.Config) error {
	cfg.Stdin, cfg.Stdout, cfg.Stderr = file(a.env.Stdin), file(a.env.Stdout), file(a.env.Stderr)
	code, err := entrypoint.Run(cfg)
	a.code = code
	if err != nil {
		return exitcodes.WithCode(fmt.Errorf("run: %w", err), code)
	}
	return nil
}

// file returns the stream where it is a file, and nil otherwise, which stands
// for the process's own.
func file(stream any) *os.File {
	f, _ := stream.(*os.File)
	return f
}
