package sqlite_test

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	client "modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// An other driver is modernc's with no method but those that each driver of database/sql
// has, and with errors of another form.
type other struct {
	real sqldriver.Driver
	name string
	as   func(error) error
}

func (o other) Connect(context.Context) (sqldriver.Conn, error) {
	conn, err := o.real.Open(o.name)
	return otherConn{conn, o.as}, o.as(err)
}
func (o other) Driver() sqldriver.Driver { return o.real }

type otherConn struct {
	sqldriver.Conn
	as func(error) error
}

func (c otherConn) Prepare(query string) (sqldriver.Stmt, error) {
	stmt, err := c.Conn.Prepare(query)
	return otherStmt{stmt, c.as}, c.as(err)
}

func (c otherConn) Begin() (sqldriver.Tx, error) {
	tx, err := c.Conn.Begin() //nolint:staticcheck // what every driver has
	return tx, c.as(err)
}

type otherStmt struct {
	sqldriver.Stmt
	as func(error) error
}

func (s otherStmt) Exec(args []sqldriver.Value) (sqldriver.Result, error) {
	result, err := s.Stmt.Exec(args) //nolint:staticcheck // what every driver has
	return result, s.as(err)
}

func (s otherStmt) Query(args []sqldriver.Value) (sqldriver.Rows, error) {
	rows, err := s.Stmt.Query(args) //nolint:staticcheck // what every driver has
	return rows, s.as(err)
}

// Error has the fields of mattn's.
type Error struct {
	Code, ExtendedCode int
	text               string
}

func (e Error) Error() string { return e.text }

// byMethod has the methods of ncruces's.
type byMethod struct {
	code uint16
	text string
}

func (e *byMethod) Error() string        { return e.text }
func (e *byMethod) Code() uint8          { return uint8(e.code) }
func (e *byMethod) ExtendedCode() uint16 { return e.code }

// inForm returns the errors of SQLite in another library's form.
func inForm(form func(code int, text string) error) func(error) error {
	return func(err error) error {
		var own *client.Error
		if !errors.As(err, &own) {
			return err
		}
		return form(own.Code(), own.Error())
	}
}

func TestARegisterIsGuardedAndRaisedOverEveryDriver(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(code int, text string) error{
		"fields, as mattn's":    func(code int, text string) error { return Error{code & 0xff, code, text} },
		"methods, as ncruces's": func(code int, text string) error { return &byMethod{uint16(code), text} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			isGuardedAndRaisedOver(t, inForm(form))
		})
	}
}

func isGuardedAndRaisedOver(t *testing.T, as func(error) error) {
	path := appFile(t, "WAL")
	plain, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	db := sql.OpenDB(other{plain.Driver(), path + "?_txlock=deferred", as})
	t.Cleanup(func() { require.NoError(t, errors.Join(db.Close(), plain.Close())) })
	r, err := sqlite.NewRegister(t.Context(), db)
	require.NoError(t, err)
	guarded := func(held fence.Token) error {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		if err := sqlite.Guard(t.Context(), tx, held, sqlite.InRegister()); err != nil {
			return err
		}
		return tx.Commit()
	}
	require.ErrorIs(t, guarded(token(1, 1)), sqlite.ErrNoGuards)
	require.NoError(t, r.Prove(t.Context(), token(1, 1)))
	require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}))
	require.NoError(t, guarded(token(1, 1)))

	busy := appDB(t, path, "immediate")
	tx, err := busy.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.ErrorContains(t, guarded(token(1, 1)), "BEGIN IMMEDIATE", "the code of its error is known")
	require.NoError(t, r.Prove(t.Context(), token(2, 2)), "it would only have to wait")
	err = failsBy(t, "the file is locked by", raiseOf(r, token(2, 2)))
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	require.NoError(t, tx.Rollback())

	require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
	require.ErrorIs(t, guarded(token(1, 1)), fence.ErrFenced)
	require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Schemas: []string{"main"}}))
	gives(t)
	stale := token(1, 1)
	given.token.Store(&stale)
	guards, err := r.Guards(t.Context())
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "DELETE FROM "+guards.Tables[0].Name)
	require.NoError(t, err, "there is no row")
	_, err = db.ExecContext(t.Context(), "INSERT INTO "+guards.Tables[0].Name+" DEFAULT VALUES")
	require.ErrorIs(t, sqlite.Refusal(fmt.Errorf("wrapped: %w", err)), fence.ErrFenced)
	_, err = sqlite.Begin(t.Context(), db, token(2, 2), sqlite.InRegister())
	require.ErrorContains(t, err, fmt.Sprintf("%T", otherConn{}))
	require.ErrorContains(t, err, "guard it by sqlite.Guard")
	require.Equal(t, exitcodes.None, exitcodes.Of(err))
}
