package errormatrix

import (
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

// behind starts a PgBouncer that keeps one session, and returns its URL for the
// database.
func (p *pg) behind(opts ...testpg.PoolerOption) string {
	p.t.Helper()
	return testpg.NewPooler(p.t, p.server, 1, opts...).URL
}

// of returns the catalog's DSN at another URL of its database.
func (p *pg) of(url string) string { return url + strings.TrimPrefix(p.dsn, p.server) }

// provokeDoor has PgBouncer turn away whom it does not know, for ever or for now.
func (s *pgServer) provokeDoor(p *pg) {
	door := func(code, dsn string) {
		p.t.Helper()
		_, err := openPostgres(p.t, dsn).Head(drivertest.Context(p.t))
		s.x.expect(p.t, met, code, false, err)
	}
	scram := p.of(p.behind(testpg.PoolerUsers("scram-sha-256", "app", "right")))
	door("08P01 to a password", as(p.t, scram, "app", "wrong"))
	door("08P01 to a password", as(p.t, scram, "nobody", "right"))
	door("08P01 while connecting", as(p.t, p.of(p.behind(testpg.PoolerUsers("md5", "app", "right"))), "app", "wrong"))
	door("08P01 while connecting", p.of(p.behind(testpg.PoolerDatabase("other"))))
	require.NoError(p.t, p.commit(openPostgres(p.t, as(p.t, scram, "app", "right")), 1))

	// Once let in, a commit queues in vain for the one session.
	pooler := p.behind(testpg.PoolerSetting("query_wait_timeout = 1"))
	victim := openPostgres(p.t, p.of(pooler))
	require.NoError(p.t, p.commit(victim, 1))
	head, other := drivertest.ReadHead(p.t, p.well), testpg.Connect(p.t, pooler)
	_, err := other.Exec(p.t.Context(), `begin`)
	require.NoError(p.t, err)
	s.x.expect(p.t, met, "08P01", true, p.after(victim, head, 1))
	_, err = other.Exec(p.t.Context(), `rollback`)
	require.NoError(p.t, err)
}
