package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// abandonTimeout bounds a roll-back. A connection that does not answer in time
// is closed, and the server rolls back when it notices.
const abandonTimeout = 2 * time.Second

// A claiming is one transaction. It acquires the lock of the token's row, the lock of
// the guards and then the lock of the head's row. Only roles with rights on schema
// fencepost can hold these locks; an advisory lock can be held by every user of the
// database.
type claiming struct {
	store *Store
	net   net.Conn // closed from another goroutine to cut the claim

	mu     sync.Mutex // of all below: Close ends a claim from outside
	conn   *pgxpool.Conn
	tx     pgx.Tx // nil after the end
	pid    int    // of the server's process
	begun  state  // the server as the claim found it
	system string // the system identifier that was stamped
	state  state
	guards bool // this role can wait for guarded transactions
	losses driver.Losses
	next   []byte // what Install replaces the losses by; nil: nothing

	appeared bool // the catalog's rows did, while they were to be locked
}

// Claim begins a claim and locks the head. From then on the server ends it
// where ClaimIdle passes without a statement.
//
// If the DSN names several hosts, every one of them is looked at before, in
// parallel, for [Config.LookTimeout] at most.
func (s *Store) Claim(ctx context.Context) (driver.Claiming, error) {
	conn, err := s.takeTurn(ctx)
	if err != nil {
		return nil, s.fail("claim", err, notSent)
	}
	c := &claiming{store: s, conn: conn, net: conn.Conn().PgConn().Conn()}
	if err := s.enlist(c); err != nil {
		s.endTurn(conn)
		return nil, s.fail("claim", err, notSent)
	}
	if err := c.begin(ctx); err != nil {
		s.leave(conn, err)
		c.Abandon()
		return nil, s.fail("claim", err, notSent)
	}
	step.Reach(ctx, step.ClaimBegun)
	return c, nil
}

func (s *Store) enlist(c *claiming) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.claims[c] = struct{}{}
	return nil
}

// beginSQL sets bounds for this transaction alone: for each wait for a lock,
// for idling, and for a client that takes no more bytes. It has no other bound,
// whatever a role or a database was set to, finds no functions but PostgreSQL's,
// is refused rows that are hidden from it, and is not compiled. Durable does the
// rest.
const beginSQL = `select pg_catalog.pg_backend_pid(), pg_catalog.set_config('lock_timeout', $1, true),
	pg_catalog.set_config('idle_in_transaction_session_timeout', $2, true), pg_catalog.set_config('tcp_user_timeout', $2, true),
	pg_catalog.set_config('statement_timeout', '0', true), pg_catalog.set_config('search_path', 'pg_catalog', true),
	pg_catalog.set_config('row_security', 'off', true), pg_catalog.set_config('jit', 'off', true),
	case when pg_catalog.current_setting('transaction_timeout', true) is not null then pg_catalog.set_config('transaction_timeout', '0', true) end,
	` + durable

// errAbsent means that there is nothing to lock.
var errAbsent = errors.New("schema fencepost is not there, or not whole")

// begin begins the transaction, and anew if the schema is not there, or it or the
// catalog was created meanwhile. A store that has never seen a claim looks first
// whether there is a schema, so that the server has no error to log.
func (c *claiming) begin(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	lock, absent := c.lockAll, false
	if c.store.place.Load() == nil {
		lock = c.reserve
	}
	for {
		err := c.tryBegin(ctx, lock)
		switch {
		case errors.Is(err, errAbsent) && !absent:
			lock, absent = c.reserve, true
		case errors.Is(err, errAppeared):
			lock = c.lockAll
		default:
			return err
		}
		rollback(c.tx)
	}
}

func (c *claiming) tryBegin(ctx context.Context, lock func(context.Context) error) error {
	tx, err := c.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	c.tx = tx
	wait := patienceOf(ctx)
	if err := c.setBounds(ctx, wait); err != nil {
		return err
	}
	return c.orBlocked(ctx, wait, lock)
}

// setBounds looks at the server, and sets the bounds of the transaction.
func (c *claiming) setBounds(ctx context.Context, wait patience) error {
	s := c.store
	look := statement{sql: serverAloneSQL, row: func(row pgx.Row) (err error) {
		c.begun, err = s.scanServer(row)
		return err
	}}
	guards := statement{sql: guardedSQL, row: func(row pgx.Row) error { return row.Scan(&c.guards) }}
	return s.together(ctx, c.tx, look, guards, s.bounds(wait.lock, s.config.ClaimIdle, &c.pid))
}

// bounds sets the bounds of a transaction: for how long it waits for a lock, and for
// how long the server lets it wait for this process, which may have stopped. It tells
// the backend's process.
func (s *Store) bounds(lock, idle time.Duration, pid *int) statement {
	return statement{sql: beginSQL, args: []any{millis(lock), millis(idle)}, row: func(row pgx.Row) error {
		var durable bool
		return row.Scan(pid, nil, nil, nil, nil, nil, nil, nil, nil, &durable)
	}}
}

