package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
)

// errHidden means that a row which is not found may be there all the same.
var errHidden = errors.New("row level security hides rows of schema fencepost from this role")

// hiddenSQL is true if row level security applies to this role on one of the
// tables. PostgreSQL then shows fewer rows, or none, without an error, unless the
// session has row_security off, which is not up to this driver behind a pooler.
const hiddenSQL = `exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
	where n.nspname = 'fencepost' and c.relkind = 'r' and pg_catalog.row_security_active(c.oid))`

// orHidden returns errHidden in place of an error about a row that is missing, if
// it may only be hidden.
func (s *Store) orHidden(ctx context.Context, q querier, err error) error {
	if !errors.Is(err, driver.ErrCorrupt) {
		return err
	}
	var hidden bool
	if failed := q.QueryRow(ctx, `select `+hiddenSQL, s.args()...).Scan(&hidden); failed != nil || !hidden {
		return err
	}
	return fmt.Errorf("%w, such as this: %s", errHidden, err.Error())
}
