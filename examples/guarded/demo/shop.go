package demo

import (
	"context"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/examples/guarded/process"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// The variables by which a shop is started.
const (
	ShopVar  = "GUARDED_SHOP" // the name of the shop's process
	storeVar = "GUARDED_STORE"
	tableVar = "GUARDED_TABLE"
)

// A shop is one process of the service. It sells what its table has in stock, for as
// long as it leads. Commands come on its standard input, one a line:
//
//	sell N     sells N
//	slowly N   the same, but between reading the stock and writing it back it
//	           waits for another line
type shop struct {
	table    string
	conn     *pgx.Conn
	commands chan string
}

// Shop is the main function of a shop. It does not return.
func Shop() {
	exitcodes.Main(func(ctx context.Context) error {
		g, err := strconv.ParseUint(os.Getenv(process.GenerationVar), 10, 63)
		if err != nil {
			return err
		}
		dsn := os.Getenv(storeVar)
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is lost with it
		store, err := postgres.Open(ctx, dsn, postgres.Config{})
		if err != nil {
			return err
		}
		defer store.Close()
		lead, err := leader.New(store, leader.Config{Catalog: catalog.Config{
			Generation: generation.Generation(g), Holder: fence.Holder{Name: os.Getenv(ShopVar)},
		}})
		if err != nil {
			return err
		}
		s := &shop{table: os.Getenv(tableVar), conn: conn, commands: make(chan string)}
		go process.Listen(s.commands)
		return lead.Run(ctx, s.work)
	}, exitcodes.Options{Name: os.Getenv(ShopVar)})
}

// work sells until the token is lost.
func (s *shop) work(ctx context.Context, term *leader.Term) error {
	token := term.Claim().Token
	term.Serving()
	return process.Work(ctx, token, s.commands, func(ctx context.Context, n int, slowly bool) error {
		err := s.sell(ctx, token, n, slowly)
		if err != nil {
			process.Say(process.Event{What: "refused", Token: token, Text: err.Error()})
		}
		return err
	})
}

// sell is what countless services do: read, calculate, write back. It asks nobody
// whether this process still leads, and a process that is stopped between read and
// write could not know. The token goes along with the transaction: without a guard
// nobody looks at it.
func (s *shop) sell(ctx context.Context, token fence.Token, n int, slowly bool) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // behind a commit it does nothing
	if _, err := tx.Exec(ctx, `select set_config($1, $2, true)`, postgres.TokenSetting, token.String()); err != nil {
		return err
	}
	var left int
	if err := tx.QueryRow(ctx, `select n from `+s.table).Scan(&left); err != nil {
		return err
	}
	if slowly {
		process.Say(process.Event{What: "read", Token: token, Left: map[string]int{s.table: left}})
		<-s.commands
	}
	left -= n
	if _, err := tx.Exec(ctx, `update `+s.table+` set n = $1`, left); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		if refused := postgres.Refusal(err); refused != nil {
			return refused
		}
		return err
	}
	process.Say(process.Event{What: "sold", Token: token, Left: map[string]int{s.table: left}})
	return nil
}
