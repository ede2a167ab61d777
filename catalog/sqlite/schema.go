package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// What marks a file as ours, in the fields that SQLite's header has for that.
const (
	applicationID = 0x464e4350 // "FNCP"
	schemaVersion = 1
)

// schema is frozen: a change of it is a new schemaVersion. The head is in the
// newest rows of log and claim, so that a commit writes one page. Trimmed is the
// revision of the newest record that was deleted, so that a record that is
// missing for any other reason is seen to be.
const schema = `
CREATE TABLE log (
	revision   INTEGER PRIMARY KEY,
	commit_id  BLOB    NOT NULL,
	generation INTEGER NOT NULL,
	epoch      INTEGER NOT NULL,
	payload    BLOB    NOT NULL
) STRICT;
CREATE TABLE claim (
	revision INTEGER PRIMARY KEY,
	claim    TEXT    NOT NULL
) STRICT;
CREATE TABLE snapshot (
	one      INTEGER PRIMARY KEY CHECK (one = 1),
	revision INTEGER NOT NULL,
	id       BLOB    NOT NULL,
	snapshot TEXT    NOT NULL,
	trimmed  INTEGER NOT NULL
) STRICT;
CREATE TABLE part (
	id   BLOB    NOT NULL,
	n    INTEGER NOT NULL CHECK (n >= 0),
	part BLOB    NOT NULL,
	PRIMARY KEY (id, n)
) STRICT;
CREATE TABLE board (
	key     TEXT PRIMARY KEY,
	value   BLOB    NOT NULL,
	version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;`

// The views by which a guard, of whichever language, finds out which token is the
// newest, and whether another one was ever issued. They are frozen and documented:
// generation and epoch are numbers, token is text such as g7.e41, revision is that of
// the claim, which is JSON. A new file has them; to an older one the next claim adds
// them. Older builds never look at them.
const (
	issuedView = "fencepost_issued"
	tokenView  = "fencepost_token"

	issuedViewSQL = `CREATE VIEW fencepost_issued (generation, epoch, token, revision, claim) AS
	SELECT CAST(substr(token, 2, instr(token, '.') - 2) AS INTEGER), CAST(substr(token, instr(token, '.') + 2) AS INTEGER), token, revision, claim
	FROM (SELECT json_extract(claim, '$.token') AS token, revision, claim FROM claim)`
	tokenViewSQL = `CREATE VIEW fencepost_token (generation, epoch, token, revision, claim) AS
	SELECT CAST(substr(token, 2, instr(token, '.') - 2) AS INTEGER), CAST(substr(token, instr(token, '.') + 2) AS INTEGER), token, revision, claim
	FROM (SELECT json_extract(claim, '$.token') AS token, revision, claim FROM claim ORDER BY revision DESC LIMIT 1)`
)

var (
	errForeign = errors.New("the file is another program's database")
	errSchema  = errors.New("the file's schema is of another version")
)

// querier is what *sql.DB and *sql.Conn have in common.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// checkSchema reports whether the file holds a catalog: not yet, where it is
// empty. A file of someone else is refused, and what is left of a catalog.
func checkSchema(ctx context.Context, q querier) (exists bool, err error) {
	var app, version, tables int
	row := q.QueryRowContext(ctx, `SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id a, pragma_user_version v`)
	if err := row.Scan(&app, &version, &tables); err != nil {
		return false, err
	}
	switch {
	case app == applicationID && version == schemaVersion:
		return true, nil
	case app == applicationID:
		return false, fmt.Errorf("%w: %d, and this build knows %d", errSchema, version, schemaVersion)
	case app == 0 && tables == 0:
		return false, checkEmpty(ctx, q)
	default:
		return false, fmt.Errorf("%w: application id %#x, %d tables and indexes", errForeign, app, tables)
	}
}

// createSQL makes an empty catalog.
var createSQL = fmt.Sprintf("%s\n%s;\n%s;\n%s;\nPRAGMA application_id = %d;\nPRAGMA user_version = %d;",
	schema, unclaimedSQL, issuedViewSQL, tokenViewSQL, applicationID, schemaVersion)

