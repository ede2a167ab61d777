package postgres

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A server is a process of PostgreSQL as a connection found it when it was made.
// Nothing of it changes while a connection to the process lives, except that a
// standby may be promoted. Behind a pooler a later statement may reach another
// server.
type server struct {
	system   string // the system identifier of the database cluster; empty if this role may not ask for it
	timeline uint32 // of the next write; zero on a standby
	standby  bool   // it is in recovery
	started  int64  // when the process was started, in microseconds: no two of one system have the same
}

// A dialed is what a connection remembers of how it was made.
type dialed struct {
	server server
	at     time.Time
	memory *sightings
}

// dialedOf returns nil for a connection that was not made by a prepared
// configuration.
func dialedOf(c *pgconn.PgConn) *dialed {
	d, _ := c.CustomData()[markDialed].(*dialed)
	return d
}

// identifySQL goes as a simple query, which every pooler takes, and has no
// operators, which the session's search_path could replace.
const identifySQL = anonymousSQL + `, ` + systemSQL

// anonymousSQL leaves out the system, for which a role may lack the right.
const anonymousSQL = `select pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(),
	case when pg_catalog.pg_is_in_recovery() then '' else pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) end,
	pg_catalog.encode(pg_catalog.timestamptz_send(pg_catalog.pg_postmaster_start_time()), 'hex')`

// identify asks a new connection which server it leads to, and whether a pooler
// stands between: then the process that the connection was told of at its
// beginning is not the one that answers.
func identify(ctx context.Context, c *pgconn.PgConn) (server, error) {
	row, err := oneTextRow(ctx, c, identifySQL)
	if sqlState(err) == "42501" { // the claim's own look says what to grant
		row, err = oneTextRow(ctx, c, anonymousSQL)
		row = append(row, "")
	}
	if err != nil {
		return server{}, err
	}
	const columns, bytes = 5, 8
	if len(row) != columns {
		return server{}, fmt.Errorf("%w: a server that says %q of itself", driver.ErrCorrupt, row)
	}
	started, err := hex.DecodeString(row[3])
	if err != nil || len(started) != bytes {
		return server{}, fmt.Errorf("%w: a server that was started at %q", driver.ErrCorrupt, row[3])
	}
	c.CustomData()[markPooled] = row[0] != strconv.FormatUint(uint64(c.PID()), 10)
	s := server{system: row[4], standby: row[1] == "t", started: int64(binary.BigEndian.Uint64(started))}
	s.timeline, err = parseTimeline(s.standby, row[2])
	return s, err
}

// oneTextRow returns the columns of a simple query's only row. Null is empty.
func oneTextRow(ctx context.Context, c *pgconn.PgConn, sql string) ([]string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var row []string
	if len(results) == 1 && len(results[0].Rows) == 1 {
		for _, column := range results[0].Rows[0] {
			row = append(row, string(column))
		}
	}
	return row, nil
}

// sightings are what a process has learnt about the servers of one configuration.
// All its connections ask them, when they are made and each time they are taken
// out of their pool. Its methods may be called concurrently.
type sightings struct {
	mu      sync.Mutex
	log     *slog.Logger         // nil before the driver knows the configuration
	seen    map[string]uint32    // the highest timeline of each system
	home    string               // the system on which the newest claim was found; empty before
	left    map[server]time.Time // connections that were made before are not used any more
	first   string               // the host to dial first; empty: in the order of the DSN
	alarmed map[server]bool      // an error about it was logged
	users   map[*links]struct{}  // which look at the hosts before a connection is made
}

func newSightings() *sightings {
	return &sightings{seen: map[string]uint32{}, left: map[server]time.Time{}, alarmed: map[server]bool{}, users: map[*links]struct{}{}}
}

// meet notes a server's timeline, which is a fact whether or not the server is
// the one to write to.
func (m *sightings) meet(system string, timeline uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[system] = max(m.seen[system], timeline)
}

// settle notes that a claim was found, or made, on a system.
func (m *sightings) settle(system string, timeline uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.home = system
	m.seen[system] = max(m.seen[system], timeline)
}

// highest returns the highest timeline that was seen on the system of the newest
// claim, or on the only one that was seen. It is zero if there are several.
func (m *sightings) highest() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.home == "" && len(m.seen) == 1 {
		for _, timeline := range m.seen {
			return timeline
		}
	}
	return m.seen[m.home]
}

