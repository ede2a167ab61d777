package leader

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A campaign is the time for which a process waits for the token. It observes,
// lets an [election.Candidate] decide, and does what that says. What it has
// observed and rehearsed outlives claims that fail.
type campaign struct {
	*Leader
	candidate *election.Candidate
	f         *catalog.Follower
	ready     *readiness
	detector  *detector

	holder    holderNotes   // as of the look at sent
	sent      time.Duration // by the lease's clock, as answered is; 0: not yet
	answered  time.Duration
	promotion promotionNotes // as of the newest look that consulted it
	found     election.Readiness
	consult   bool    // the next look reads the promotion too
	asked     *asking // the handover under way; nil: nobody was asked
	nudged    bool    // a promotion was asked for at this process
	alarm     alarm
	hindrance hindrance
	number    number
	nobody    holderless // the newest claim
	alone     recently   // no other process of this generation could claim

	contending func()       // stops the signs of life; nil: there are none
	decided    atomic.Int64 // when it was last decided to contend, by the lease's clock
}

// campaign follows until this process may claim, and claims. Sent is when the
// claim was begun, by the lease's clock.
func (l *Leader) campaign(ctx context.Context) (c *catalog.Catalog, sent time.Duration, err error) {
	l.move(CatchingUp, "reading the catalog")
	f, err := l.follow(ctx)
	if err != nil {
		return nil, 0, err
	}
	w := &campaign{Leader: l, f: f, ready: l.newReadiness(ctx), detector: newDetector(l), candidate: election.NewCandidate(l.cfg.election())}
	defer w.close()
	poll := time.NewTicker(l.cfg.Poll)
	defer poll.Stop()
	for {
		a, err := w.decide(ctx)
		if err != nil {
			return nil, 0, err
		}
		w.say(ctx, a)
		var again bool
		if a.Step == election.Claim {
			sent = l.lease.now()
			if c, err = w.claim(ctx, a.Claim); err == nil {
				w.unhinder(ctx)
				return c, sent, nil
			}
			again, err = w.overcome(ctx, sent, err)
		} else {
			again, err = w.do(ctx, a)
		}
		if err != nil {
			return nil, 0, err
		}
		if again {
			continue
		}
		select {
		case <-poll.C:
		case <-l.promoted:
			w.nudged = true
		case <-w.detector.wake:
		case <-w.asked.news():
		case <-w.f.Done():
			return nil, 0, w.f.Err()
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

func (w *campaign) close() {
	w.contend(context.Background(), false)
	w.asked.close()
	w.ready.close()
	w.detector.stop()
	w.showHindrance("")
	_ = w.f.Close() // its reason is known by then
}

// decide looks once, and returns what to do.
func (w *campaign) decide(ctx context.Context) (election.Action, error) {
	head, _ := w.f.Head()
	w.sees(head)
	v := election.View{
		Now:       w.lease.now(),
		Head:      election.Head{Claim: head.Claim.ID, Token: head.Claim.Token, Revision: head.Revision},
		Reluctant: w.prefersNot(), Nudged: w.nudged, Alone: w.isAlone(ctx),
	}
	v.Handover, _ = w.asked.stage()
	w.nudged = false
	if !w.candidate.Asked() {
		if err := w.look(ctx, head, &v); err != nil {
			return election.Action{}, err
		}
	}
	w.seen(&v.Board)
	v.Ready, w.found.Level = w.found, election.Basic
	v.Now = w.lease.now()
	a := w.candidate.Next(v)
	if v.Board.Readable && a.Step != election.Claim && w.hindrance.outlived(w.Leader) {
		w.unhinder(ctx)
	}
	return a, nil
}

// look reads the board, and examines at the least what every look does. A board
// that can't be read is no error.
func (w *campaign) look(ctx context.Context, head driver.Head, v *election.View) error {
	v.Board.Readable = true
	switch err := w.read(ctx, head, &v.Board); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && exitcodes.Of(err) != exitcodes.Retry:
		return err
	case err != nil:
		w.log.DebugContext(ctx, "the board can't be read", "err", err)
		v.Board.Readable = false
		return nil
	}
	v.Board.Sent, v.Board.Answered = w.sent, w.answered
	beat := w.holder.beat.Value
	w.detector.at(ctx, head.Claim.ID, beat)
	v.Death, _ = w.detector.dead(head.Claim.ID)
	if beat.Claim != head.Claim.ID && w.nobody.check(ctx, w.Leader, head.Claim.ID) {
		v.Raised = cmp.Or(head.Claim.Holder.Name, "an unnamed tool")
	}
	v.Reachable = beat.Claim == head.Claim.ID && beat.reach(w.host) != ""
	if w.found.Level > election.Basic { // just now
		return nil
	}
	taken := w.number.take(ctx, w.Leader) // as early as can be
	var err error
	if w.found, err = w.ready.examine(ctx, w.f, election.Basic, nil); err == nil && taken != nil && w.found.Missing == "" {
		w.found.Missing = taken.Error()
	}
	return err
}

// A recently is an answer that is used again for a while.
type recently struct {
	yes  bool
	next time.Duration // when to ask again, by the lease's clock
}

// isAlone reports whether this process need not wait for others of its generation
// to claim first, since there are none. Members that can't be listed may be there.
func (w *campaign) isAlone(ctx context.Context) bool {
	now := w.lease.now()
	if w.cfg.delay(w.prefersNot()) == 0 || now < w.alone.next || w.candidate.Asked() {
		return w.alone.yes
	}
	w.alone.next = now + min(memberPace, w.cfg.heartbeat())
	bounded, cancel := context.WithTimeout(ctx, w.cfg.heartbeat())
	defer cancel()
	list, err := ReadMembers(bounded, w.store, w.cfg.boardConfig())
	mine := w.Status().Member
	w.alone.yes = err == nil && list.Broken == 0 && !slices.ContainsFunc(list.Members, func(m Member) bool {
		return m.Generation == w.cfg.Catalog.Generation && m.ID != mine && m.Token == nil
	})
	return w.alone.yes
}

// read reads what the decision needs. A standby watches the holder, and consults
// the promotion if told to. A process of a higher generation watches the
// promotion; until it is promoted, it looks at the holder once in a while.
func (w *campaign) read(ctx context.Context, head driver.Head, b *election.Board) (err error) {
	mine, now := w.cfg.Catalog.Generation, w.lease.now()
	standby := head.Claim.Token.Generation == mine
	b.Consulted = w.consult || !standby
	w.consult = false
	watch := standby || w.answered == 0 || now-w.sent >= w.cfg.heartbeat()/2 || w.holder.beat.Value.Claim != head.Claim.ID
	if b.Consulted {
		if w.promotion, err = w.readPromotion(ctx); err != nil {
			return err
		}
	}
	if watch || w.promotion.intent.Value.Generation == mine {
		sent := w.lease.now()
		if w.holder, err = w.readHolder(ctx); err != nil {
			return err
		}
		w.sent, w.answered = sent, w.lease.now()
	}
	return nil
}

// seen translates what the newest look has found.
func (w *campaign) seen(b *election.Board) {
	beat, offer := w.holder.beat.Value, w.holder.offer.Value
	b.Heartbeat = election.Heartbeat{Claim: beat.Claim, Seq: beat.Seq, Left: beat.Left}
	b.Offer = election.Offer{Claim: offer.Claim, To: offer.To, Open: offer.Open}
	intent, rival := w.promotion.intent.Value, w.promotion.contender.Value
	b.Intent = election.Intent{Generation: intent.Generation, By: intent.By + because(intent.Reason()), Aborted: intent.aborts(w.cfg.Catalog.Generation)}
	b.Contender = election.Contender{Generation: rival.Of, Seq: rival.Seq}
}

// say shows how the process stands: in its phase, its reason and its log.
func (w *campaign) say(ctx context.Context, a election.Action) {
	w.contend(ctx, a.Contend)
	w.alarm.set(ctx, w.log, w.lease.now(), w.cfg.Lease, a.Alarm)
	phase := w.Status().Phase
	switch {
	case a.Step == election.Ask || a.Step == election.Claim:
		if phase == CatchingUp {
			w.move(ReadyToPromote, a.Reason)
		}
		if phase != Promoting {
			w.move(Promoting, a.Reason)
		}
	case phase == Promoting && w.candidate.Asked() && a.Step != election.Resume:
		w.because(a.Reason)
	case phase == Promoting:
		w.move(CatchingUp, a.Reason)
	case a.Ready && phase == CatchingUp:
		w.move(ReadyToPromote, a.Reason)
	case !a.Ready && phase == ReadyToPromote:
		w.move(CatchingUp, a.Reason)
	default:
		w.because(a.Reason)
	}
}

// do does what needs no claim. Again: look at once.
func (w *campaign) do(ctx context.Context, a election.Action) (again bool, err error) {
	switch a.Step {
	case election.Consult:
		w.consult = true
	case election.Examine:
		return true, w.examine(ctx, a.Level)
	case election.Promote:
		_, err := Promote(ctx, w.store, w.cfg.boardConfig(), w.cfg.Catalog.Generation, PromoteOptions{By: "itself", Force: true})
		if err != nil && ctx.Err() == nil && !refusal(err) && exitcodes.Of(err) != exitcodes.Retry {
			return false, err
		}
		return err == nil, nil
	case election.Ask:
		w.asked = w.ask(ctx)
	case election.Resume:
		w.log.InfoContext(ctx, "the holder goes on", "reason", a.Reason)
		w.giveUp()
		return false, nil
	default:
		return false, nil
	}
	return true, nil
}

// examine asks anew whether this process could lead. While a holder waits for
// the answer, it is told that this process works on it, and its going on ends
// the question.
func (w *campaign) examine(ctx context.Context, level election.Level) error {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	if level == election.Final {
		stop := context.AfterFunc(w.asked.ctx, cancel)
		defer stop()
	}
	found, err := w.ready.examine(asking, w.f, level, w.asked.progress)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		return nil // the holder goes on: the next look says so
	}
	w.found = found
	return err
}

// giveUp ends the handover without a claim.
func (w *campaign) giveUp() {
	w.asked.close()
	w.asked = nil
	w.candidate.Over(w.lease.now())
}

// claim claims on the conditions that were decided.
func (w *campaign) claim(ctx context.Context, cond election.Conditions) (*catalog.Catalog, error) {
	began := w.lease.now()
	opts := catalog.ClaimOptions{
		IfClaim: cond.Over, IfNeverClaimed: cond.Never, IfLower: cond.Lower, Reason: cond.Reason,
		Retrying: func(err error) { w.hinder(ctx, began, err) },
	}
	for _, n := range cond.Notes {
		opts.IfNotes = append(opts.IfNotes, w.note(n))
	}
	return w.f.Open(ctx, opts)
}

// note returns a note at the version that was judged.
func (w *campaign) note(n election.Note) driver.Note {
	switch n {
	case election.NoteIntent:
		return w.promotion.intent.Note()
	case election.NoteHeartbeat:
		return w.holder.beat.Note()
	default:
		if _, version := w.asked.stage(); version != 0 {
			return driver.Note{Key: offerKey, Version: version}
		}
		return w.holder.offer.Note() // as it was before the holder was asked
	}
}

// overcome returns nil if the process goes on waiting behind a claim that failed
// with err. Again: a claim that failed in passing disturbed nobody who lives, and
// is tried again at once. It began at began.
func (w *campaign) overcome(ctx context.Context, began time.Duration, err error) (again bool, end error) {
	paused := w.asked != nil
	w.giveUp()
	switch {
	case errors.Is(err, catalog.ErrRefused), errors.Is(err, fence.ErrFenced) && !errors.Is(err, fence.ErrSuperseded):
		w.log.InfoContext(ctx, "the claim came too late", "err", err)
		w.unhinder(ctx)
		again = true
	case exitcodes.Of(err) == exitcodes.Retry && ctx.Err() != nil:
		return false, context.Cause(ctx)
	case exitcodes.Of(err) == exitcodes.Retry: // to start anew would only come here again
		w.log.WarnContext(ctx, "the claim did not succeed, and is tried again", "store", w.store.String(), "err", err)
		w.hinder(ctx, began, err)
		again = !paused
	default:
		return false, err
	}
	w.move(CatchingUp, exitcodes.OneLine(err.Error()))
	f, end := w.f.Again(ctx)
	if end == nil {
		w.f = f
		return again, nil
	}
	if exitcodes.Of(end) != exitcodes.Retry || ctx.Err() != nil {
		return false, end
	}
	if f, end = w.follow(ctx); end == nil {
		w.f = f
	}
	return again, end
}

// contend begins or ends the signs of life of a process that is about to claim
// for the promoted generation.
func (w *campaign) contend(ctx context.Context, on bool) {
	w.decided.Store(int64(w.lease.now()))
	switch {
	case !on && w.contending != nil:
		w.contending()
		w.contending = nil
	case on && w.contending == nil:
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { w.signOfLife(ctx) })
		w.contending = func() { cancel(); wg.Wait() }
	}
}

