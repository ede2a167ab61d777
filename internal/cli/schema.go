package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/internal/storeurl"
)

func (a *app) schemaCommand() *cobra.Command {
	var role, writer string
	cmd := &cobra.Command{
		Use:   "schema --store postgres [--role NAME] [--writer NAME]",
		Short: "Print the SQL that prepares a database, for a DBA",
		Long: `Schema prints what the first claim would run in a database. A DBA who keeps the
right to create schemas runs it once; the role then gets the least rights that
a catalog needs, and must exist. A writer is a role that guards transactions of
its own by the catalog's token; to write to tables that the database guards, a
role needs no rights here. It asks no server, and writes nothing.`,
		Example: `  fencepost schema --store postgres
  fencepost schema --store postgres --role app | psql -d appdb`,
		Args: cobra.NoArgs,
		RunE: a.action(func(context.Context) error { return a.schema(role, writer) }),
	}
	cmd.Flags().StringVar(&role, "role", "", "`NAME` of the role that gets the least rights")
	cmd.Flags().StringVar(&writer, "writer", "", "`NAME` of a role that may guard transactions")
	return cmd
}

// preparation is the answer in JSON.
type preparation struct {
	Store  string `json:"store"`
	Role   string `json:"role"`
	Writer string `json:"writer"`
	SQL    string `json:"sql"`
}

func (a *app) schema(role, writer string) error {
	sql, err := storeurl.Schema(a.store, role, writer)
	if err != nil {
		return err
	}
	return a.show(preparation{Store: a.store, Role: role, Writer: writer, SQL: sql}, func(w io.Writer) error {
		_, err := io.WriteString(w, sql)
		return err
	})
}
