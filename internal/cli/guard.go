package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func (a *app) guardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "guard",
		Short: "Guard tables, so that a stale process can't write to them",
		Long: `Guard has PostgreSQL itself refuse every transaction that writes to a table of
the application's and does not bear the catalog's newest token at its commit,
whoever writes and in whatever language.

A session gives its token by one setting: SET fencepost.token = 'g7.e41', or SET
LOCAL in each transaction, which works behind PgBouncer too. docs/guards.md says
which guard is for what, what each costs, and what it is not.

If the data are elsewhere than the catalog, that store has a token of its own, a
register, which --register names in place of --store:

  postgres://user@host:port/database?catalog=NAME
  sqlite:PATH                           the application's own file
  etcd://host:2379/prefix

or by its line in FENCEPOST_REGISTERS, such as 1, where a password may stand.`,
		Example: `  fencepost guard install --schema app
  fencepost guard status
  fencepost guard status --register sqlite:app.db`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command given after guard: want install, status, remove or raise")
		},
	}
	cmd.PersistentFlags().StringVar(&a.register, "register", "", "`URL` of a register, or its line in $FENCEPOST_REGISTERS")
	cmd.AddCommand(a.guardInstallCommand(), a.guardStatusCommand(), a.guardRemoveCommand(), a.guardRaiseCommand())
	return cmd
}

func (a *app) guardInstallCommand() *cobra.Command {
	var tables driver.GuardedTables
	cmd := &cobra.Command{
		Use:   "install [--table NAME]... [--schema NAME]...",
		Short: "Guard tables of the catalog's database",
		Long: `Install puts deferred constraint triggers on tables: a transaction that has
inserted, updated, deleted, copied or truncated fails at its commit without the
newest token. Partitions and children are guarded too, and partitions that come
later, but for TRUNCATE of such a partition alone. --schema covers the tables that
the schema has now; guard status lists those that come later.

The role in the URL needs the rights of the catalog's role ("fencepost schema
--role") and those of the tables' owner, which GRANT owner TO role gives. The roles
that write to the tables need no right in schema fencepost.

It may run again, also while the service runs: each table waits for the
transactions that write to it, and keeps new ones waiting for a second at most at a
time. From then on writers that give no token are refused: let them give it first.
It may come before the first claim, and then nobody can write until that.

Without --table and --schema it only prepares the database for guards, which a
database that an older build has made needs once.`,
		Example: `  fencepost guard install --table orders --table 'app."Order lines"'
  fencepost guard install --schema app`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error {
			return a.withGuards(ctx, func(ctx context.Context, g driver.TableGuarder) error { return g.InstallGuards(ctx, tables) })
		}),
	}
	tableFlags(cmd, &tables)
	return cmd
}

func (a *app) guardRemoveCommand() *cobra.Command {
	var tables driver.GuardedTables
	cmd := &cobra.Command{
		Use:     "remove --table NAME... | --schema NAME...",
		Short:   "Remove the guards of tables",
		Long:    `Remove drops the triggers of the tables that are named, with their partitions and children. Any session can write to them from then on.`,
		Example: `  fencepost guard remove --table orders`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(tables.Tables)+len(tables.Schemas) == 0 {
				return errors.New("nothing was named: want --table or --schema")
			}
			return a.action(func(ctx context.Context) error {
				return a.withGuards(ctx, func(ctx context.Context, g driver.TableGuarder) error { return g.RemoveGuards(ctx, tables) })
			})(cmd, args)
		},
	}
	tableFlags(cmd, &tables)
	return cmd
}

func tableFlags(cmd *cobra.Command, tables *driver.GuardedTables) {
	cmd.Flags().StringArrayVar(&tables.Tables, "table", nil, "`NAME` of a table as in SQL; may be given again")
	cmd.Flags().StringArrayVar(&tables.Schemas, "schema", nil, "`NAME` of a schema, for all its tables; may be given again")
}

