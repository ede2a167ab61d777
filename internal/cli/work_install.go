package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/work/pgwork"
)

func (a *app) workInstallCommand() *cobra.Command {
	var enqueuers []string
	cmd := &cobra.Command{
		Use:   "install [--enqueuer ROLE]...",
		Short: "Let web servers enqueue inside their own transactions, on PostgreSQL",
		Long: `Install creates the functions fencepost.enqueue and fencepost.wake in the catalog's
database, which clients in any language call (docs/work.md), and lets roles call
them. A role needs

  usage on schema fencepost, and execute on the two functions,

and no other right: it can put requests for jobs into the inbox of every catalog of
the database, and neither read a catalog nor write anything else of it. The functions
run with the rights of the role that installs them.

The role in the URL must own schema fencepost. The schema must be there: the first
claim makes it, or "fencepost schema --enqueuer ROLE", which prints all of this for a
DBA. Install may run again, also while the service runs.`,
		Example: `  fencepost work install --enqueuer web
  fencepost work install --enqueuer web --enqueuer cron`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRoles(enqueuers); err != nil {
				return err
			}
			return a.action(func(ctx context.Context) error { return a.workInstall(ctx, enqueuers) })(cmd, args)
		},
	}
	enqueuerFlag(cmd, &enqueuers)
	return cmd
}

func enqueuerFlag(cmd *cobra.Command, roles *[]string) {
	cmd.Flags().StringArrayVar(roles, "enqueuer", nil, "`ROLE` that may enqueue jobs; may be given again")
}

// checkRoles refuses a name that no role has.
func checkRoles(roles []string) error {
	if slices.Contains(roles, "") {
		return errors.New("--enqueuer is empty, want the name of a role")
	}
	return nil
}

// workInstalled is the answer in JSON.
type workInstalled struct {
	Store     string   `json:"store"`
	Enqueuers []string `json:"enqueuers"` // those that were named
}

func (a *app) workInstall(ctx context.Context, enqueuers []string) error {
	return a.withStore(ctx, func(ctx context.Context, store driver.Store) error {
		err := bounded(ctx, a.timeout, func(ctx context.Context) error { return pgwork.InstallOn(ctx, store, enqueuers...) })
		if errors.Is(err, pgwork.ErrElsewhere) {
			return exitcodes.WithCode(err, exitcodes.Usage)
		}
		if err != nil {
			return err
		}
		return a.show(workInstalled{Store: store.String(), Enqueuers: append([]string{}, enqueuers...)}, func(w io.Writer) error {
			who := "no other role was named: --enqueuer ROLE lets one call them"
			if len(enqueuers) > 0 {
				who = "these may call them: " + strings.Join(enqueuers, ", ")
			}
			_, err := fmt.Fprintf(w, "store %s\nfencepost.enqueue and fencepost.wake are installed; %s\n", store, cell(who))
			return err
		})
	})
}
