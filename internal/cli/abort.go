package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func (a *app) abortCommand() *cobra.Command {
	var number string
	var opts leader.AbortOptions
	cmd := &cobra.Command{
		Use:   "abort --generation N",
		Short: "Give generation N up before it leads, for good",
		Long: `Abort takes a promotion back and gives its generation up: no process of it will
ever lead, and nobody can promote it again. The next release gets a new number.
A generation that was never promoted can be given up as well. Its number is never
handed out.

Of an abort and the claim of the generation exactly one wins. Abort fails with
status 1, and changes nothing, if the generation leads or led: then deploy a
higher one (docs/rollback.md).`,
		Example: `  fencepost abort --generation 9 --reason 'fails its smoke test'
  fencepost abort --generation 300 --json   # a slip of the finger`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&number, "generation", "", "`N`, the generation to give up (required)")
	whoAndWhy(cmd, &opts.By, &opts.Reason)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		g, err := parseGeneration("abort", number)
		if err != nil {
			return err
		}
		if err := a.checkWhoAndWhy(&opts.By, opts.Reason); err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error {
			return a.withStore(ctx, func(ctx context.Context, store driver.Store) error { return a.abort(ctx, store, g, opts) })
		})(cmd, args)
	}
	return cmd
}

// An aborted is the answer in JSON.
type aborted struct {
	Store      string                  `json:"store"`
	Generation generation.Generation   `json:"generation"`
	Aborted    []generation.Generation `json:"aborted"` // all that are given up and not below the one that leads
}

func (a *app) abort(ctx context.Context, store driver.Store, g generation.Generation, opts leader.AbortOptions) error {
	var intent leader.Intent
	err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		intent, err = leader.Abort(ctx, store, a.config(a.timeout), g, opts)
		return err
	})
	var late *leader.TooLateError
	switch {
	case errors.As(err, &late):
		return fmt.Errorf("%w, of %s: %s", err, holder(late.Holding.Holder), goHigher)
	case errors.Is(err, generation.ErrNoRoom):
		return fmt.Errorf("generation %v is not given up: %w", g, err)
	case exitcodes.Of(err) == exitcodes.Retry:
		return fmt.Errorf("generation %v is not given up, as far as is known: %w: say it again", g, err)
	case err != nil:
		return fmt.Errorf("generation %v is not given up, as far as is known: %w", g, err)
	}
	answer := aborted{Store: store.String(), Generation: g, Aborted: slices.Sorted(slices.Values(intent.Aborted))}
	return a.show(answer, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "generation %v is given up in %s: it will never lead, and can't be promoted\n", g, answer.Store)
		return err
	})
}
