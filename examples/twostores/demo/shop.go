package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/examples/guarded/process"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// The variables by which a shop is started.
const (
	ShopVar    = "TWOSTORES_SHOP" // the name of the shop's process
	catalogVar = "TWOSTORES_CATALOG"
	rowsVar    = "TWOSTORES_ROWS"
	fileVar    = "TWOSTORES_FILE"
	tableVar   = "TWOSTORES_TABLE"
)

// The stores of a shop's data.
const (
	rows = "PostgreSQL"
	file = "SQLite"
)

// A shop is one process of the service. Its stock is in PostgreSQL, and once more in a
// SQLite file. Commands come on its standard input, one a line:
//
//	sell N     sells N
//	slowly N   the same, but between reading the stock and writing it back it
//	           waits for another line
type shop struct {
	table    string // guarded, or plain
	conn     *pgx.Conn
	db       *sql.DB
	commands chan string
}

// Shop is the main function of a shop. It does not return.
func Shop() {
	exitcodes.Main(func(ctx context.Context) error {
		s := &shop{table: os.Getenv(tableVar), commands: make(chan string)}
		store, registers, done, err := s.open(ctx)
		defer done()
		if err != nil {
			return err
		}
		g, err := strconv.ParseUint(os.Getenv(process.GenerationVar), 10, 63)
		if err != nil {
			return err
		}
		lead, err := leader.New(store, leader.Config{
			Catalog:   catalog.Config{Generation: generation.Generation(g), Holder: fence.Holder{Name: os.Getenv(ShopVar)}},
			Registers: registers, // nothing is served before both refuse every older token
		})
		if err != nil {
			return err
		}
		go process.Listen(s.commands)
		return lead.Run(ctx, s.work)
	}, exitcodes.Options{Name: os.Getenv(ShopVar)})
}

// open opens the catalog, the stores of the data, and their registers.
func (s *shop) open(ctx context.Context) (store *etcd.Store, registers []fence.Register, done func(), err error) {
	var closing []func()
	done = func() {
		for _, end := range closing {
			end()
		}
	}
	if store, err = etcd.Open(ctx, os.Getenv(catalogVar), etcd.Config{}); err != nil {
		return nil, nil, done, err
	}
	closing = append(closing, func() { _ = store.Close() }) // the process ends
	inRows, err := postgres.OpenRegister(ctx, os.Getenv(rowsVar), postgres.Config{})
	if err != nil {
		return nil, nil, done, err
	}
	closing = append(closing, func() { _ = inRows.Close() })
	inFile, err := sqlite.OpenRegister(os.Getenv(fileVar), sqlite.Config{})
	if err != nil {
		return nil, nil, done, err
	}
	if s.conn, err = pgx.Connect(ctx, os.Getenv(rowsVar)); err != nil {
		return nil, nil, done, err
	}
	closing = append(closing, func() { _ = s.conn.Close(context.WithoutCancel(ctx)) })
	if s.db, err = sql.Open("sqlite", os.Getenv(fileVar)+"?_pragma=busy_timeout(5000)"); err != nil {
		return nil, nil, done, err
	}
	closing = append(closing, func() { _ = s.db.Close() })
	return store, []fence.Register{inRows, inFile}, done, nil
}

// work sells until the token is lost.
func (s *shop) work(ctx context.Context, term *leader.Term) error {
	token := term.Claim().Token
	term.Serving()
	return process.Work(ctx, token, s.commands, func(ctx context.Context, n int, slowly bool) error {
		return s.sell(ctx, token, n, slowly)
	})
}

// sell reads the stock of both stores, calculates, and writes back what is left. It asks
// nobody whether this process still leads: a process that is stopped in between could
// not know.
func (s *shop) sell(ctx context.Context, token fence.Token, n int, slowly bool) error {
	left := map[string]int{}
	var inRows, inFile int
	err := s.conn.QueryRow(ctx, `select n from `+s.table).Scan(&inRows)
	err = errors.Join(err, s.db.QueryRowContext(ctx, `SELECT n FROM `+s.table).Scan(&inFile))
	if err != nil {
		return err
	}
	if slowly {
		process.Say(process.Event{What: "read", Token: token, Left: map[string]int{rows: inRows, file: inFile}})
		<-s.commands
	}
	rowsErr, fileErr := s.writeRows(ctx, token, inRows-n), s.writeFile(ctx, token, inFile-n)
	if rowsErr == nil {
		left[rows] = inRows - n
	}
	if fileErr == nil {
		left[file] = inFile - n
	}
	e := process.Event{What: "sold", Token: token, Left: left}
	err = errors.Join(rowsErr, fileErr)
	if err != nil {
		e.What, e.Text = "refused", err.Error()
	}
	process.Say(e)
	return err
}

// writeRows gives the token along with the transaction. The table's guard, if it has one,
// compares that at the commit.
func (s *shop) writeRows(ctx context.Context, token fence.Token, left int) error {
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select set_config($1, $2, true)`, postgres.TokenSetting, token.String()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update `+s.table+` set n = $1`, left)
		return err
	})
	if refused := postgres.Refusal(err); refused != nil {
		return refused
	}
	return err
}

// writeFile begins a guarded transaction, unless the table is the plain one.
func (s *shop) writeFile(ctx context.Context, token fence.Token, left int) error {
	statement := `UPDATE ` + s.table + ` SET n = ?`
	if s.table == plain {
		_, err := s.db.ExecContext(ctx, statement, left)
		return err
	}
	tx, err := sqlite.Begin(ctx, s.db, token, sqlite.InRegister())
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // behind a commit it does nothing
	if _, err := tx.ExecContext(ctx, statement, left); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return tx.Commit()
}
