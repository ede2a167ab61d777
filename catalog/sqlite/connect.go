package sqlite

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"

	"modernc.org/sqlite"
)

// A connector opens connections that leave the WAL's file where it is when the
// last of them is closed, by an error or at a clean end. Until the first claim is
// in the database file, the presence of a WAL means something: see whole.go. And
// a user who may only read could not make the files that a reader needs. Readers
// do so too: one that has locks by way of a writer's open file could remove it.
type connector struct {
	driver sqldriver.Driver
	name   string
}

// connect returns the connections to a database that SQLite's client names so.
// It opens none.
func connect(name string) (*sql.DB, error) {
	client, err := sql.Open("sqlite", name) // for its driver
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector{client.Driver(), name})
	return db, client.Close()
}

// Connect implements [sqldriver.Connector].
func (c connector) Connect(context.Context) (sqldriver.Conn, error) {
	conn, err := c.driver.Open(c.name)
	if err != nil {
		return nil, err
	}
	control, ok := conn.(sqlite.FileControl)
	if !ok {
		return nil, errors.Join(errDriver, conn.Close())
	}
	if _, err := control.FileControlPersistWAL("main", 1); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Driver implements [sqldriver.Connector].
func (c connector) Driver() sqldriver.Driver { return c.driver }