func millis(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "ms"
}

const (
	lockTokenSQL = `select from fencepost.token where catalog = $1 for update`
	lockHeadSQL  = `select from fencepost.head where catalog = $1 for update`
)

// firstClaimKey is the key of a note that nobody ever sees. The first claim of a
// catalog keeps its place, since there is no row of token or head to lock.
const firstClaimKey = "\x01first claim"

// lockAll takes the locks, each of which may have to wait, and reads the head,
// which then can't move any more.
func (c *claiming) lockAll(ctx context.Context) error {
	err := c.lockRows(ctx)
	if err != nil || !c.state.head.IsZero() {
		return err
	}
	if err := c.store.together(ctx, c.tx, c.store.holdNote(driver.Note{Key: firstClaimKey})...); err != nil {
		return err
	}
	return c.lockRows(ctx) // another process's first claim may have landed before
}

// lockRows locks the row of the token, waits for guarded transactions, locks the row of
// the head, and reads it. There may be no rows. A guarded transaction whose application waits
// for a commit of its catalog does not wait for this claim: the head is locked last.
func (c *claiming) lockRows(ctx context.Context) error {
	s, locked := c.store, 0
	count := func(tag pgconn.CommandTag) error {
		locked += int(tag.RowsAffected())
		return nil
	}
	all := []statement{{sql: lockTokenSQL, args: []any{s.catalog}, tag: count}}
	if c.guards {
		all = append(all, statement{sql: awaitSQL, args: []any{s.catalog}})
	}
	err := s.together(ctx, c.tx, append(all,
		statement{sql: lockHeadSQL, args: []any{s.catalog}, tag: count},
		s.readLosses(&c.losses),
		statement{sql: headSQL, args: []any{s.catalog}, row: func(row pgx.Row) (err error) {
			c.state, err = s.scanHead(row)
			return err
		}},
	)...)
	switch {
	case undefined(err):
		return fmt.Errorf("%w: %w", errAbsent, err)
	case errors.Is(err, pgx.ErrNoRows):
		c.state, err = s.readHeadBy(ctx, c.tx, absentSQL, nil)
	}
	if err != nil {
		return err
	}
	if first := !c.appeared; first && locked < bothRows && !c.state.head.IsZero() {
		c.appeared = true
		return errAppeared // the first claim landed between two of the statements
	}
	return s.admit(ctx, c.tx, c.state)
}

// bothRows are those of token and head.
const bothRows = 2

// reserve takes the lock where there is no schema yet.
func (c *claiming) reserve(ctx context.Context) error {
	c.state, c.losses = state{}, driver.Losses{}
	return c.store.reserveSchema(ctx, c.tx)
}

// Head returns the head as the claim has locked it.
func (c *claiming) Head() driver.Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.head
}

// Losses returns the record of losses as the claim has found it.
func (c *claiming) Losses() driver.Losses {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.losses
}

// ReplaceLosses has Install replace the record of losses.
func (c *claiming) ReplaceLosses(text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = text
}

// Log reads the log in the claim's transaction.
func (c *claiming) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tx == nil {
		return c.store.fail("log", errEnded, notSent)
	}
	if !c.state.exists {
		return nil
	}
	if err := checkVersion(c.state.version); err != nil {
		return c.store.fail("log", err, notSent)
	}
	return c.store.readLog(ctx, "log", c.tx, c.state.head.Revision, after, fn)
}

// Renew makes one round trip in the claim's transaction, so that ClaimIdle
// begins anew.
func (c *claiming) Renew(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tx == nil {
		return c.store.fail("renew", errEnded, notSent)
	}
	if _, err := c.tx.Exec(ctx, `select`); err != nil {
		return c.store.fail("renew", err, notSent)
	}
	return nil
}

// Install writes head, token, history and log, and commits. The watchers are
// notified behind the commit, which waits for none of that.
func (c *claiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.end()
	if c.tx == nil {
		return c.store.fail("install", errEnded, notSent)
	}
	err := c.orBlocked(ctx, patienceOf(ctx), func(ctx context.Context) error { return c.write(ctx, claim, rec, when) })
	if err != nil {
		return c.store.fail("install", err, notSent)
	}
	pg := c.conn.Conn().PgConn()
	expectCommit(pg)
	err = c.tx.Commit(ctx)
	c.store.notifier.notify(channel(c.store.catalog)) // whatever the answer: one wake-up too many costs a look
	if err == nil {
		err = checkCommit(pg)
	}
	if err != nil {
		return c.store.fail("install", err, commitSent)
	}
	c.store.place.Store(&place{c.begun.started, claim.ID, c.system})
	c.store.known.Load().settle(c.system, c.begun.timeline)
	step.Reach(ctx, step.ClaimCommitted)
	return nil
}

