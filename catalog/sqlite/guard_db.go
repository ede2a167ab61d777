package sqlite

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"modernc.org/sqlite"
)

// attachedSchema is the name of the catalog's file beside another one.
const attachedSchema = "fencepost"

// attachPatience is the busy_timeout of a connection whose name sets none.
const attachPatience = "_pragma=busy_timeout(5000)"

// A DB is an application's database, each connection of which has the catalog's file.
// The transactions that [Begin] begins on it queue: SQLite lets one write at a time, and
// the others would look for its lock again and again, asleep in between.
type DB struct {
	*sql.DB
	path, schema string
	alone        bool          // there is no other library of SQLite in this process
	turn         chan struct{} // has one element while a guarded transaction is under way

	mu           sync.Mutex
	lock, newest *sql.Stmt // nil before the first guard
	files        openFiles // as they were then
}

// OpenDB returns connections for the application's own tables, whose transactions
// [Begin] guards. The name is that of the application's database, as for
// sql.Open("sqlite", name); then each connection also has the catalog's file, as
// schema fencepost or as [AttachedAs] says. An empty name is the catalog's own file,
// as schema main. Begin knows the schema; [Guard] takes the same option.
//
// Transactions begin by BEGIN IMMEDIATE, and a connection waits 5 s for a lock,
// unless the name says otherwise. The catalog's file must be there, and is opened as
// this store opens it: by its one name, on a file system that locks, and with its WAL
// left in place. Close the result before the Store.
func (s *Store) OpenDB(name string, options ...GuardOption) (*DB, error) {
	g := guard{schema: attachedSchema}
	for _, o := range options {
		o(&g)
	}
	own := name == ""
	if own {
		g.schema, name = "main", dsn(s.path, "mode=rw", "_pragma=synchronous(2)")
	}
	client, err := sqlite.NewConnector(withDefaults(name))
	if err != nil {
		return nil, s.wrap("open", fmt.Errorf("%w: %w", errName, err), false)
	}
	return &DB{DB: sql.OpenDB(attacher{client, s, g, own}), path: s.path, schema: g.schema, alone: !otherLibrary(), turn: make(chan struct{}, 1)}, nil
}

// queue waits until no other guarded transaction of db is under way. What it returns
// lets the next one go on.
func (db *DB) queue(ctx context.Context) (leave func(), err error) {
	select {
	case db.turn <- struct{}{}:
		return func() { <-db.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w by %s: %w", errLocked, describe(strconv.Itoa(os.Getpid())), ctx.Err())
	}
}

// knows tells a guard what it would otherwise ask each connection.
func (db *DB) knows(ctx context.Context, g *guard) (err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	g.path, g.schema, g.alone = db.path, db.schema, db.alone
	if db.lock == nil {
		if db.lock, err = db.PrepareContext(ctx, g.sql(takeLockSQL)); err != nil {
			return g.noGuards(err)
		}
	}
	if db.newest == nil {
		if db.newest, err = db.PrepareContext(ctx, g.sql(newestSQL)); err != nil {
			return g.noGuards(err)
		}
	}
	if db.files == nil {
		if db.files, err = namedFiles(db.path); err != nil {
			return err
		}
	}
	g.lock, g.newest, g.files = db.lock, db.newest, db.files
	return nil
}

var errName = errors.New("this is no name of a database")

// withDefaults adds settings that the name of a database does not have.
func withDefaults(name string) string {
	for setting, already := range map[string]string{"_txlock=immediate": "_txlock=", attachPatience: "busy_timeout"} {
		if !strings.Contains(name, already) && !(already == "busy_timeout" && strings.Contains(name, "_timeout=")) {
			between := "?"
			if strings.Contains(name, "?") {
				between = "&"
			}
			name += between + setting
		}
	}
	return name
}

// An attacher opens connections that have the catalog's file, too.
type attacher struct {
	sqldriver.Connector
	store *Store
	guard guard
	own   bool // the application's tables are in the catalog's file
}

// Connect implements [sqldriver.Connector].
func (a attacher) Connect(ctx context.Context) (sqldriver.Conn, error) {
	conn, err := a.connect(ctx)
	return conn, a.store.wrap("open", err, false)
}

func (a attacher) connect(ctx context.Context) (sqldriver.Conn, error) {
	s := a.store
	if db, err := s.reader(); err != nil || db == nil {
		return nil, cmpErr(err, fmt.Errorf("%w: there is no catalog yet", ErrNoGuards))
	}
	conn, err := a.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.prepare(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// prepare attaches the file, unless it is the connection's own, and sees to it that it
// is the file that has the name.
func (a attacher) prepare(ctx context.Context, conn sqldriver.Conn) error {
	control, ok := conn.(sqlite.FileControl)
	exec, able := conn.(sqldriver.ExecerContext)
	if !ok || !able {
		return errDriver
	}
	if !a.own {
		file := sqldriver.NamedValue{Ordinal: 1, Value: dsn(a.store.path, "mode=rw")}
		if _, err := exec.ExecContext(ctx, a.guard.sql("ATTACH ? AS SCHEMA"), []sqldriver.NamedValue{file}); err != nil {
			return err
		}
	}
	if _, err := control.FileControlPersistWAL(a.guard.schema, 1); err != nil {
		return err
	}
	// A first read opens the files beside it.
	if _, err := exec.ExecContext(ctx, a.guard.sql("SELECT count(*) FROM SCHEMA.sqlite_schema"), nil); err != nil {
		return err
	}
	return oneLibrary(a.store.path)
}
