package leader

import (
	"context"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// The bounds of a member's writes.
const (
	memberPace  = time.Second            // between two writes, unless a lease is shorter
	memberAgain = time.Minute            // behind a write that failed for a reason that does not pass by itself
	memberLeave = 500 * time.Millisecond // for the removal of the note when the process ends
)

// A membership keeps the note of this process on the board, and removes the notes of
// dead processes while this one holds the token. Nothing rests on it, and it holds up
// nobody: it runs beside the phases, under time-outs of its own.
type membership struct {
	*Leader
	id string

	written Member        // the newest write
	at      time.Duration // of that write, by the lease's clock
	not     time.Duration // no write before then, behind one that failed
	seq     uint64        // of the newest try
	others  census
}

// enroll keeps this process on the board until leave is called, which removes its note
// and joins. A catalog that nobody ever claimed gets no note: the first claim is not to
// find that somebody else is creating the store.
func (l *Leader) enroll(ctx context.Context) (leave func()) {
	m := &membership{Leader: l, id: driver.NewID().String()}
	l.mu.Lock()
	l.status.Member = m.id
	l.mu.Unlock()
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.keep(keeping)
	}()
	return func() {
		stop()
		<-done
		m.leave(ctx)
	}
}

// keep writes whenever something has changed, at most once a second, and else once a
// lease.
func (m *membership) keep(ctx context.Context) {
	pace := time.NewTicker(min(memberPace, m.cfg.Lease))
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
			m.post(ctx)
			m.sweep(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// post writes the note if that is due. Nothing is written beside a claim of this
// process, or of the one that it hands over to: the claim needs the store.
func (m *membership) post(ctx context.Context) {
	s := m.Status()
	next := m.memberOf(m.id, s)
	now := m.lease.now()
	due := next.differs(m.written) || now-m.at >= m.cfg.Lease
	if s.Leader == nil || s.Phase == Promoting || s.Phase == HandingOver || now < m.not || !due {
		return
	}
	m.seq++
	next.Seq, next.Revision, next.At = m.seq, s.Revision, time.Now().UTC().Truncate(time.Microsecond)
	bounded, cancel := context.WithTimeout(ctx, m.cfg.heartbeat())
	defer cancel()
	_, err := catalog.UpdateNote(bounded, m.board, memberPrefix+m.id, func(note *Member) error { *note = next; return nil })
	if err == nil {
		m.written, m.at, m.not = next, now, 0
		return
	}
	m.not = m.lease.now() + m.cfg.heartbeat()
	if exitcodes.Of(err) > exitcodes.Retry {
		m.not += memberAgain
	}
	if ctx.Err() == nil {
		m.log.DebugContext(ctx, "the board does not show this process as it is", "err", err)
	}
}

// leave removes the note, if there may be one.
func (m *membership) leave(ctx context.Context) {
	if m.seq == 0 {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(memberLeave, m.cfg.heartbeat()))
	defer cancel()
	note, err := catalog.ReadNote[Member](bounded, m.board, memberPrefix+m.id)
	if err == nil && note.Version != 0 {
		err = catalog.RemoveNote(bounded, m.board, note)
	}
	if err != nil {
		m.log.DebugContext(ctx, "the board shows this process until the holder removes it", "err", err)
	}
}

// sweep removes, once a lease, the notes of processes that were not heard for three
// leases. Only the holder does, so that members cost nobody else more than their own
// writes, and nobody removes what another one is removing.
func (m *membership) sweep(ctx context.Context) {
	now := m.lease.now()
	if m.holding() == nil {
		m.others = census{}
		return
	}
	if now-m.others.at < m.cfg.Lease {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, m.cfg.heartbeat())
	defer cancel()
	notes, _, err := m.board.NotesAfter(bounded, memberPrefix, "", MaxMembers)
	if err == nil {
		err = m.board.RemoveNotes(bounded, m.others.count(now, notes, m.cfg.Lease))
	} else {
		m.others = census{at: now} // what the members wrote meanwhile is not known
	}
	if err != nil && ctx.Err() == nil {
		m.log.DebugContext(ctx, "notes of dead processes were not removed", "err", err)
	}
}

// A census knows for how long each note has stood as it is. It reads no clock, and no
// time of a note: only a change of a note is a sign of life.
type census struct {
	at   time.Duration // of the newest look
	seen map[string]sighted
}

// A sighted is a note as it was seen, and for how long without a change.
type sighted struct {
	version int64
	silent  time.Duration
}

// count takes what a look at now has found, and returns the notes that have not changed
// for three leases: of their writer or of this process, whichever is longer. Of the time
// between two looks it counts one lease at most: a process that was frozen meanwhile has
// heard nobody.
func (c *census) count(now time.Duration, notes []driver.Note, lease time.Duration) (dead []driver.Note) {
	passed := min(now-c.at, lease)
	next := census{at: now, seen: make(map[string]sighted, len(notes))}
	for _, n := range notes {
		m, _ := parseMember(n)
		is := sighted{version: n.Version}
		if was, ok := c.seen[n.Key]; ok && was.version == n.Version {
			is.silent = was.silent + passed
		}
		if is.silent >= unheard*max(lease, m.lease()) {
			dead = append(dead, n)
			continue
		}
		next.seen[n.Key] = is
	}
	*c = next
	return dead
}
