package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A raising is one command that raises the token on purpose.
type raising struct {
	app  *app
	opts catalog.RaiseOptions
	name string // of the command
}

func (a *app) fenceCommand() *cobra.Command {
	r := raising{app: a, name: "fence"}
	cmd := &cobra.Command{
		Use:   "fence --reason TEXT",
		Short: "Take the token from whoever holds it, on purpose",
		Long: `Fence raises the epoch, so that the holder can commit nothing from now on. It
asks nothing and changes nothing else: generation, data and promotion stay. The
holder hears "fenced by epoch" and ends with 166, and whoever supervises it
starts it again; a process of the same generation, it or a standby, claims as
soon as it has seen no sign of life for long enough.

It fails with status 1 where nobody ever claimed, and where somebody else claimed
meanwhile: then the holder that was to be fenced is fenced already. With 75 it
is not known whether the token was raised: look at the status.`,
		Example: `  fencepost fence --reason 'blue-1 hangs, ticket 4711'
  fencepost fence --reason 'drill' --json | jq -r .token`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&r.opts.Reason, "reason", "", "why, for the history (required)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return r.start(cmd, args) }
	return cmd
}

func (a *app) restoredCommand() *cobra.Command {
	r := raising{app: a, name: "restored"}
	var above string
	cmd := &cobra.Command{
		Use:   "restored --above TOKEN",
		Short: "Lift a catalog that was restored from a backup above every token ever issued",
		Long: `A catalog that was restored from a backup has an older token than the one that
was lost, and would issue the same tokens again. Restored lifts it above the
highest that was ever issued, before anything is started on it: whoever still
holds one of those is fenced or told that its commits were lost, and never that
they landed. The data are those of the backup; nothing brings the others back.

Where to find that token, the highest of all that these say:
  - fencepost history, or status, on the lost store, if it can still be read
  - the logs of the service: every claim and every fence names its token
  - the ending records of its processes (FENCEPOST_TERMINATION_LOG, or the
    last state of a Kubernetes container)
  - the answers of fencepost promote and fencepost fence in the deploy's logs
In doubt take a higher epoch, and the last generation that was handed out: a
number that is skipped costs nothing.

It fails with status 78 if the catalog bears that token already, or a higher
one: then it is not the backup alone. On SQLite that is so if the backup was
copied beside the -wal of the lost catalog: remove the -wal and -shm and copy it
again. After this command it is so too: asked for once more, it says by whom
the token was raised. A SQLite file is checked page by page.

Stop every process of the service first. Afterwards deploy under a generation
above that of TOKEN. The numbers that were handed out since the backup are
forgotten with it: see docs/rollback.md.`,
		Example: `  fencepost restored --above g7.e41
  fencepost restored --above g7.e41 --reason 'disk of db1 lost, backup of 03:00' --json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&above, "above", "", "the highest `TOKEN` that was ever issued, such as g7.e41 (required)")
	cmd.Flags().StringVar(&r.opts.Reason, "reason", "", "why, for the history; default names the token")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if above == "" {
			return errors.New("restored needs --above TOKEN: the highest token that was ever issued")
		}
		if r.opts.Above, err = fence.Parse(above); err != nil {
			return fmt.Errorf("--above: %w", err)
		}
		if r.opts.Above.Generation == 0 || r.opts.Above.Epoch == 0 {
			return fmt.Errorf("--above is %v, and no such token was ever issued: want one like g7.e41", r.opts.Above)
		}
		if !cmd.Flags().Changed("reason") {
			r.opts.Reason = fmt.Sprintf("restored from a backup, above %v", r.opts.Above)
		}
		return r.start(cmd, args)
	}
	return cmd
}

func (r *raising) start(cmd *cobra.Command, args []string) error {
	if n := len(r.opts.Reason); n == 0 || n > catalog.MaxReason {
		return fmt.Errorf("%s needs --reason TEXT of 1 to %d bytes, and got %d: say why, for whoever reads the history", r.name, catalog.MaxReason, n)
	}
	return r.app.action(func(ctx context.Context) error { return r.app.withStore(ctx, r.run) })(cmd, args)
}

// A raised is the answer in JSON.
type raised struct {
	Store    string        `json:"store"`
	Token    fence.Token   `json:"token"`
	Claim    driver.ID     `json:"claim"`
	Reason   string        `json:"reason"`
	Previous *fence.Token  `json:"previous_token"` // null: it could not be read afterwards
	Fenced   *fence.Holder `json:"fenced"`         // who held it
}

func (r *raising) run(ctx context.Context, store driver.Store) error {
	cfg := r.app.config(r.app.timeout)
	cfg.ClaimTimeout = r.app.timeout
	cfg.Holder = fence.Holder{Name: fmt.Sprintf("fencepost %s by %s", r.name, r.app.who())}
	claim, err := catalog.Raise(ctx, store, cfg, r.opts)
	if err != nil {
		return err
	}
	answer := raised{Store: store.String(), Token: claim.Token, Claim: claim.ID, Reason: claim.Reason}
	if prior := r.priorOf(ctx, store, claim); prior != nil {
		answer.Previous, answer.Fenced = &prior.Token, &prior.Holder
	}
	return r.app.show(answer, answer.print)
}

// priorOf returns the claim over which another was made, or nil. The token was
// raised by now: that it can't be read is no failure.
func (r *raising) priorOf(ctx context.Context, store driver.Store, claim driver.Claim) (prior *driver.Claim) {
	_ = bounded(ctx, r.app.timeout, func(ctx context.Context) error {
		return store.Claims(ctx, 0, func(c driver.Claim) error {
			if c.ID == claim.PriorClaim {
				prior = &c
			}
			return nil
		})
	})
	return prior
}

func (r raised) print(w io.Writer) error {
	was, who := "unknown", "unknown"
	if r.Previous != nil {
		was, who = r.Previous.String(), holder(*r.Fenced)
	}
	return table(w, [][]string{
		{"store", r.Store}, {"token", r.Token.String()}, {"before", was}, {"fenced", who}, {"reason", cell(r.Reason)},
	})
}
