package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// onlyLoss stands for the loss that stands, if there is one.
const onlyLoss = "the one that stands"

func (a *app) restoredCommand() *cobra.Command {
	r := raising{app: a, name: "restored"}
	var above, dismiss string
	cmd := &cobra.Command{
		Use:   "restored --above TOKEN | --dismiss[=LOSS]",
		Short: "Go on from a catalog that was restored, or that has lost commits",
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
  - fencepost guard status --register URL, for each register of the service
In doubt take a higher epoch, and the last generation that was handed out: a
number that is skipped costs nothing.

It fails with status 78 if the catalog bears that token already, or a higher
one: then it is not the backup alone. On SQLite that is so if the backup was
copied beside the -wal of the lost catalog: remove the -wal and -shm and copy it
again. After this command it is so too: asked for once more, it says by whom
the token was raised. A SQLite file is checked page by page.

A store that was found to have lost acknowledged commits, such as behind an
asynchronous fail-over, says so in fencepost status, and every claim ends with 78
meanwhile. Compare it with its replicas and backups. Then restored goes on from
what is left: it lifts the token above the lost ones and ends the loss in the same
commit. --above may be left out there: the highest token is in the record. With
--dismiss nothing is lifted: it records that nothing was lost. It takes the loss
that status shows, or the one that is named, and fails with 166 if that has
changed meanwhile. Either way the loss stays in fencepost history.

Stop every process of the service first. Afterwards deploy under a generation
above that of TOKEN. The numbers that were handed out since the backup are
forgotten with it: see docs/rollback.md.`,
		Example: `  fencepost restored --above g7.e41
  fencepost restored --above g7.e41 --reason 'disk of db1 lost, backup of 03:00' --json
  fencepost restored
  fencepost restored --dismiss`,
		Args: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("dismiss") {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.MaximumNArgs(1)(cmd, args) // --dismiss LOSS
		},
	}
	cmd.Flags().StringVar(&above, "above", "", "the highest `TOKEN` that was ever issued, such as g7.e41; default is that of the loss that was found")
	cmd.Flags().StringVar(&dismiss, "dismiss", "", "record that `LOSS` was none, and lift no token; default is the one that stands")
	cmd.Flags().Lookup("dismiss").NoOptDefVal = onlyLoss
	cmd.Flags().StringVar(&r.opts.Reason, "reason", "", "why, for the history; default names the token")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if cmd.Flags().Changed("dismiss") {
			if len(args) == 1 {
				dismiss = args[0]
			}
			return a.dismissal(cmd, above, dismiss)
		}
		if above == "" {
			return r.startBy(cmd, args)
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

// startBy raises the token above what the record of losses says.
func (r *raising) startBy(cmd *cobra.Command, args []string) error {
	named := cmd.Flags().Changed("reason")
	if named {
		if err := r.checkReason(); err != nil {
			return err
		}
	}
	return r.app.action(func(ctx context.Context) error {
		return r.app.withStore(ctx, func(ctx context.Context, store driver.Store) error {
			losses, err := r.app.losses(ctx, store)
			if err != nil {
				return err
			}
			for _, l := range losses {
				if l.Open() && l.Token.Compare(r.opts.Above) > 0 {
					r.opts.Above = l.Token
				}
			}
			if r.opts.Above.IsZero() {
				r.app.name = "" // the command line lacks something, whatever the store
				return exitcodes.WithCode(errors.New("restored needs --above TOKEN, the highest token that was ever issued: no loss is recorded in "+store.String()+", which would say it"), exitcodes.Usage)
			}
			if !named {
				r.opts.Reason = fmt.Sprintf("commits were lost, above %v", r.opts.Above)
			}
			return r.run(ctx, store)
		})
	})(cmd, args)
}

// losses reads the record of losses.
func (a *app) losses(ctx context.Context, store driver.Store) (losses []catalog.Loss, err error) {
	err = bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		losses, err = catalog.Losses(ctx, store)
		return err
	})
	return losses, err
}

// dismissal is restored --dismiss.
func (a *app) dismissal(cmd *cobra.Command, above, loss string) error {
	if above != "" {
		return errors.New("--above says that commits were lost, and --dismiss that none were: want one of them")
	}
	var id driver.ID
	if loss != onlyLoss {
		if err := id.UnmarshalText([]byte(loss)); err != nil {
			return fmt.Errorf("--dismiss: %w", err)
		}
	}
	return a.action(func(ctx context.Context) error {
		return a.withStore(ctx, func(ctx context.Context, store driver.Store) error { return a.dismiss(ctx, store, id) })
	})(cmd, nil)
}

// dismiss ends the loss of an id, or the only one that is open.
func (a *app) dismiss(ctx context.Context, store driver.Store, id driver.ID) error {
	losses, err := a.losses(ctx, store)
	if err != nil {
		return err
	}
	var open []catalog.Loss
	for _, l := range losses {
		if l.Open() && (id.IsZero() || l.ID == id) {
			open = append(open, l)
		}
	}
	switch {
	case len(open) == 0 && id.IsZero():
		return fmt.Errorf("no loss is open in %s: there is nothing to dismiss", store)
	case len(open) == 0:
		return fmt.Errorf("no loss %v is open in %s: see fencepost status", id, store)
	case len(open) > 1:
		return fmt.Errorf("%d losses are open in %s: name one, by --dismiss=LOSS: see fencepost status", len(open), store)
	}
	by := "fencepost restored --dismiss by " + a.who()
	if err := catalog.DismissLoss(ctx, store, a.config(a.timeout), open[0], by); err != nil {
		return err
	}
	d := dismissed{Store: store.String(), Loss: open[0].ID, How: catalog.LossDismissed, By: by}
	return a.show(d, d.print)
}

// A dismissed is the answer in JSON.
type dismissed struct {
	Store string    `json:"store"`
	Loss  driver.ID `json:"loss"`
	How   string    `json:"how"`
	By    string    `json:"by"`
}

func (d dismissed) print(w io.Writer) error {
	return table(w, [][]string{{"store", d.Store}, {"loss", d.Loss.String()}, {"ended", d.How}, {"by", cell(d.By)}})
}
