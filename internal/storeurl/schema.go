package storeurl

import (
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
)

// Schema returns the statements that prepare a store of a kind, such as
// "postgres", for a role that has the least rights and one that only writes; see
// postgres.Schema. The
// kinds that need no preparation are refused, with the reason.
func Schema(kind, role, writer string) (string, error) {
	switch kind {
	case "postgres", "postgresql":
		return postgres.Schema(role, writer), nil
	case "sqlite":
		return "", exitcodes.WithCode(errors.New("sqlite needs no schema: the first claim creates the file"), exitcodes.Usage)
	case "etcd":
		return "", exitcodes.WithCode(errors.New("etcd needs no schema: give a role read and write on the prefix"), exitcodes.Usage)
	default:
		return "", exitcodes.WithCode(fmt.Errorf("schema: want --store postgres, and not %q", kind), exitcodes.Usage)
	}
}
