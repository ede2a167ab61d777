package sqlite

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// The table of a register is frozen and documented: token is text such as g7.e41,
// generation and epoch are its numbers, and holder is JSON for people. Any library of
// any language can read it, so it needs no newer SQLite than 3.15. The triggers let it
// only rise, whoever writes to it.
//
// A catalog's file has a view of the same name (see schema.go), so that one recipe does
// for both: BEGIN IMMEDIATE, and then SELECT token FROM fencepost_token.
const (
	registerTableSQL = `CREATE TABLE IF NOT EXISTS SCHEMA.fencepost_token (
	one        INTEGER PRIMARY KEY CHECK (one = 1),
	generation INTEGER NOT NULL CHECK (typeof(generation) = 'integer' AND generation >= 0),
	epoch      INTEGER NOT NULL CHECK (typeof(epoch) = 'integer' AND epoch >= 0),
	token      TEXT    NOT NULL CHECK (token = 'g' || generation || '.e' || epoch),
	holder     TEXT    NOT NULL
)`
	registerInsertSQL = `CREATE TRIGGER IF NOT EXISTS SCHEMA.fencepost_token_insert BEFORE INSERT ON fencepost_token
	WHEN EXISTS (SELECT 1 FROM fencepost_token t WHERE (t.generation, t.epoch) > (NEW.generation, NEW.epoch))
	BEGIN SELECT RAISE(ABORT, 'fencepost_token only rises'); END`
	registerUpdateSQL = `CREATE TRIGGER IF NOT EXISTS SCHEMA.fencepost_token_update BEFORE UPDATE ON fencepost_token
	WHEN (NEW.generation, NEW.epoch) < (OLD.generation, OLD.epoch)
	BEGIN SELECT RAISE(ABORT, 'fencepost_token only rises'); END`
	registerDeleteSQL = `CREATE TRIGGER IF NOT EXISTS SCHEMA.fencepost_token_delete BEFORE DELETE ON fencepost_token
	BEGIN SELECT RAISE(ABORT, 'fencepost_token only rises'); END`

	raiseRegisterSQL = `UPDATE SCHEMA.fencepost_token SET generation = ?, epoch = ?, token = ?, holder = ?`
	addRegisterSQL   = `INSERT INTO SCHEMA.fencepost_token (one, generation, epoch, token, holder) VALUES (1, ?, ?, ?, ?)`
	registerThereSQL = `SELECT count(*) FROM SCHEMA.sqlite_master WHERE name LIKE 'fencepost_token%' AND tbl_name = 'fencepost_token' AND type IN ('table', 'trigger')`
	applicationSQL   = `PRAGMA SCHEMA.application_id`
)

// registerParts is how many things in the schema make a register.
const registerParts = 4

// prepareRegister makes the register's table if there is none, within a transaction.
func (g *guard) prepareRegister(q *sql.Conn) error {
	there, err := g.registerThere(q)
	if err != nil || there {
		return err
	}
	for _, text := range []string{registerTableSQL, registerInsertSQL, registerUpdateSQL, registerDeleteSQL} {
		if _, err := q.ExecContext(unbounded, g.sql(text)); err != nil {
			return g.noGuards(err)
		}
	}
	return nil
}

// registerThere reports whether the file has a register. A catalog needs none.
func (g *guard) registerThere(q *sql.Conn) (bool, error) {
	var application, parts int
	if err := q.QueryRowContext(unbounded, g.sql(applicationSQL)).Scan(&application); err != nil {
		return false, err
	}
	if application == applicationID {
		return false, errCatalog
	}
	err := q.QueryRowContext(unbounded, g.sql(registerThereSQL)).Scan(&parts)
	return parts == registerParts, err
}

// readRegister returns the token that the register holds, zero if it was never raised.
func (g *guard) readRegister(q *sql.Conn) (now fence.Token, by fence.Holder, err error) {
	var text, holder sql.NullString
	err = q.QueryRowContext(unbounded, g.sql(newestRegisterSQL)).Scan(&text, &holder)
	if errors.Is(err, sql.ErrNoRows) {
		return fence.Token{}, fence.Holder{}, nil
	}
	if err != nil {
		return fence.Token{}, fence.Holder{}, g.noGuards(err)
	}
	if now, err = fence.Parse(text.String); err != nil {
		return fence.Token{}, fence.Holder{}, fmt.Errorf("%w: the register: %w", driver.ErrCorrupt, err)
	}
	return now, holderOf(holder.String), nil
}

// holderOf reads the holder of a register, which is for people: what can't be read is
// left out.
func holderOf(text string) (by fence.Holder) {
	if json.Unmarshal([]byte(text), &by) != nil {
		return fence.Holder{}
	}
	return by
}
