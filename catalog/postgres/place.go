package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
)

// errStandby means that this server takes no writes, so that what it shows
// may be old.
var errStandby = errors.New("this server is a standby, in recovery")

// errTimeline means that this server was left behind by a fail-over.
var errTimeline = errors.New("this server has an older timeline than one already seen")

// errElsewhere means that the newest claim was not made in this database
// cluster: this is a copy of the one where it was, or another one altogether.
var errElsewhere = errors.New("the newest claim was made on another system")

// errMoved means that two statements in a row were answered by two servers.
var errMoved = errors.New("the server changed between two looks at it")

// A place is a server on which this store may go on. Whoever finds the same
// server process and claim need not look again: only a claim moves the stamp
// beside the token, and only a start of the server changes its system identifier
// or, once it takes writes, its timeline.
type place struct {
	started time.Time // the server's process, which so has a name
	claim   driver.ID // whose stamp was looked at
	system  string
}

// stampSQL reads what the newest claim said of its server, and what this one
// is.
const stampSQL = `select pg_catalog.pg_postmaster_start_time(), ` + systemSQL + `, t.system_id, t.timeline, t.claim_id,
	t.generation, t.epoch, ` + copiedSQL + ` from fencepost.token t where t.catalog = $1`

// copiedSQL is true if the row was not written by a claim in this database (see
// guardSQL). A row of a build that knew no guards has no stamp, or no such column.
const copiedSQL = `coalesce(pg_catalog.to_jsonb(t) ->> 'stamp' <> pg_catalog.concat(t.xmin, ':', t.tableoid, ':',
	(select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())), false)`

const systemSQL = `(select system_identifier::text from pg_catalog.pg_control_system())`

// timelineSQL is the timeline of the next write, as a number.
const timelineSQL = `('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::bigint`

// A stamp is what a claim left beside its token.
type stamp struct {
	system     string
	timeline   int64
	claim      driver.ID
	generation int64
	epoch      int64
	copied     bool // a dump has brought it
}

func (s stamp) token() string { return fmt.Sprintf("g%d.e%d", s.generation, s.epoch) }

// admit refuses a server that can't be trusted to have the newest head: a
// standby, one with an older timeline than one that this store has seen, and
// one that is not where the newest claim was made.
func (s *Store) admit(ctx context.Context, q querier, st state) error {
	if err := s.admitServer(st); err != nil {
		return s.orElsewhere(ctx, q, err)
	}
	if st.head.IsZero() {
		return nil // nobody has said yet where this catalog is
	}
	if known := s.place.Load(); known != nil && known.started.Equal(st.started) && known.claim == st.head.Claim.ID {
		return nil
	}
	return s.recognize(ctx, q, st)
}

// admitServer says what admit does of the server alone.
func (s *Store) admitServer(st state) error {
	if st.standby {
		return errStandby
	}
	if seen := s.known.Load().highest(); st.timeline < seen {
		return fmt.Errorf("%w: %d, seen was %d", errTimeline, st.timeline, seen)
	}
	return nil
}

// orElsewhere returns err, unless it is about the timelines of two systems,
// which have nothing to do with each other: waiting would not help.
func (s *Store) orElsewhere(ctx context.Context, q querier, err error) error {
	known := s.place.Load()
	if known == nil || !errors.Is(err, errTimeline) {
		return err
	}
	var system string
	if failed := q.QueryRow(ctx, `select `+systemSQL, s.args()...).Scan(&system); failed != nil || system == known.system {
		return err
	}
	return fmt.Errorf("%w: on %s, and this server is %s", errElsewhere, known.system, system)
}

// recognize holds the stamp beside the token against the server.
func (s *Store) recognize(ctx context.Context, q querier, st state) error {
	var started time.Time
	var system string
	var was stamp
	err := q.QueryRow(ctx, stampSQL, s.args(s.catalog)...).Scan(&started, &system, &was.system, &was.timeline,
		(*[16]byte)(&was.claim), &was.generation, &was.epoch, &was.copied)
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("%w: fencepost.head has catalog %q, fencepost.token has no row", driver.ErrCorrupt, s.catalog)
		return s.orHidden(ctx, q, err)
	}
	if err != nil {
		return err
	}
	if !started.Equal(st.started) {
		return errMoved
	}
	if driver.Adopts(ctx) {
		return nil // and not remembered: it is the claim to come that makes this the place
	}
	if err := was.judge(system, st.timeline); err != nil {
		return err
	}
	if int64(st.timeline) > was.timeline {
		s.log.Warn("the server was promoted, or restored, since the newest claim: unless its standby was synchronous, later claims and commits may be lost; if a process finds that, no process claims until `fencepost restored`",
			"store", s.name, "token", was.token(), "timeline_of_claim", was.timeline, "timeline", st.timeline)
	}
	s.place.Store(&place{started, was.claim, system})
	s.known.Load().settle(system, st.timeline)
	return nil
}

// judge says whether a server may go on where a claim was made.
func (s stamp) judge(system string, timeline uint32) error {
	switch {
	case s.system != system:
		return fmt.Errorf("%w: %s on system %s, and this server is %s", errElsewhere, s.token(), s.system, system)
	case s.copied:
		return fmt.Errorf("%w: %s was claimed in another database", ErrCopied, s.token())
	case int64(timeline) < s.timeline:
		return fmt.Errorf("%w: %d, and %s was claimed on %d", errTimeline, timeline, s.token(), s.timeline)
	}
	return nil
}
