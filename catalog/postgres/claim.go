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
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// abandonTimeout bounds a roll-back. A connection that does not answer in time
// is closed, and the server rolls back when it notices.
const abandonTimeout = 2 * time.Second

// A claiming is one transaction. It locks, in this order, the advisory lock of
// the catalog, the token's row, on which guards stand, and the head's row.
type claiming struct {
	store *Store
	net   net.Conn // closed from another goroutine to cut the claim

	mu     sync.Mutex // of all below: Close ends a claim from outside
	conn   *pgxpool.Conn
	tx     pgx.Tx // nil after the end
	begun  state  // the server as the claim found it
	system string // the system identifier that was stamped
	state  state
}

// Claim begins a claim and locks the head. From then on the server ends it
// where ClaimIdle passes without a statement.
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
// for idling, and for a client that takes no more bytes. It also raises
// synchronous_commit, as durable does.
const beginSQL = `select pg_backend_pid(), set_config('lock_timeout', $1, true),
	set_config('idle_in_transaction_session_timeout', $2, true), set_config('tcp_user_timeout', $2, true), ` + durable

func (c *claiming) begin(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		err := c.tryBegin(ctx)
		if !errors.Is(err, errAppeared) {
			return err
		}
		rollback(c.tx)
	}
}

func (c *claiming) tryBegin(ctx context.Context) error {
	tx, err := c.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	c.tx = tx
	if c.begun, err = c.store.readServer(ctx, tx); err != nil {
		return err
	}
	wait := patienceOf(ctx)
	pid, err := c.store.setBounds(ctx, tx, wait)
	if err != nil {
		return err
	}
	return c.lock(ctx, wait, pid)
}

func (s *Store) setBounds(ctx context.Context, tx pgx.Tx, wait patience) (pid int, err error) {
	var lock, idle, tcp string
	var durable bool
	err = tx.QueryRow(ctx, beginSQL, s.args(millis(wait.lock), millis(s.config.ClaimIdle))...).
		Scan(&pid, &lock, &idle, &tcp, &durable)
	return pid, err
}

func millis(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "ms"
}

// lockAll takes the locks, each of which may have to wait, and reads the head,
// which then can't move any more.
func (c *claiming) lockAll(ctx context.Context) error {
	s := c.store
	if err := c.exec(ctx, `select pg_advisory_xact_lock($1)`, lockKey("catalog "+s.catalog)); err != nil {
		return err
	}
	exists, err := s.schemaExists(ctx, c.tx)
	if err != nil {
		return err
	}
	if !exists {
		return s.reserveSchema(ctx, c.tx)
	}
	for _, table := range []string{"token", "head"} {
		if err := c.exec(ctx, `select from fencepost.`+table+` where catalog = $1 for update`, s.catalog); err != nil {
			return err
		}
	}
	if c.state, err = s.readHead(ctx, c.tx); err != nil {
		return err
	}
	return s.admit(ctx, c.tx, c.state)
}

func (c *claiming) exec(ctx context.Context, sql string, args ...any) error {
	_, err := c.tx.Exec(ctx, sql, c.store.args(args...)...)
	return err
}

// Head returns the head as the claim has locked it.
func (c *claiming) Head() driver.Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.head
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

// Install writes head, token, history and log, notifies the watchers and
// commits.
func (c *claiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.end()
	if c.tx == nil {
		return c.store.fail("install", errEnded, notSent)
	}
	if err := c.write(ctx, claim, rec, when); err != nil {
		return c.store.fail("install", err, notSent)
	}
	pg := c.conn.Conn().PgConn()
	expectCommit(pg)
	err := c.tx.Commit(ctx)
	if err == nil {
		err = checkCommit(pg)
	}
	if err != nil {
		return c.store.fail("install", err, commitSent)
	}
	c.store.place.Store(&place{c.begun.started, claim.ID, c.system})
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
		err = createSchema(ctx, c.tx)
	}
	if err != nil {
		return err
	}
	if err := c.checkNotes(ctx, when); err != nil {
		return err
	}
	if err := c.writeHead(ctx, claim, rec, text); err != nil {
		return err
	}
	step.Reach(ctx, step.ClaimHeadWritten)
	if err := c.writeLog(ctx, rec, text); err != nil {
		return err
	}
	step.Reach(ctx, step.ClaimLogWritten)
	return c.exec(ctx, `select pg_notify($1, '')`, channel(c.store.catalog))
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

// writeHead moves head and token on condition that the head is what it was
// when the claim began, which its lock has seen to.
func (c *claiming) writeHead(ctx context.Context, claim driver.Claim, rec driver.Record, text string) error {
	s, prior := c.store, c.state.head
	sql := `insert into fencepost.head (catalog, revision, commit_id, claim) values ($1, $2, $3::uuid, $4) on conflict do nothing`
	args := []any{s.catalog, int64(rec.Revision), rec.ID.String(), text}
	if !prior.IsZero() {
		sql = `update fencepost.head set revision = $2, commit_id = $3::uuid, claim = $4
			where catalog = $1 and revision = $5 and commit_id = $6::uuid`
		args = append(args, int64(prior.Revision), prior.Commit.String())
	}
	tag, err := c.tx.Exec(ctx, sql, s.args(args...)...)
	if err == nil && tag.RowsAffected() == 0 {
		err = fmt.Errorf("%w: the head is not at revision %d, commit %v", driver.ErrConflict, prior.Revision, prior.Commit)
	}
	if err != nil {
		return err
	}
	return c.tx.QueryRow(ctx, `insert into fencepost.token (catalog, generation, epoch, claim_id, system_id, timeline)
		values ($1, $2, $3, $4::uuid, `+systemSQL+`, `+timelineSQL+`)
		on conflict (catalog) do update set generation = excluded.generation, epoch = excluded.epoch, claim_id = excluded.claim_id,
			system_id = excluded.system_id, timeline = excluded.timeline
		returning system_id`,
		s.args(s.catalog, int64(claim.Token.Generation), int64(claim.Token.Epoch), claim.ID.String())...).Scan(&c.system)
}

func (c *claiming) writeLog(ctx context.Context, rec driver.Record, text string) error {
	s := c.store
	if err := c.exec(ctx, `insert into fencepost.claim (catalog, revision, claim) values ($1, $2, $3)`,
		s.catalog, int64(rec.Revision), text); err != nil {
		return err
	}
	return c.exec(ctx, `insert into fencepost.log (catalog, revision, commit_id, generation, epoch, payload)
		values ($1, $2, $3::uuid, $4, $5, $6)`, append([]any{s.catalog}, recordArgs(rec)...)...)
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