func (a *app) guardStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show which tables are guarded, and who was refused",
		Long: `Status lists the guarded tables with what each lets pass, the unguarded tables
beside them, how many transactions were refused since the catalog's first claim,
and the processes of the service that were told so. It writes nothing.

It ends with 1 if a guarded table lets something pass.`,
		Example: `  fencepost guard status
  fencepost guard status --json | jq .unguarded`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error {
			return a.withGuards(ctx, func(context.Context, driver.TableGuarder) error { return nil })
		}),
	}
}

// guards is the answer in JSON.
type guards struct {
	Store string      `json:"store"`
	Token fence.Token `json:"token"`
	driver.Guards
	Refusals []catalog.Refusal `json:"refusals"`
}

// withGuards calls fn and then shows the guards.
func (a *app) withGuards(ctx context.Context, fn func(context.Context, driver.TableGuarder) error) error {
	if a.register != "" {
		return a.withRegisterGuards(ctx, fn)
	}
	return a.withStore(ctx, func(ctx context.Context, store driver.Store) error {
		g, ok := driver.As[driver.TableGuarder](store)
		if !ok {
			return errNoTables
		}
		shown := guards{Store: store.String()}
		err := bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
			if err = fn(ctx, g); err != nil {
				return err
			}
			if shown.Guards, err = g.Guards(ctx); err != nil {
				return err
			}
			board := catalog.NewBoard(store, a.config(a.timeout))
			head, err := board.Head(ctx)
			if err != nil {
				return err
			}
			shown.Token = head.Claim.Token
			shown.Refusals, err = catalog.Refusals(ctx, board)
			return err
		})
		if err != nil {
			return err
		}
		if err := a.show(shown, shown.print); err != nil {
			return err
		}
		return shown.problem()
	})
}

var errNoTables = exitcodes.WithCode(errors.New("only PostgreSQL, and SQLite in a register's file, guard tables by themselves: on other stores the writers do, see docs/guards.md"), exitcodes.Usage)

// tokenCell is a token, or what stands for none.
func tokenCell(t fence.Token) string {
	if t.IsZero() {
		return "none"
	}
	return t.String()
}

// problem is what lets a stale write pass.
func (g guards) problem() error { return gaps(g.Tables) }

func gaps(tables []driver.GuardedTable) error {
	var open []string
	for _, t := range tables {
		if t.Problem != "" {
			open = append(open, t.Name)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return exitcodes.WithCode(fmt.Errorf("guards have gaps: %s", strings.Join(open, ", ")), exitcodes.Failure)
}

func (g guards) print(w io.Writer) error {
	if err := printGuards(w, [][]string{{"store", g.Store}, {"token", tokenCell(g.Token)}}, g.Guards); err != nil {
		return err
	}
	if len(g.Refusals) == 0 {
		return nil
	}
	rows := [][]string{{"", "", "", ""}, {"REFUSED", "PROCESS", "TOKEN", "GUARD"}}
	for _, r := range g.Refusals {
		rows = append(rows, []string{when(r.At, time.Now()), holder(r.By), tokenCell(r.Held), cell(r.Guard)})
	}
	return table(w, rows)
}

// printGuards prints rows, and behind them what is guarded.
func printGuards(w io.Writer, rows [][]string, g driver.Guards) error {
	if g.Installed {
		rows = append(rows, []string{"guards", fmt.Sprintf("installed; guarded tables: %d", len(g.Tables))})
		if g.Refused != driver.NotCounted {
			rows = append(rows, []string{"refused", fmt.Sprintf("%d since the first claim", g.Refused)})
		}
	} else {
		rows = append(rows, []string{"guards", "none: run fencepost guard install"})
	}
	for _, name := range g.Unguarded {
		rows = append(rows, []string{"not guarded", cell(name)})
	}
	if err := table(w, rows); err != nil || len(g.Tables) == 0 {
		return err
	}
	rows = [][]string{{"", "", "", ""}, {"TABLE", "OWNER", "ORIGIN", "PROBLEM"}}
	for _, t := range g.Tables {
		rows = append(rows, []string{cell(t.Name), cell(t.Owner), cell(t.Installed), cell(t.Problem)})
	}
	return table(w, rows)
}
