package errormatrix

import (
	"fmt"
	"net/url"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

const often = 5 * time.Millisecond

// A pg is one catalog, with a store that nothing is done to.
type pg struct {
	*ledger
	t      *testing.T
	x      *matrix
	server string // URL of the database
	dsn    string // that of the catalog
	well   *postgres.Store
}

// open returns a store of the catalog, with parameters like "lock_timeout=1".
func (p *pg) open(params ...string) *postgres.Store {
	p.t.Helper()
	return openPostgres(p.t, p.dsn, params...)
}

func openPostgres(t *testing.T, dsn string, params ...string) *postgres.Store {
	t.Helper()
	for _, param := range params {
		dsn += "&" + param
	}
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// exec does what an operator does.
func (p *pg) exec(sql ...string) {
	p.t.Helper()
	testpg.Exec(p.t, p.server, sql...)
}

// commit sends a commit by s, and notes its fate.
func (p *pg) commit(s driver.Store, size int) error {
	p.t.Helper()
	return p.after(s, drivertest.ReadHead(p.t, p.well), size)
}

func (p *pg) after(s driver.Store, head driver.Head, size int) error {
	p.t.Helper()
	rec := drivertest.NextRecord(head, random(size))
	return p.note(rec, s.Append(drivertest.Context(p.t), head, rec))
}

// A pgServer is the server that the cases of this test share.
type pgServer struct {
	x *matrix
	*testpg.Server
	n int
}

// in runs a case in a catalog of its own. Afterwards nothing is lost.
func (s *pgServer) in(t *testing.T, title, database string, fn func(p *pg)) {
	t.Helper()
	t.Run(title, func(t *testing.T) {
		if database == "" {
			database = testpg.Database(t, s.URL)
		}
		s.n++
		p := &pg{ledger: new(ledger), t: t, x: s.x, server: database}
		p.dsn = fmt.Sprintf("%s&catalog=c%d", database, s.n)
		p.well = p.open()
		p.claim(t, p.well)
		require.NoError(t, p.commit(p.well, 10))
		fn(p)
		p.check(t, openPostgres(t, p.dsn))
	})
}

func provokePostgres(t *testing.T) *matrix {
	s := &pgServer{x: newMatrix(postgres.Errors())}
	s.Server = testpg.NewServer(t, testpg.Setting("max_connections = 40"), testpg.Setting("max_locks_per_transaction = 10"))
	shared := testpg.Database(t, s.URL)
	s.provokeConnections(t, shared)
	s.provokeLocks(t, shared)
	s.provokeSchema(t, shared)
	s.provokeStatements(t, shared)
	s.provokeEnds(t, shared)
	return s.x
}

// as returns a URL of a user.
func as(t *testing.T, server, user, password string) string {
	return testpg.With(t, server, func(u *url.URL) { u.User = url.UserPassword(user, password) })
}

func (s *pgServer) provokeConnections(t *testing.T, shared string) {
	ctx := drivertest.Context(t)
	head := func(t *testing.T, code, dsn string, params ...string) {
		t.Helper()
		_, err := openPostgres(t, dsn, params...).Head(ctx)
		s.x.expect(t, met, code, false, err)
	}
	testpg.Exec(t, shared, `create role app login password 'right'`, `create role idle nologin password 'right'`,
		`create role single login password 'right' connection limit 0`)
	s.in(t, "credentials, rights and names", shared, func(p *pg) {
		head(p.t, "28P01", as(p.t, p.dsn, "app", "wrong"))
		head(p.t, "28000", as(p.t, p.dsn, "idle", "right"))
		head(p.t, "53300", as(p.t, p.dsn, "single", "right"))
		head(p.t, "3D000", testpg.With(p.t, p.dsn, func(u *url.URL) { u.Path = "/nowhere" }))
		head(p.t, "42704", p.dsn, "no_such_setting=1")
		head(p.t, "22023", p.dsn, "statement_timeout=soon")
		head(p.t, "55P02", p.dsn, "max_connections=5")
		s.x.expect(p.t, met, "42501", true, p.commit(openPostgres(p.t, as(p.t, p.dsn, "app", "right")), 1))
	})
	s.in(t, "a pooler's door", shared, s.provokeDoor)
	s.in(t, "a value that the encoding has not", shared, func(p *pg) {
		_, err := p.well.Post(ctx, driver.Note{Key: "\xff", Value: []byte("v")})
		s.x.expect(p.t, met, "22021", true, err)
		_, err = p.well.Post(ctx, driver.Note{Key: "€", Value: []byte("v")})
		require.NoError(p.t, err)
		_, err = p.open("client_encoding=latin1").Notes(ctx, "")
		s.x.expect(p.t, met, "22P05", false, err)
	})
	s.in(t, "read only", shared, func(p *pg) {
		s.x.expect(p.t, met, "25006", true, p.commit(p.open("default_transaction_read_only=on"), 1))
	})
	s.in(t, "a session that idles", shared, func(p *pg) {
		one, err := p.open("idle_session_timeout=300", "application_name=idler"), error(nil)
		for err == nil { // a pool asks before it sends, where a second went by
			p.gone("idler")
			err = p.commit(one, 1)
		}
		s.x.expect(p.t, met, "57P05", true, err)
	})
}

// gone waits until the server has ended every session of an application.
func (p *pg) gone(application string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		return len(testpg.Backends(p.t, p.server, application)) == 0
	}, drivertest.Patience, often)
}

