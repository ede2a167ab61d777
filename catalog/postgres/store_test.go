package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	drivertest.RunStore(t, catalogsOf(testpg.URL(t)))
}

func TestStoreKeepsTheContractWhereTheDatabaseIsSerializable(t *testing.T) {
	t.Parallel()
	drivertest.RunStore(t, catalogsOf(serializable(t)), drivertest.Part(1, 3))
}

// serializable returns a database whose transactions have that isolation, unless
// they ask for another one, as those of the driver's own connections do.
func serializable(t *testing.T) string {
	t.Helper()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, `do $$ begin
		execute format('alter database %I set default_transaction_isolation = serializable', current_database()); end $$`)
	return dsn
}

// serializableByDSN returns one whose driver asks for that isolation.
func serializableByDSN(t *testing.T) string {
	return withParam(t, testpg.URL(t), "default_transaction_isolation", "serializable")
}

func TestWhereTheSessionIsSerializableTheSlowerWriterConflicts(t *testing.T) {
	t.Parallel()
	dsn := serializableByDSN(t)
	s := open(t, dsn)
	head := claim(t, s)
	note := driver.Note{Key: "k", Value: []byte("v")}
	var err error
	note.Version, err = s.Post(within(t, soon), note)
	require.NoError(t, err)
	for table, write := range map[string]func() error{
		"head":  func() error { return s.Append(within(t, soon), head, next(head)) },
		"board": func() error { _, err := s.Post(within(t, soon), note); return err },
	} {
		faster := testpg.Connect(t, dsn)
		_, err := faster.Exec(t.Context(), "begin; update fencepost."+table+" set catalog = catalog")
		require.NoError(t, err)
		slower := make(chan error, 1)
		go func() { slower <- write() }()
		waiting(t, dsn)
		_, err = faster.Exec(t.Context(), "commit")
		require.NoError(t, err)
		err = <-slower
		require.ErrorIs(t, err, driver.ErrConflict, table)
		fails(t, err, exitcodes.None, driver.NotApplied)
	}
}

func TestTheProtocolHolds(t *testing.T) {
	t.Parallel()
	drivertest.RunProtocol(t, catalogsOf(testpg.URL(t)))
}
