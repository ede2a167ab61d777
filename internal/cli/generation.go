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
)

func (a *app) generationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "generation",
		Short: "Hand out the numbers of releases",
		Example: `  fencepost generation next
  FENCEPOST_GENERATION=$(fencepost generation next) ./server`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command given after generation: want next")
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
	})
	return cmd
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
