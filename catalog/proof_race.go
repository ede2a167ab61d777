package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// prover races writes on a scratch place that nobody else knows. So every head
// that it reads there was made by itself, and every store must read the same one.
//
// Only an answer counts. A write that failed for another reason than its
// condition ends the check without a judgement: nothing that may land later is
// left in a place that is judged. An id that was sent may
// have landed although it was refused, since a client or proxy may send a write
// twice; it counts once.
type prover struct {
	stores []driver.Store
	cfg    Config
	head   driver.Head   // that every store must read
	chain  []driver.Head // of all writes that landed
	tried  []string
}

// run makes all races, in an order in which each rests on the one before.
func (c *prover) run(ctx context.Context) error {
	if len(c.stores) < 2 {
		return exitcodes.With(fmt.Errorf("a scratch place with %d stores, and a race takes two", len(c.stores)), exitcodes.Panic)
	}
	for _, race := range []func(context.Context) error{c.oneStore, c.firstClaims, c.appends, c.staleAppends, c.claimBesideAppend, c.fencedAppends, c.notes, c.readLog} {
		if err := race(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ways names the stores, each once.
func (c *prover) ways() []string {
	var names []string
	for _, s := range c.stores {
		names = append(names, s.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// oneStore has every way write a note and read those of the others, so that ways
// which lead to two stores are found before anything else is made of them.
func (c *prover) oneStore(ctx context.Context) error {
	c.tried = append(c.tried, fmt.Sprintf("%d notes, one by each way, read by every way", len(c.stores)))
	const prefix = "way "
	racers := together(c.stores, func(_ int, s driver.Store) *racer {
		r := &racer{what: "the note", via: s, next: driver.Head{Commit: driver.NewID()}}
		_, r.err = callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) (int64, error) {
			return s.Post(ctx, driver.Note{Key: prefix + r.next.Commit.String(), Value: r.note()})
		})
		return r
	})
	if err := firstUndecided(racers); err != nil {
		return err
	}
	for _, s := range c.stores {
		notes, err := callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) ([]driver.Note, error) { return s.Notes(ctx, prefix) })
		if err != nil {
			return err
		}
		for _, r := range racers {
			if r.err == nil && !slices.ContainsFunc(notes, func(n driver.Note) bool { return n.Key == prefix+r.next.Commit.String() }) {
				return c.twoWon("%v was acknowledged, and is not there by way of %s, which has %d of %d: the ways lead to several stores, or some read what is old",
					r, s, len(notes), len(racers))
			}
		}
	}
	return nil
}

func (c *prover) firstClaims(ctx context.Context) error {
	c.tried = append(c.tried, "2 first claims at once")
	first := newMeeting()
	return c.judge(ctx, together(c.stores[:2], func(_ int, s driver.Store) *racer { return c.claim(ctx, s, first) }))
}

func (c *prover) appends(ctx context.Context) error {
	c.tried = append(c.tried, fmt.Sprintf("%d commits over one head at once", len(c.stores)))
	before := c.head
	if err := c.judge(ctx, together(c.stores, func(_ int, s driver.Store) *racer { return c.append(ctx, s, before) })); err != nil {
		return err
	}
	if sameHead(before, c.head) {
		return exitcodes.With(fmt.Errorf("all of %d commits over the newest head were refused, and one should have won", len(c.stores)), exitcodes.Retry)
	}
	return nil
}

// staleAppends sends commits over the head before the last commit. None of them
// may land, so that a condition which always holds is found without any luck.
func (c *prover) staleAppends(ctx context.Context) error {
	c.tried = append(c.tried, fmt.Sprintf("%d commits over a head that had moved", len(c.stores)))
	stale := c.chain[len(c.chain)-2]
	return c.judge(ctx, together(c.stores, func(_ int, s driver.Store) *racer { return c.append(ctx, s, stale) }))
}

// claimBesideAppend has the claim come by the last way, and the first claims by the
// first ones: claims wait for each other, and take longer than all else.
func (c *prover) claimBesideAppend(ctx context.Context) error {
	c.tried = append(c.tried, "a claim and a commit at once")
	holder, claimer := c.stores[0], c.stores[len(c.stores)-1]
	return c.judge(ctx, together([]driver.Store{holder, claimer}, func(i int, s driver.Store) *racer {
		if i == 0 {
			return c.append(ctx, s, c.head)
		}
		return c.claim(ctx, s, nil)
	}))
}

// fencedAppends sends commits as a holder would that has not heard of the newest
// claim.
func (c *prover) fencedAppends(ctx context.Context) error {
	c.tried = append(c.tried, fmt.Sprintf("%d commits under a token that was fenced", len(c.stores)))
	fenced := c.head
	for _, h := range c.chain {
		if h.Claim.ID != c.head.Claim.ID {
			fenced = h // the last one before the newest claim
		}
	}
	return c.judge(ctx, together(c.stores, func(_ int, s driver.Store) *racer { return c.append(ctx, s, fenced) }))
}

// A racer is one write of a race.
type racer struct {
	what        string
	via         driver.Store
	prior, next driver.Head // that it rests on, and that it makes
	err         error       // its answer
}

func (r *racer) String() string {
	return fmt.Sprintf("%s %v by way of %s", r.what, r.next.Commit, r.via)
}

// together makes one write by each store, all at once. A store is known by its
// place: two of them may be equal.
func together(stores []driver.Store, write func(i int, s driver.Store) *racer) []*racer {
	racers := make([]*racer, len(stores))
	var racing sync.WaitGroup
	for i, s := range stores {
		racing.Go(func() { racers[i] = write(i, s) })
	}
	racing.Wait()
	return racers
}

func (c *prover) append(ctx context.Context, s driver.Store, prior driver.Head) *racer {
	rec := driver.Record{Revision: prior.Revision + 1, ID: driver.NewID(), Token: prior.Claim.Token, Payload: newPayload()}
	r := &racer{what: "the commit", via: s, prior: prior, next: prior.After(rec)}
	_, r.err = callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.Append(ctx, prior, rec)
	})
	return r
}