func (c *claiming) write(ctx context.Context, claim driver.Claim, rec driver.Record, when []driver.Note) error {
	text, err := c.check(claim, rec)
	if err != nil {
		return err
	}
	if c.state.exists {
		err = checkVersion(c.state.version)
	} else {
		err = c.store.createTables(ctx, c.tx)
	}
	if err != nil {
		return err
	}
	all := c.store.holdLosses(c.losses, c.next)
	for _, n := range when {
		all = append(all, c.store.holdNote(n)...)
	}
	all = append(all, c.writeHead(claim, rec, text)...)
	all = append(all, c.writeLog(rec, text)...)
	if err := c.store.together(ctx, c.tx, all...); err != nil {
		return err
	}
	step.Reach(ctx, step.ClaimHeadWritten) // by one round trip with the log
	step.Reach(ctx, step.ClaimLogWritten)
	return nil
}

// check refuses what the head could not be read back from.
func (c *claiming) check(claim driver.Claim, rec driver.Record) (text string, err error) {
	if err := checkRecord(c.state.head, rec); err != nil {
		return "", err
	}
	if claim.ID != rec.ID || claim.Revision != rec.Revision || claim.Token != rec.Token {
		return "", fmt.Errorf("%w: claim %v, revision %d, %v with a record %v, revision %d, %v",
			errMisuse, claim.ID, claim.Revision, claim.Token, rec.ID, rec.Revision, rec.Token)
	}
	b, err := driver.MarshalClaim(claim)
	if err == nil {
		_, err = driver.UnmarshalClaim(b)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", errMisuse, err)
	}
	return string(b), nil
}

// What a claim writes. All but the head stands on the head that was written
// before it.
const (
	insertHeadSQL = `insert into fencepost.head (catalog, revision, commit_id, claim) values ($1, $2, $3::uuid, $4) on conflict do nothing`
	moveHeadSQL   = `update fencepost.head set revision = $2, commit_id = $3::uuid, claim = $4
		where catalog = $1 and revision = $5 and commit_id = $6::uuid`
	stampTokenSQL = `insert into fencepost.token (catalog, generation, epoch, claim_id, system_id, timeline)
		select catalog, $2, $3, commit_id, ` + systemSQL + `, ` + timelineSQL + ` from fencepost.head where catalog = $1 and commit_id = $4::uuid
		on conflict (catalog) do update set generation = excluded.generation, epoch = excluded.epoch, claim_id = excluded.claim_id,
			system_id = excluded.system_id, timeline = excluded.timeline
		returning system_id`
	addClaimSQL = `insert into fencepost.claim (catalog, revision, claim) select catalog, revision, $3 from fencepost.head
		where catalog = $1 and revision = $2`
	addLogSQL = `insert into fencepost.log (catalog, revision, commit_id, generation, epoch, payload)
		select catalog, revision, commit_id, $4, $5, $6 from fencepost.head where catalog = $1 and revision = $2 and commit_id = $3::uuid`
)

// writeHead moves head and token on condition that the head is what it was
// when the claim began, which its lock has seen to.
func (c *claiming) writeHead(claim driver.Claim, rec driver.Record, text string) []statement {
	s, prior := c.store, c.state.head
	sql, args := insertHeadSQL, []any{s.catalog, int64(rec.Revision), rec.ID.String(), text}
	if !prior.IsZero() {
		sql, args = moveHeadSQL, append(args, int64(prior.Revision), prior.Commit.String())
	}
	return []statement{
		{sql: sql, args: args, tag: onto(prior)},
		{
			sql:  stampTokenSQL,
			args: []any{s.catalog, int64(claim.Token.Generation), int64(claim.Token.Epoch), claim.ID.String()},
			row:  func(row pgx.Row) error { return row.Scan(&c.system) },
		},
	}
}

// onto requires that a statement has found the head where the claim began.
func onto(prior driver.Head) func(pgconn.CommandTag) error {
	return func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("%w: the head is not at revision %d, commit %v", driver.ErrConflict, prior.Revision, prior.Commit)
		}
		return nil
	}
}

// writeLog adds to the log and to the history.
func (c *claiming) writeLog(rec driver.Record, text string) []statement {
	s, moved := c.store, onto(c.state.head)
	return []statement{
		{sql: addClaimSQL, args: []any{s.catalog, int64(rec.Revision), text}, tag: moved},
		{sql: addLogSQL, args: append([]any{s.catalog}, recordArgs(rec)...), tag: moved},
	}
}

// Abandon rolls back. It does nothing after the end.
func (c *claiming) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
}

// cut ends the claim from outside, without waiting for what it is doing.
func (c *claiming) cut() {
	_ = c.net.Close()
	c.Abandon()
}

// end rolls back what is not committed and gives the connection back. A
// connection that is still in a transaction never goes back to the pool.
func (c *claiming) end() {
	if c.conn == nil {
		return
	}
	if c.tx != nil {
		rollback(c.tx)
	}
	c.store.endTurn(c.conn)
	c.conn, c.tx = nil, nil
	c.store.mu.Lock()
	delete(c.store.claims, c)
	c.store.mu.Unlock()
}

func rollback(tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.Background(), abandonTimeout)
	defer cancel()
	_ = tx.Rollback(ctx) // after a commit it does nothing
}