// waits returns the process that waits for a lock, once there is one.
func (p *pg) waits() (pid int) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { pid = testpg.Waiting(p.server); return pid != 0 }, drivertest.Patience, often)
	return pid
}

// hold locks this catalog's head until release is called.
func (p *pg) hold() (conn *pgx.Conn, release func()) {
	p.t.Helper()
	conn = testpg.Connect(p.t, p.server)
	_, err := conn.Exec(p.t.Context(), `begin; select from fencepost.head for update`)
	require.NoError(p.t, err)
	return conn, func() {
		_, err := conn.Exec(p.t.Context(), `rollback`)
		require.NoError(p.t, err)
	}
}

func (s *pgServer) provokeLocks(t *testing.T, shared string) {
	s.in(t, "a lock that is not free in time", shared, func(p *pg) {
		_, release := p.hold()
		s.x.expect(p.t, met, "55P03", true, p.commit(p.open("lock_timeout=30"), 1))
		s.x.expect(p.t, met, "57014", true, p.commit(p.open("statement_timeout=2000"), 1))
		release()
	})
	s.in(t, "a backend terminated", shared, func(p *pg) {
		_, release := p.hold()
		head, victim := drivertest.ReadHead(p.t, p.well), p.open()
		failed := make(chan error, 1)
		go func() { failed <- p.after(victim, head, 1) }()
		p.exec(fmt.Sprintf(`select pg_terminate_backend(%d)`, p.waits()))
		s.x.expect(p.t, met, "57P01", true, <-failed)
		release()
	})
	s.in(t, "a deadlock", shared, func(p *pg) {
		err := error(nil)
		for err == nil { // unless the other session is looked at first
			other, _ := p.hold()
			_, slow := other.Exec(p.t.Context(), `set deadlock_timeout = '1s'`)
			require.NoError(p.t, slow)
			head, victim := drivertest.ReadHead(p.t, p.well), p.open("deadlock_timeout=300")
			failed := make(chan error, 1)
			go func() { failed <- p.after(victim, head, 1) }()
			p.waits()
			_, _ = other.Exec(p.t.Context(), `lock table fencepost.log in access exclusive mode`)
			_, end := other.Exec(p.t.Context(), `rollback`)
			require.NoError(p.t, end)
			err = <-failed
		}
		s.x.expect(p.t, met, "40P01", true, err)
	})
	s.in(t, "a serialization failure", shared, func(p *pg) {
		other := testpg.Connect(p.t, p.server)
		_, err := other.Exec(p.t.Context(), `begin; update fencepost.head set claim = claim`)
		require.NoError(p.t, err)
		head, victim := drivertest.ReadHead(p.t, p.well), p.open("default_transaction_isolation=serializable")
		failed := make(chan error, 1)
		go func() { failed <- p.after(victim, head, 1) }()
		p.waits()
		_, err = other.Exec(p.t.Context(), `commit`)
		require.NoError(p.t, err)
		s.x.expect(p.t, met, "40001", true, <-failed)
	})
	s.in(t, "a claim that idles", shared, func(p *pg) {
		store, err := postgres.Open(p.t.Context(), p.dsn+"&application_name=claimer", postgres.Config{ClaimIdle: 2 * time.Second})
		require.NoError(p.t, err)
		defer func() { require.NoError(p.t, store.Close()) }()
		claiming, err := store.Claim(drivertest.Context(p.t))
		require.NoError(p.t, err)
		p.gone("claimer")
		next := drivertest.NextClaim(p.t, claiming.Head(), 2)
		err = p.note(drivertest.ClaimRecord(next), claiming.Install(drivertest.Context(p.t), next, drivertest.ClaimRecord(next)))
		s.x.expect(p.t, met, "25P03", false, err)
	})
	s.in(t, "no room for locks", shared, func(p *pg) {
		victim := p.open()
		require.NoError(p.t, p.commit(victim, 1))
		head := drivertest.ReadHead(p.t, p.well)
		greedy := testpg.Connect(p.t, p.server)
		_, err := greedy.Exec(p.t.Context(), `select pg_advisory_lock(n) from generate_series(1, 1000000) n`)
		require.ErrorContains(p.t, err, "53200")
		err = p.after(victim, head, 1)
		_, freed := greedy.Exec(p.t.Context(), `select pg_advisory_unlock_all()`)
		require.NoError(p.t, freed)
		s.x.expect(p.t, met, "53200", true, err)
	})
}

