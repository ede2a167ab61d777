package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

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
holder hears "fenced by epoch" and ends with 166, and its supervisor starts it
again. The board says that nobody holds the raised token, so that a process of
the same generation, a ready standby or the one that was started again, claims at
once.

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

func (r *raising) start(cmd *cobra.Command, args []string) error {
	if err := r.checkReason(); err != nil {
		return err
	}
	return r.app.action(func(ctx context.Context) error { return r.app.withStore(ctx, r.run) })(cmd, args)
}

func (r *raising) checkReason() error {
	if n := len(r.opts.Reason); n == 0 || n > catalog.MaxReason || !utf8.ValidString(r.opts.Reason) {
		return fmt.Errorf("%s needs --reason TEXT of 1 to %d bytes of UTF-8, and got %d: say why, for whoever reads the history", r.name, catalog.MaxReason, n)
	}
	return nil
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
		history, err := catalog.History(ctx, store)
		if i := slices.IndexFunc(history, func(c driver.Claim) bool { return c.ID == claim.PriorClaim }); i >= 0 {
			prior = &history[i]
		}
		return err
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