// A meeting has the first of two claims under way wait until the other one is
// asked for, and a moment longer: that one must not come.
type meeting struct{ asked, came turnstile }

// meetingTime is that moment.
const meetingTime = 5 * time.Millisecond

func newMeeting() *meeting { return &meeting{newTurnstile(), newTurnstile()} }

func (m *meeting) wait(ctx context.Context) {
	if m.came.pass() > 1 {
		return
	}
	select {
	case <-m.asked.two:
	case <-ctx.Done():
		return
	}
	t := time.NewTimer(meetingTime)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.came.two:
	case <-ctx.Done():
	}
}

// A turnstile counts who passes.
type turnstile struct {
	passed *atomic.Int64
	two    chan struct{} // closed once two have
}

func newTurnstile() turnstile { return turnstile{new(atomic.Int64), make(chan struct{})} }

func (t turnstile) pass() int64 {
	n := t.passed.Add(1)
	if n == 2 {
		close(t.two)
	}
	return n
}

// claim claims over the head that is there once no other claim is under way,
// on condition of notes.
func (c *prover) claim(ctx context.Context, s driver.Store, first *meeting, when ...driver.Note) *racer {
	r := &racer{what: "the claim", via: s}
	if first != nil {
		first.asked.pass()
	}
	claiming, err := callStore(ctx, c.cfg.StoreTimeout, s.Claim)
	if err != nil {
		r.err = err
		return r
	}
	defer claiming.Abandon()
	r.prior = claiming.Head()
	if first != nil {
		first.wait(ctx)
	}
	token, err := r.prior.Claim.Token.Next(1)
	if err != nil {
		r.err = exitcodes.With(err, exitcodes.Panic)
		return r
	}
	claim := claimOver(r.prior, token, fence.Holder{Name: c.cfg.Holder.Name, Build: c.cfg.Holder.Build}, "a check of the store")
	r.next = claim.Head()
	rec := driver.Record{Revision: claim.Revision, ID: claim.ID, Token: token, Payload: newPayload()}
	_, r.err = callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, claiming.Install(ctx, claim, rec, when...)
	})
	return r
}

