package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func (a *app) generationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "generation",
		Short: "Hand out the numbers of releases",
		Example: `  fencepost generation next
  FENCEPOST_GENERATION=$(fencepost generation next) ./server`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command given after generation: want next or reserve")
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "next",
		Short: "Hand out a number that no release ever had",
		Long: `Next hands out a generation above every one that was handed out or that has
claimed. A number is never handed out again, whether its release is deployed or
cancelled; where the answer is lost, a number is lost and nothing else.`,
		Example: `  fencepost generation next
  fencepost generation next --json | jq .generation`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error { return a.withStore(ctx, a.next) }),
	}, a.reserveCommand())
	return cmd
}

func (a *app) reserveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reserve N",
		Short: "Hand out the number N, for a pipeline that has numbers of its own",
		Long: `Reserve hands out N, and with it every lower number: next goes on above it, and
fencepost promote takes it without --force, also before a process of it has been
ready. To reserve a number again changes nothing. A process that is started under
a number of its own reserves it by itself before it is ready.

It fails with status 1 if a higher generation leads or N was aborted, and if N is
so high that hardly a release could follow.`,
		Example: `  fencepost generation reserve 20261130
  fencepost generation reserve "$BUILD_NUMBER" && fencepost promote --generation "$BUILD_NUMBER"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := generation.Parse(args[0])
			if err != nil {
				return err
			}
			return a.action(func(ctx context.Context) error {
				return a.withStore(ctx, func(ctx context.Context, store driver.Store) error { return a.reserve(ctx, store, g) })
			})(cmd, nil)
		},
	}
}

func (a *app) reserve(ctx context.Context, store driver.Store, g generation.Generation) error {
	err := bounded(ctx, a.timeout, func(ctx context.Context) error {
		return leader.Reserve(ctx, store, a.config(a.timeout), g)
	})
	if err != nil {
		return fmt.Errorf("generation %v is not reserved: %w", g, advised(err))
	}
	return a.show(next{Store: store.String(), Generation: g}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "generation %v is reserved in %s\n", g, store)
		return err
	})
}

// next is the answer in JSON.
type next struct {
	Store      string                `json:"store"`
	Generation generation.Generation `json:"generation"`
}

func (a *app) next(ctx context.Context, store driver.Store) error {
	n := next{Store: store.String()}
	err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		n.Generation, err = catalog.NewBoard(store, a.config(a.timeout)).NextGeneration(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return a.show(n, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, n.Generation)
		return err
	})
}