// addViews adds the views to a file of an older build. A name that somebody else has
// taken stays theirs: then there is no guard, and claims go on.
func (w *writer) addViews() error {
	for _, v := range []struct{ name, sql string }{{issuedView, issuedViewSQL}, {tokenView, tokenViewSQL}} {
		var taken bool
		err := w.conn.QueryRowContext(unbounded, `SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?)`, v.name).Scan(&taken)
		if err == nil && !taken {
			err = w.exec(unbounded, v.sql)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// headSQL reads the newest row of either table: the joined rows come ordered by
// their keys, as SQLite finds them, so that it looks at no other.
const headSQL = `SELECT l.revision, l.commit_id, c.claim FROM log l CROSS JOIN claim c
	ORDER BY l.revision DESC, c.revision DESC LIMIT 1`

// selectHead reads the head. A log without claims is corruption.
func selectHead(ctx context.Context, q querier) (driver.Head, error) {
	var (
		revision int64
		id       []byte
		claim    string
	)
	err := q.QueryRowContext(ctx, headSQL).Scan(&revision, &id, &claim)
	if errors.Is(err, sql.ErrNoRows) {
		return headless(ctx, q)
	}
	if err != nil {
		return driver.Head{}, err
	}
	unmarshal := func(text string) (driver.Claim, error) { return driver.UnmarshalClaim([]byte(text)) }
	return newHead(revision, id, claim, unmarshal)
}

// newHead makes a head of the columns of headSQL, and reads its claim by
// unmarshal.
func newHead(revision int64, id []byte, claim string, unmarshal func(string) (driver.Claim, error)) (h driver.Head, err error) {
	if h.Claim, err = unmarshal(claim); err != nil {
		return driver.Head{}, fmt.Errorf("%w: %w", driver.ErrCorrupt, err)
	}
	if h.Commit, err = toID(id); err != nil {
		return driver.Head{}, err
	}
	if h.Revision, err = toNumber(revision); err != nil {
		return driver.Head{}, err
	}
	return h, h.Check()
}

// headless says whether it is right that there is no head. It looks at all of
// it in one statement, hence at one instant: the first claim may have landed
// since the head was looked for, and is read then.
func headless(ctx context.Context, q querier) (driver.Head, error) {
	var logs, claims, parts bool
	err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM log), EXISTS (SELECT 1 FROM claim),
		EXISTS (SELECT 1 FROM snapshot) OR EXISTS (SELECT 1 FROM part)`).Scan(&logs, &claims, &parts)
	switch {
	case err != nil:
		return driver.Head{}, err
	case logs && claims:
		return selectHead(ctx, q)
	case logs:
		return driver.Head{}, fmt.Errorf("%w: there is a log without a claim", driver.ErrCorrupt)
	case claims:
		return driver.Head{}, fmt.Errorf("%w: there are claims without a log", driver.ErrCorrupt)
	case parts:
		return driver.Head{}, fmt.Errorf("%w: there is a snapshot, or a part of one, without a log", driver.ErrCorrupt)
	}
	return driver.Head{}, checkUnclaimed(ctx, q)
}

// selectLog reads the records above after, in order.
func selectLog(ctx context.Context, q querier, after uint64, fn func(driver.Record) error) error {
	found, last, err := scanLog(ctx, q, after, fn)
	if err != nil || found != 0 && found == last {
		return err
	}
	return whyMissing(ctx, q, last+1, found)
}

// scanLog reads the records above after up to the first gap. It returns the
// revision behind that gap, or zero where there was no record at all, and the
// one before it; both are the last one's where there was no gap.
func scanLog(ctx context.Context, q querier, after uint64, fn func(driver.Record) error) (found, last uint64, err error) {
	rows, err := q.QueryContext(ctx, `SELECT revision, commit_id, generation, epoch, payload FROM log WHERE revision > ? ORDER BY revision`, int64(after))
	if err != nil {
		return 0, after, err
	}
	defer func() { _ = rows.Close() }() // reading: its error came before
	for rows.Next() {
		rec, err := scanRecord(rows)
		if err != nil {
			return 0, after, err
		}
		if found = rec.Revision; found != after+1 {
			return found, after, nil
		}
		if err := fn(rec); err != nil {
			return 0, after, &callerError{err}
		}
		after = found
	}
	return found, after, rows.Err()
}

func scanRecord(rows *sql.Rows) (rec driver.Record, err error) {
	var (
		revision, generated, epoched int64
		id                           []byte
	)
	if err := rows.Scan(&revision, &id, &generated, &epoched, &rec.Payload); err != nil {
		return rec, err
	}
	g, gerr := toNumber(generated)
	e, eerr := toNumber(epoched)
	rec.Token = fence.Token{Generation: generation.Generation(g), Epoch: epoch.Epoch(e)}
	var rerr, ierr error
	rec.Revision, rerr = toNumber(revision)
	rec.ID, ierr = toID(id)
	return rec, errors.Join(gerr, eerr, rerr, ierr)
}

// toNumber reads a number that is never negative.
func toNumber(n int64) (uint64, error) {
	if n < 0 {
		return 0, fmt.Errorf("%w: the number %d", driver.ErrCorrupt, n)
	}
	return uint64(n), nil
}

// selectClaims reads the claims above after, in order.
func selectClaims(ctx context.Context, q querier, after uint64, fn func(driver.Claim) error) error {
	rows, err := q.QueryContext(ctx, `SELECT claim FROM claim WHERE revision > ? ORDER BY revision`, int64(after))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // reading: its error came before
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		c, err := driver.UnmarshalClaim([]byte(text))
		if err != nil {
			return fmt.Errorf("%w: %w", driver.ErrCorrupt, err)
		}
		if err := fn(c); err != nil {
			return &callerError{err}
		}
	}
	return rows.Err()
}

func toID(b []byte) (driver.ID, error) {
	if len(b) != len(driver.ID{}) {
		return driver.ID{}, fmt.Errorf("%w: a commit id of %d bytes", driver.ErrCorrupt, len(b))
	}
	return driver.ID(b), nil
}

// callerError is an error of the caller's function: it goes back as it is.
type callerError struct{ err error }

func (e *callerError) Error() string { return e.err.Error() }