// judge says what the answers of a race and the heads behind it mean. The writes
// that won must be one chain from the head before the race to the head behind it.
func (c *prover) judge(ctx context.Context, racers []*racer) error {
	if err := c.noTwoOverOne(racers); err != nil {
		return err
	}
	if err := firstUndecided(racers); err != nil {
		return err
	}
	newest, err := c.agreed(ctx)
	if err != nil {
		return err
	}
	left := c.follow(racers, newest)
	if !sameHead(c.head, newest) {
		return c.twoWon("the head is at revision %d, commit %v, of %v, and the newest write that was acknowledged made it revision %d, commit %v, of %v",
			newest.Revision, newest.Commit, newest.Claim.Token, c.head.Revision, c.head.Commit, c.head.Claim.Token)
	}
	for _, r := range left {
		if r.err == nil {
			return c.twoWon("%v was acknowledged over revision %d, commit %v, and should have been refused: the head was at revision %d, commit %v",
				r, r.prior.Revision, r.prior.Commit, c.head.Revision, c.head.Commit)
		}
	}
	return nil
}

// follow moves the head along the writes that landed, and returns the others.
func (c *prover) follow(racers []*racer, newest driver.Head) (left []*racer) {
	left = slices.Clone(racers)
	for {
		i := slices.IndexFunc(left, func(r *racer) bool { return sameHead(r.prior, c.head) && r.landed(racers, newest) })
		if i < 0 {
			return left
		}
		c.head = left[i].next
		c.chain, left = append(c.chain, c.head), slices.Delete(left, i, i+1)
	}
}

// landed reports whether r was acknowledged, or was seen in a head although it
// was refused: something sent it twice, and the refusal is of the second copy.
func (r *racer) landed(racers []*racer, newest driver.Head) bool {
	seen := slices.ContainsFunc(racers, func(other *racer) bool { return sameHead(other.prior, r.next) })
	return r.err == nil || seen || sameHead(r.next, newest)
}

// noTwoOverOne finds two writes that both won over one head.
func (c *prover) noTwoOverOne(racers []*racer) error {
	for i, a := range racers {
		for _, b := range racers[i+1:] {
			if a.err == nil && b.err == nil && sameHead(a.prior, b.prior) {
				return c.twoWon("%v and %v rest on the same head, revision %d, commit %v: one should have been refused, and both were acknowledged",
					a, b, a.prior.Revision, a.prior.Commit)
			}
		}
	}
	return nil
}

// firstUndecided returns an answer that is neither an acknowledgement nor a
// refusal.
func firstUndecided(racers []*racer) error {
	for _, r := range racers {
		if r.err != nil && !refusedFor(r.err) {
			return r.err
		}
	}
	return nil
}

// refusedFor reports whether err says that a condition did not hold. If its
// outcome is unknown nevertheless, another copy of the write may have landed
// before, and none will: see package driver. The heads show that.
func refusedFor(err error) bool { return errors.Is(err, driver.ErrConflict) }

// agreed reads the head by every store, and requires that all read the same.
func (c *prover) agreed(ctx context.Context) (driver.Head, error) {
	read := together(c.stores, func(_ int, s driver.Store) *racer {
		r := &racer{via: s}
		r.next, r.err = callStore(ctx, c.cfg.StoreTimeout, s.Head)
		return r
	})
	for _, r := range read {
		if r.err != nil {
			return driver.Head{}, c.unlessCorrupt(r.err)
		}
	}
	first := read[0]
	for _, r := range read[1:] {
		if !sameHead(first.next, r.next) {
			return driver.Head{}, c.twoWon("after all writes had been answered, the head was at revision %d, commit %v, by way of %s, and at revision %d, commit %v, by way of %s: all should have read the same",
				first.next.Revision, first.next.Commit, first.via, r.next.Revision, r.next.Commit, r.via)
		}
	}
	return first.next, nil
}

func sameHead(a, b driver.Head) bool {
	return a.Revision == b.Revision && a.Commit == b.Commit && a.Claim.ID == b.Claim.ID
}

// raceKey is the note for which notes race.
const raceKey = "race"

// notes races notes where there is none, and then over the one that has won. That
// one has changed by then: no further note may replace it, and no claim may rest
// on its absence.
func (c *prover) notes(ctx context.Context) error {
	c.tried = append(c.tried, fmt.Sprintf("%d notes at one key at once, where there was none, over one, and over one that had changed; and a claim on condition that there is none",
		len(c.stores)))
	first, err := c.raceNotes(ctx, 0)
	if err != nil {
		return err
	}
	second, err := c.raceNotes(ctx, first)
	if err != nil {
		return err
	}
	if first == 0 || second == first {
		return exitcodes.With(fmt.Errorf("all of %d notes over the newest one were refused, and one should have won", len(c.stores)), exitcodes.Retry)
	}
	third, err := c.raceNotes(ctx, first)
	if err != nil {
		return err
	}
	if third != second {
		return c.twoWon("the note %q was at version %d, and a note over version %d has replaced it: it should have been refused", raceKey, second, first)
	}
	return c.judgeConditional(ctx, c.claim(ctx, c.stores[0], nil, driver.Note{Key: raceKey}))
}