// admit refuses a server that is not the one to write to. The newest claim's
// system does not matter to a call that adopts another one.
func (m *sightings) admit(ctx context.Context, s server) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch seen := m.seen[s.system]; {
	case s.standby:
		return errStandby
	case m.home != "" && differ(s.system, m.home) && !driver.Adopts(ctx):
		return fmt.Errorf("%w: on system %s, and this server is of system %s", errElsewhere, m.home, s.system)
	case s.timeline < seen:
		return fmt.Errorf("%w: %d, seen was %d", errTimeline, s.timeline, seen)
	}
	return nil
}

// differ reports whether two systems are known to be two.
func differ(a, b string) bool { return a != b && a != "" && b != "" }

// stale reports whether a connection must not be used any more: its server is
// not the one to write to by what was learnt since, or the connection is older
// than the moment at which that server was left.
func (m *sightings) stale(ctx context.Context, d *dialed) bool {
	if m.admit(ctx, d.server) != nil {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return d.at.Before(m.left[d.server])
}

// leave has no connection used that was made to a server until now.
func (m *sightings) leave(s server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left[s] = time.Now()
}

// prefer has a host dialed before the others.
func (m *sightings) prefer(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.first = host
}

// alarm logs an error about a server, once.
func (m *sightings) alarm(s server, text string, args ...any) {
	m.mu.Lock()
	log, known := m.log, m.alarmed[s]
	m.alarmed[s] = known || log != nil
	m.mu.Unlock()
	if log != nil && !known {
		log.Error(text, args...)
	}
}

func (m *sightings) use(l *links) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = l.log
	m.users[l] = struct{}{}
}

func (m *sightings) disuse(l *links) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.users, l)
}

// lookFirst has the hosts looked at before a connection is made: a pool makes one
// also where nothing of ours sees that the one before broke.
func (m *sightings) lookFirst(ctx context.Context) {
	if isLook(ctx) {
		return
	}
	m.mu.Lock()
	users := slices.Collect(maps.Keys(m.users))
	m.mu.Unlock()
	if len(users) > 0 {
		users[0].lookBefore(ctx)
	}
}

// lookKey is the key of a context under which a connection is made to any server,
// to look at it.
type lookKey struct{}

func isLook(ctx context.Context) bool { return ctx.Value(lookKey{}) != nil }

// greet identifies the server of a new connection, and refuses it if it is not
// the one to write to, so that the next host of the DSN is tried.
func (m *sightings) greet(ctx context.Context, c *pgconn.PgConn) error {
	s, err := identify(ctx, c)
	if err != nil {
		return err
	}
	c.CustomData()[markDialed] = &dialed{server: s, at: time.Now(), memory: m}
	if !s.standby {
		m.meet(s.system, s.timeline)
	}
	if isLook(ctx) {
		return nil
	}
	err = m.admit(ctx, s)
	if err != nil && !s.standby {
		m.alarm(s, writesElsewhere, "address", c.Conn().RemoteAddr().String(), "err", err)
	}
	return err
}

const writesElsewhere = "a server that is not the store of this catalog takes writes: shut it down, or remove it from the DSN"

// order puts the host that is to be dialed first in front of the others.
func (m *sightings) order(c *pgx.ConnConfig) {
	m.mu.Lock()
	first := m.first
	m.mu.Unlock()
	all := attemptsOf(c)
	if first == "" || hostOf(all[0]) == first {
		return
	}
	slices.SortStableFunc(all, func(a, b *pgconn.FallbackConfig) int {
		return rank(hostOf(a) == first) - rank(hostOf(b) == first)
	})
	setAttempts(c, all)
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// attemptsOf returns how a configuration connects, in order: by every host, and
// by some of them with and without TLS.
func attemptsOf(c *pgx.ConnConfig) []*pgconn.FallbackConfig {
	return append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...)
}

func setAttempts(c *pgx.ConnConfig, all []*pgconn.FallbackConfig) {
	c.Host, c.Port, c.TLSConfig, c.Fallbacks = all[0].Host, all[0].Port, all[0].TLSConfig, all[1:]
}

// hostOf names a host: by its name and port, or the path of its socket.
func hostOf(a *pgconn.FallbackConfig) string {
	_, address := pgconn.NetworkAddress(a.Host, a.Port)
	return address
}

// hostsOf splits a configuration into one for each host that it names.
func hostsOf(c *pgx.ConnConfig) []*pgx.ConnConfig {
	var hosts []*pgx.ConnConfig
	var names []string
	byName := map[string][]*pgconn.FallbackConfig{}
	for _, a := range attemptsOf(c) {
		name := hostOf(a)
		if byName[name] == nil {
			names = append(names, name)
		}
		byName[name] = append(byName[name], a)
	}
	for _, name := range names {
		host := c.Copy()
		setAttempts(host, byName[name])
		hosts = append(hosts, host)
	}
	return hosts
}
