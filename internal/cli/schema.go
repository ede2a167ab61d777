package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/work/pgwork"
)

func (a *app) schemaCommand() *cobra.Command {
	var role, writer string
	var enqueuers []string
	cmd := &cobra.Command{
		Use:   "schema --store postgres [--role NAME] [--writer NAME] [--enqueuer ROLE]...",
		Short: "Print the SQL that prepares a database, for a DBA",
		Long: `Schema prints what the first claim would run in a database. A DBA who keeps the
right to create schemas runs it once; the role then gets the least rights that
a catalog needs, and must exist. A writer is a role that guards transactions of
its own by the catalog's token; to write to tables that the database guards, a
role needs no rights here. An enqueuer is a role, such as a web server's, that may
enqueue jobs inside its own transactions and do nothing else: the functions for
that are installed too. It asks no server, and writes nothing.`,
		Example: `  fencepost schema --store postgres
  fencepost schema --store postgres --role app --enqueuer web | psql -d appdb`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRoles(enqueuers); err != nil {
				return err
			}
			return a.action(func(context.Context) error { return a.schema(role, writer, enqueuers) })(cmd, args)
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "`NAME` of the role that gets the least rights")
	cmd.Flags().StringVar(&writer, "writer", "", "`NAME` of a role that may guard transactions")
	enqueuerFlag(cmd, &enqueuers)
	return cmd
}

// preparation is the answer in JSON.
type preparation struct {
	Store     string   `json:"store"`
	Role      string   `json:"role"`
	Writer    string   `json:"writer"`
	Enqueuers []string `json:"enqueuers"`
	SQL       string   `json:"sql"`
}

func (a *app) schema(role, writer string, enqueuers []string) error {
	sql, err := storeurl.Schema(a.store, role, writer)
	if err != nil {
		return err
	}
	if len(enqueuers) > 0 {
		sql += pgwork.Schema(enqueuers...)
	}
	return a.show(preparation{Store: a.store, Role: role, Writer: writer, Enqueuers: append([]string{}, enqueuers...), SQL: sql}, func(w io.Writer) error {
		_, err := io.WriteString(w, sql)
		return err
	})
}
