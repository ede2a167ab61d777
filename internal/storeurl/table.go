package storeurl

import (
	"errors"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
)

// Tables returns what every driver knows about errors.
func Tables() []driver.Table {
	return []driver.Table{postgres.Errors(), etcd.Errors(), sqlite.Errors()}
}

// Table returns what the driver of a kind, such as "postgres", knows about
// errors. A URL stands for the kind of its scheme; nothing else of it is read.
func Table(kind string) (driver.Table, error) {
	kind, _, _ = strings.Cut(kind, ":")
	switch kind {
	case "postgresql":
		kind = "postgres"
	case "etcds":
		kind = "etcd"
	}
	for _, table := range Tables() {
		if table.Store == kind {
			return table, nil
		}
	}
	return driver.Table{}, exitcodes.WithCode(errors.New("no such kind of store: want --store postgres, etcd or sqlite"), exitcodes.Usage)
}
