package driver

import (
	"context"

	"github.com/fencepost/fencepost/fence"
)

// A TableGuarder is a Store that can guard tables of the application's in its own
// database: a transaction that writes to one fails at its commit unless its session
// has given the catalog's newest token.
type TableGuarder interface {
	// InstallGuards guards tables, and installs in the database what that needs. It
	// may be called again. A table waits for the transactions that write to it, and
	// keeps new ones waiting for a second at most at a time. After an error some of the
	// tables may be guarded.
	InstallGuards(ctx context.Context, tables GuardedTables) error

	// RemoveGuards removes the guards of tables, and nothing else.
	RemoveGuards(ctx context.Context, tables GuardedTables) error

	// Guards returns what is guarded by this catalog. It writes nothing.
	Guards(ctx context.Context) (Guards, error)
}

// GuardedTables names tables as SQL does, such as orders or app."Order lines".
type GuardedTables struct {
	Tables  []string
	Schemas []string // all tables that they have now
}

// NotCounted stands for a number of refusals that the store can't count.
const NotCounted = -1

// Guards is what one catalog guards in its database.
type Guards struct {
	Installed bool           `json:"installed"` // what guards need is there
	Refused   int64          `json:"refused"`   // transactions, since the catalog's first claim; a few may be missing after a crash; or NotCounted
	Tables    []GuardedTable `json:"tables"`

	// Unguarded are the tables in the schemas of guarded ones that any session can
	// write to.
	Unguarded []string `json:"unguarded"`
}

// A GuardedTable is one that has a guard.
type GuardedTable struct {
	Name      string `json:"name"`
	Owner     string `json:"owner"`
	Installed string `json:"installed"`         // by which role, and when; empty if unknown
	Problem   string `json:"problem,omitempty"` // what it lets pass, and the remedy
}

// A RegisterState is what a fence.Register of a driver's holds.
type RegisterState struct {
	Token   fence.Token  `json:"token"`             // zero if it was never raised
	Holder  fence.Holder `json:"holder"`            // for people
	Problem string       `json:"problem,omitempty"` // why its guards refuse that token, too
}