// signOfLife posts one sign every heartbeat. A process that has been busy for longer
// than a lease posts none: standbys of the holder need not wait for its migrations.
func (w *campaign) signOfLife(ctx context.Context) {
	for again := true; again; again = elapse(ctx, w.cfg.heartbeat()) {
		if w.lease.now()-time.Duration(w.decided.Load()) > w.cfg.Lease {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, w.cfg.heartbeat())
		_, err := catalog.UpdateNote(bounded, w.board, contenderKey, func(c *contender) error {
			if c.Of > w.cfg.Catalog.Generation {
				return catalog.ErrUnchanged
			}
			*c = contender{Of: w.cfg.Catalog.Generation, Seq: c.Seq + 1, At: now()}
			return nil
		})
		cancel()
		if err != nil && ctx.Err() == nil {
			w.log.DebugContext(ctx, "lower generations were not told that this process is about to claim", "err", err)
		}
	}
}

// An alarm is logged at once, and again with growing distance while it stands.
type alarm struct {
	text string
	next time.Duration
	gap  time.Duration
}

// set notes what the alarm is; empty: there is none.
func (a *alarm) set(ctx context.Context, log *slog.Logger, now, first time.Duration, text string) {
	switch {
	case text == "" && a.text != "":
		log.InfoContext(ctx, "the alarm has ended", "alarm", a.text)
		*a = alarm{}
		return
	case text == "" || a.text != "" && now < a.next:
		return
	}
	a.gap = min(max(first, 2*a.gap), time.Hour)
	a.text, a.next = text, now+a.gap
	log.ErrorContext(ctx, text)
}
