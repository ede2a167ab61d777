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
	"github.com/fencepost/fencepost/internal/storeurl"
)

func (a *app) guardRaiseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "raise --register URL",
		Short: "Raise a register to the catalog's newest token",
		Long: `Raise has a register refuse every token below the newest one of the catalog, which
it reads from the store. A register that is not there yet is made.

A holder raises its registers before its work begins, and not again. So run this
behind a restore of a register's store: until then whoever held the backup's token
can write there. Stop the service's writers before you restore.

A register never falls, and no command lowers one. If it holds a higher token than
the catalog, raise fails with 1, and no process of that catalog can serve: the
catalog was restored from a backup or has lost claims, and fencepost restored --above
lifts it above the register's token; or the register is another service's.`,
		Example: `  fencepost guard raise --register sqlite:app.db
  fencepost guard status --register sqlite:app.db`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.register == "" {
				return errors.New("nothing was named: want --register")
			}
			return a.action(a.raiseRegister)(cmd, args)
		},
	}
}

// withRegister calls fn with the register that --register names, and closes it.
func (a *app) withRegister(ctx context.Context, fn func(context.Context, storeurl.Register) error) (err error) {
	r, err := storeurl.OpenRegisterArgument(ctx, a.register, storeurl.Config{Getenv: a.env.Getenv})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	a.name = r.String()
	return fn(ctx, r)
}

// A registerGuards is the answer in JSON.
type registerGuards struct {
	Register string       `json:"register"`
	Token    fence.Token  `json:"token"`   // zero if it was never raised
	Holder   fence.Holder `json:"holder"`  // who raised it
	Catalog  *fence.Token `json:"catalog"` // the newest of the catalog; null if no store was named
	Store    string       `json:"store"`   // of the catalog
	*driver.Guards
	Problem string `json:"problem,omitempty"`
}

// withRegisterGuards calls fn and then shows the register.
func (a *app) withRegisterGuards(ctx context.Context, fn func(context.Context, driver.TableGuarder) error) error {
	return a.withRegister(ctx, func(ctx context.Context, r storeurl.Register) error {
		shown := registerGuards{Register: r.String()}
		err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
			g, ok := r.(driver.TableGuarder)
			if !ok {
				g = noTables{}
			}
			if err := fn(ctx, g); err != nil {
				return err
			}
			if ok {
				guards, err := g.Guards(ctx)
				if err != nil {
					return err
				}
				shown.Guards = &guards
			}
			return shown.read(ctx, r)
		})
		if err == nil {
			err = a.compareCatalog(ctx, &shown)
		}
		if err != nil {
			return err
		}
		if err := a.show(shown, shown.print); err != nil {
			return err
		}
		return shown.problem()
	})
}

// noTables guards the tables of no store.
type noTables struct{ driver.TableGuarder }

func (noTables) InstallGuards(context.Context, driver.GuardedTables) error { return errNoTables }
func (noTables) RemoveGuards(context.Context, driver.GuardedTables) error  { return errNoTables }

func (g *registerGuards) read(ctx context.Context, r storeurl.Register) error {
	state, err := r.State(ctx)
	g.Token, g.Holder, g.Problem = state.Token, state.Holder, state.Problem
	return err
}

// compareCatalog reads the newest token of the catalog, if a store is named.
func (a *app) compareCatalog(ctx context.Context, g *registerGuards) error {
	head, store, err := a.headOfCatalog(ctx)
	if errors.Is(err, storeurl.ErrMissing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the catalog, with whose token %s is compared: %w", g.Register, err)
	}
	g.Catalog, g.Store = &head.Claim.Token, store
	order := g.Token.Compare(head.Claim.Token)
	switch {
	case g.Problem != "":
	case order < 0:
		g.Problem = fmt.Sprintf("the register holds %s and the catalog has issued %v: its holder has not raised it, or it was restored from a backup: run fencepost guard raise",
			tokenCell(g.Token), head.Claim.Token)
	case order > 0:
		g.Problem = aboveCatalog(g.Token, head.Claim.Token).Error()
	}
	return nil
}

func aboveCatalog(register, newest fence.Token) error {
	return fmt.Errorf("the register holds %v and the catalog has issued no more than %s, so that no process of the catalog can serve: if the catalog was restored from a backup, or has lost claims, "+
		"stop the service and run fencepost restored --above %[1]v; if the register is another service's, correct the URL", register, tokenCell(newest))
}

// headOfCatalog reads the head of the catalog in the store.
func (a *app) headOfCatalog(ctx context.Context) (head driver.Head, name string, err error) {
	register := a.name
	err = a.withStore(ctx, func(ctx context.Context, store driver.Store) error {
		name = store.String()
		return bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
			head, err = catalog.NewBoard(store, a.config(a.timeout)).Head(ctx)
			return err
		})
	})
	if err == nil {
		a.name = register
	}
	return head, name, err
}

// raiseRegister raises the register to the catalog's newest token. It reads that itself:
// a token from anywhere else could lock the service out.
func (a *app) raiseRegister(ctx context.Context) error {
	return a.withRegister(ctx, func(ctx context.Context, r storeurl.Register) error {
		head, store, err := a.headOfCatalog(ctx)
		if err != nil {
			return err
		}
		newest := head.Claim.Token
		if newest.IsZero() {
			return exitcodes.WithCode(fmt.Errorf("nobody has claimed %s yet: its first holder raises the register", store), exitcodes.Failure)
		}
		shown := registerGuards{Register: r.String(), Catalog: &newest, Store: store}
		err = bounded(ctx, a.timeout, func(ctx context.Context) error {
			if err := r.Raise(ctx, newest, head.Claim.Holder); err != nil {
				return err
			}
			return shown.read(ctx, r)
		})
		var above *fence.Error
		if errors.As(err, &above) {
			return exitcodes.WithCode(aboveCatalog(above.Current, newest), exitcodes.Failure)
		}
		if err != nil {
			return err
		}
		return a.show(shown, shown.print)
	})
}

// problem is what lets a stale write pass, or keeps every holder from serving.
func (g registerGuards) problem() error {
	if g.Problem != "" {
		return exitcodes.WithCode(errors.New(g.Problem), exitcodes.Failure)
	}
	if g.Guards != nil {
		return gaps(g.Tables)
	}
	return nil
}

func (g registerGuards) print(w io.Writer) error {
	rows := [][]string{{"register", g.Register}, {"token", tokenCell(g.Token)}}
	if !g.Token.IsZero() {
		rows = append(rows, []string{"raised by", cell(g.Holder.String())})
	}
	if g.Catalog != nil {
		rows = append(rows, []string{"catalog", g.Store}, []string{"its newest", tokenCell(*g.Catalog)})
	}
	if g.Guards != nil {
		return printGuards(w, rows, *g.Guards)
	}
	return table(w, rows)
}
