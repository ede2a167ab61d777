package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/fence"
)

// Exec runs one statement in a guarded transaction of its own. It takes the place of
// the Exec of a pool, for an application that writes by single statements, and returns
// once the statement is committed. It says of the statement what [Begin] says of a
// transaction, and takes two round trips more than the Exec of a pool.
//
// Guard options may stand before the arguments of the statement, as pgx's own options
// do. After an error of the commit, the statement may have been committed if the
// connection was lost.
func Exec(ctx context.Context, pool Beginner, token fence.Token, sql string, args ...any) (pgconn.CommandTag, error) {
	options, args := cutOptions(args)
	tx, err := Begin(ctx, pool, token, options...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer rollback(tx)
	tag, err := tx.Exec(ctx, sql, args...)
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	return tag, nil
}

// cutOptions returns the guard options at the beginning of args, and the rest.
func cutOptions(args []any) (options []GuardOption, rest []any) {
	for i, arg := range args {
		option, ok := arg.(GuardOption)
		if !ok {
			return options, args[i:]
		}
		options = append(options, option)
	}
	return options, nil
}