// raceNotes races notes over a version of one, and returns the version that is
// there then.
func (c *prover) raceNotes(ctx context.Context, over int64) (version int64, err error) {
	racers := together(c.stores, func(_ int, s driver.Store) *racer {
		r := &racer{what: "the note", via: s, next: driver.Head{Commit: driver.NewID()}}
		_, r.err = callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) (int64, error) {
			return s.Post(ctx, driver.Note{Key: raceKey, Value: r.note(), Version: over})
		})
		return r
	})
	if err := c.noTwoOverOne(racers); err != nil {
		return 0, err
	}
	if err := firstUndecided(racers); err != nil {
		return 0, err
	}
	return c.sameNote(ctx, racers)
}

// note is the value of the note that r posts.
func (r *racer) note() []byte { return []byte(`{"id":"` + r.next.Commit.String() + `"}`) }

// sameNote requires that every store reads the note that has won, and returns the
// version of the note that is there.
func (c *prover) sameNote(ctx context.Context, racers []*racer) (version int64, err error) {
	for _, s := range c.stores {
		notes, err := callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) ([]driver.Note, error) { return s.Notes(ctx, raceKey) })
		if err != nil {
			return 0, err
		}
		for _, r := range racers {
			if r.err == nil && (len(notes) != 1 || string(notes[0].Value) != string(r.note())) {
				return 0, c.twoWon("%v was acknowledged, and by way of %s there are %d others or none: %s", r, s, len(notes), values(notes))
			}
		}
		for _, n := range notes {
			version = n.Version
		}
	}
	return version, nil
}

func values(notes []driver.Note) string {
	var all []string
	for _, n := range notes {
		all = append(all, string(n.Value))
	}
	return strings.Join(all, ", ")
}

// judgeConditional requires that a claim was refused for its note.
func (c *prover) judgeConditional(ctx context.Context, r *racer) error {
	if r.err == nil {
		return c.twoWon("%v was acknowledged on condition that there is no note %q, and there is one: it should have been refused", r, raceKey)
	}
	return c.judge(ctx, []*racer{r})
}

// readLog requires that every store has the writes that won, and no others.
func (c *prover) readLog(ctx context.Context) error {
	c.tried = append(c.tried, fmt.Sprintf("a reading of the log of %d writes, by each way", len(c.chain)))
	read := make([][]driver.ID, len(c.stores))
	done := together(c.stores, func(i int, s driver.Store) *racer {
		r := &racer{via: s}
		_, r.err = callStore(ctx, c.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, s.Log(ctx, 0, func(rec driver.Record) error {
				read[i] = append(read[i], rec.ID)
				return nil
			})
		})
		return r
	})
	var want []driver.ID
	for _, h := range c.chain {
		want = append(want, h.Commit)
	}
	for i, r := range done {
		if r.err != nil {
			return c.unlessCorrupt(r.err)
		}
		if !slices.Equal(want, read[i]) {
			return c.twoWon("the log by way of %s has %v, and the writes that were acknowledged are %v", r.via, read[i], want)
		}
	}
	return nil
}

// unlessCorrupt makes a place that does not hold what was written there a
// failure of the check: nobody else knows it.
func (c *prover) unlessCorrupt(err error) error {
	if errors.Is(err, driver.ErrCorrupt) {
		return c.twoWon("what was written is not what is read: %v", err)
	}
	return err
}

// twoWon says what was tried, what was expected and what came.
func (c *prover) twoWon(format string, args ...any) error {
	return fmt.Errorf("%w: in %s, %s: do not run the service on this store: look for a copy of it, a proxy or a file system between, and a server that only claims to be compatible; then run `fencepost store check`",
		driver.ErrTwoWon, c.tried[len(c.tried)-1], fmt.Sprintf(format, args...))
}
