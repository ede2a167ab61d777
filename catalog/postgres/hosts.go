package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/gather"
)

var _ driver.HostTeller = (*Store)(nil)

const (
	// showTimeout bounds the look at the hosts for a person who asks for them.
	showTimeout = 2 * time.Second

	// justNow is for how long a look at the hosts counts for a connection that is
	// made.
	justNow = 200 * time.Millisecond

	// looksAtOnce bounds how many calls share one look.
	looksAtOnce = 1000
)

// errSystems means that the hosts of the DSN are not one cluster.
var errSystems = errors.New("the hosts of the DSN are of different systems")

// errTwins means that nothing says which of two servers is the store.
var errTwins = errors.New("two servers take writes on the same timeline of the same system, so that one is a copy of the other")

// A sight is what one look at a host has shown.
type sight struct {
	address string
	server  server // of a standby too with the timeline; zero if that is unknown
	err     error  // why the host could not be looked at
}

// dial makes a connection as the pools do.
func (l *links) dial(ctx context.Context) (*pgx.Conn, error) {
	config := l.to.Copy()
	if l.before != nil {
		if err := l.before(ctx, config); err != nil {
			return nil, err
		}
	}
	return pgx.ConnectConfig(ctx, config)
}

// know takes the sightings of the place where connections are made: a pool that was
// handed in was prepared before the driver knew of it.
func (l *links) know(m *sightings) {
	old := l.known.Swap(m)
	if old == m {
		return
	}
	if old != nil {
		old.disuse(l)
	}
	m.use(l)
}

// meet looks at the hosts before the first connection is taken, and again after
// one has failed: the others may lead to the same server, which is not the one to
// write to any more. It does nothing if the DSN names one host.
func (l *links) meet(ctx context.Context) {
	if l.several && !l.met.Load() {
		_ = l.survey(ctx)
	}
}

// lookBefore looks at the hosts, unless that was done just now, so that the first
// host to be dialed is the one to write to.
func (l *links) lookBefore(ctx context.Context) {
	if last := l.looked.Load(); last != nil && time.Since(*last) < justNow {
		return
	}
	_ = l.survey(ctx) // what it says of a claim, the claim's own look does
}

// survey looks at all hosts before a claim, if the DSN names several. It returns
// an error if they show that no claim can be made for now. A host that does not
// answer is no reason: the claim goes to the highest timeline that does.
func (l *links) survey(ctx context.Context) error {
	if !l.several {
		return nil
	}
	sights, err := l.looks.Ask(ctx, struct{}{})
	if err != nil {
		return fmt.Errorf("looking at the hosts: %w", err)
	}
	now := time.Now()
	l.looked.Store(&now)
	for _, s := range sights {
		if s.err == nil {
			l.met.Store(true)
		}
	}
	found := compare(sights)
	for _, s := range found.old {
		l.known.Load().alarm(s.server, writesElsewhere, "address", s.address, "timeline", s.server.timeline, "timeline_of_store", found.timeline)
	}
	if found.err == nil && found.primary != "" {
		l.known.Load().prefer(found.primary)
	}
	return found.err
}

// A comparison is what the sights of all hosts say together.
type comparison struct {
	timeline uint32  // the highest that answered
	primary  string  // the host that takes writes on it; empty if there is none
	old      []sight // servers on a lower timeline that take writes
	err      error   // why no claim can be made
}

// compare finds the server that is the store. A server that is seen under
// several names is one: no two processes of one system were started at the same
// microsecond.
func compare(sights []sight) comparison {
	var c comparison
	answered := slices.DeleteFunc(slices.Clone(sights), func(s sight) bool { return s.err != nil })
	for _, s := range answered {
		c.timeline = max(c.timeline, s.server.timeline)
	}
	var first *sight
	for i, s := range answered {
		switch {
		case differ(s.server.system, answered[0].server.system):
			c.err = cmp.Or(c.err, fmt.Errorf("%w: %s is of system %s, and %s of %s", errSystems,
				answered[0].address, answered[0].server.system, s.address, s.server.system))
		case s.server.standby:
		case s.server.timeline < c.timeline:
			c.old = append(c.old, s)
		case first == nil:
			first, c.primary = &answered[i], s.address
		case first.server != s.server:
			c.err = cmp.Or(c.err, fmt.Errorf("%w: %s and %s, on timeline %d", errTwins, first.address, s.address, c.timeline))
		}
	}
	if errors.Is(c.err, errSystems) {
		c = comparison{err: c.err} // timelines of two systems have nothing to do with each other
	}
	return c
}

// lookOnce looks for one call, lookForAll for several that ask at the same time.
func (l *links) lookOnce(ctx context.Context, _ struct{}) ([]sight, error) {
	return l.lookAround(ctx, l.config.LookTimeout), nil
}

func (l *links) lookForAll(ctx context.Context, asked []struct{}) []gather.Answer[[]sight] {
	sights := l.lookAround(ctx, l.config.LookTimeout)
	answers := make([]gather.Answer[[]sight], len(asked))
	for i := range answers {
		answers[i].Value = sights
	}
	return answers
}