// provokeEnds comes last: it ends the server, in good order and by a crash.
func (s *pgServer) provokeEnds(t *testing.T, shared string) {
	s.in(t, "nobody there", shared, func(p *pg) {
		ctx := drivertest.Context(p.t)
		at := func(host string) error {
			_, err := openPostgres(p.t, testpg.With(p.t, p.dsn, func(u *url.URL) { u.Host = host })).Head(ctx)
			return err
		}
		s.x.expect(p.t, met, "ECONNREFUSED", false, at("127.0.0.1:1"))
		s.x.expect(p.t, met, "net.DNSError: not found", false, at("nowhere.invalid:5432"))
		_, err := openPostgres(p.t, testpg.With(p.t, p.dsn, func(u *url.URL) {
			u.RawQuery = "sslmode=require&catalog=" + u.Query().Get("catalog")
		})).Head(ctx)
		s.x.saw(s.x.judged(p.t, false, err), met)
	})
	s.in(t, "a server that crashes with a commit under way", shared, func(p *pg) {
		_, _ = p.hold()
		head, victim := drivertest.ReadHead(p.t, p.well), p.open()
		failed := make(chan error, 1)
		go func() { failed <- p.after(victim, head, 1) }()
		p.waits()
		s.Crash()
		s.x.saw(s.x.judged(p.t, true, <-failed), met) // how the connection ends, is up to the system
		s.Start()
	})
	s.in(t, "a server that shuts down", shared, func(p *pg) {
		_, release := p.hold()
		pid, err := strconv.Atoi(p.value(`select split_part(pg_read_file('postmaster.pid'), E'\n', 1)`))
		require.NoError(p.t, err)
		require.NoError(p.t, syscall.Kill(pid, syscall.SIGTERM)) // it waits for those that are connected
		require.Eventually(p.t, func() bool {
			_, err = p.open().Head(drivertest.Context(p.t))
			return err != nil
		}, drivertest.Patience, often)
		release()
		s.x.expect(p.t, met, "57P03", false, err)
		s.Stop()
		s.Start()
	})
}