// lookAround looks at all hosts in parallel, and returns what each has shown
// within the limit, in the order of the DSN.
func (l *links) lookAround(ctx context.Context, limit time.Duration) []sight {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(l.looksRoot, cancel)()
	hosts := hostsOf(l.to)
	sights := make([]sight, len(hosts))
	for i, host := range hosts {
		sights[i] = sight{address: hostOf(attemptsOf(host)[0]), err: fmt.Errorf("no answer within %v", limit)}
	}
	answers := l.lookAtAll(ctx, hosts)
	for range hosts {
		select {
		case a := <-answers:
			if a.err == nil || ctx.Err() == nil {
				sights[a.host].server, sights[a.host].err = a.server, a.err
			}
		case <-ctx.Done(): // a hook of the configuration may not heed it
			return sights
		}
	}
	return sights
}

// A lookAnswer is what became of looking at one host, by its number.
type lookAnswer struct {
	host   int
	server server
	err    error
}

// lookAtAll begins to look at all hosts, unless the links are closed.
func (l *links) lookAtAll(ctx context.Context, hosts []*pgx.ConnConfig) <-chan lookAnswer {
	answers := make(chan lookAnswer, len(hosts))
	l.looksMu.Lock()
	defer l.looksMu.Unlock()
	for i, host := range hosts {
		if l.looksEnded {
			answers <- lookAnswer{host: i, err: errClosed}
			continue
		}
		l.looking.Go(func() {
			server, err := l.lookAt(ctx, host)
			answers <- lookAnswer{i, server, err}
		})
	}
	return answers
}

// endLooks ends the looks under way and waits for them.
func (l *links) endLooks() {
	l.looksMu.Lock()
	l.looksEnded = true
	l.looksMu.Unlock()
	l.endLooking()
	l.looks.Close()
	l.looking.Wait()
}

// lookAt looks at one host.
func (l *links) lookAt(ctx context.Context, host *pgx.ConnConfig) (server, error) {
	ctx = context.WithValue(ctx, lookKey{}, true)
	host.AfterConnect = nil
	if l.before != nil {
		if err := l.before(ctx, host); err != nil {
			return server{}, err
		}
	}
	conn, err := pgconn.ConnectConfig(ctx, &host.Config)
	if err != nil {
		return server{}, err
	}
	defer func() { _ = conn.Close(ctx) }()
	d := dialedOf(conn)
	if d == nil {
		return server{}, errUnprepared
	}
	l.know(d.memory)
	found := d.server
	if found.standby {
		found.timeline = standbysTimeline(ctx, conn)
		d.memory.meet(found.system, found.timeline)
	}
	return found, nil
}

// standbysTimelineSQL has no function for the timeline of what a standby has
// replayed. It returns what is known of it: the timeline of the last restart
// point, of the least that must be replayed, and of what is received. None of them is
// above the true one.
const standbysTimelineSQL = `select (select timeline_id from pg_catalog.pg_control_checkpoint()),
	(select min_recovery_end_timeline from pg_catalog.pg_control_recovery()),
	(select received_tli from pg_catalog.pg_stat_wal_receiver)`

// standbysTimeline returns the timeline that a standby follows, or zero if this
// role may not ask.
func standbysTimeline(ctx context.Context, conn *pgconn.PgConn) uint32 {
	row, err := oneTextRow(ctx, conn, standbysTimelineSQL)
	if err != nil {
		return 0
	}
	var highest uint32
	for _, text := range row {
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			highest = max(highest, uint32(n))
		}
	}
	return highest
}

// Hosts implements [driver.HostTeller]. It looks at all hosts of the DSN, in
// parallel and for two seconds at most, on connections of its own.
func (s *Store) Hosts(ctx context.Context) ([]driver.Host, error) {
	if s.root.Err() != nil {
		return nil, s.fail("hosts", errClosed, notSent)
	}
	return describe(s.lookAround(ctx, max(showTimeout, s.config.LookTimeout))), nil
}

// describe says for people what the sights of all hosts mean.
func describe(sights []sight) []driver.Host {
	found := compare(sights)
	hosts := make([]driver.Host, len(sights))
	for i, s := range sights {
		h := driver.Host{Address: s.address, Reachable: s.err == nil, System: s.server.system, Timeline: s.server.timeline}
		switch {
		case s.err != nil:
			h.Grade, h.Problem, h.Remedy = driver.Warning, oneLine(s.err), "start the server, correct what is named, or remove the host from the DSN"
		case s.server.standby:
			h.Role = "standby"
		default:
			h.Role = "primary"
		}
		hosts[i] = h
	}
	for i := range hosts {
		judgeHost(&hosts[i], found)
	}
	return hosts
}

// judgeHost adds what the comparison of all hosts says of one.
func judgeHost(h *driver.Host, found comparison) {
	switch {
	case !h.Reachable:
	case errors.Is(found.err, errSystems):
		h.Grade, h.Problem, h.Remedy = driver.Failure, found.err.Error(), onlyOneCluster
	case h.Role == "primary" && h.Timeline < found.timeline:
		h.Grade, h.Remedy = driver.Warning, shutItDown
		h.Problem = fmt.Sprintf("it still takes writes, and timeline %d has taken over from its timeline %d", found.timeline, h.Timeline)
	case h.Role == "primary" && found.err != nil:
		h.Grade, h.Problem, h.Remedy = driver.Failure, found.err.Error(), shutTheCopyDown
	}
}

const (
	onlyOneCluster  = "name only the servers of one database cluster in the DSN"
	shutItDown      = "shut the old primary down, and make it a standby before it starts again"
	shutTheCopyDown = "find out which of them has the newest commits, and shut the other one down"
)

// oneLine returns an error's text without the breaks between the hosts' errors.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
