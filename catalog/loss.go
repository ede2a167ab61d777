package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A Loss is the record that the store has lost acknowledged commits. The process
// that finds the loss writes the record into the store, and every claim compares
// it. While a loss stands, no claim passes. Later versions may add fields to its
// text form, in JSON, and keep those that they don't know.
type Loss struct {
	ID   driver.ID `json:"id"`
	What string    `json:"what"` // what the finder compared, for people

	// From and To are the first and the last revision that are known to be
	// lost. The store went back to the revision before From.
	From  uint64      `json:"from_revision"`
	To    uint64      `json:"to_revision"`
	Token fence.Token `json:"token"` // the highest that any finder had seen

	Head  driver.ID   `json:"head_claim"` // the claim that the head bore instead; zero: nobody's
	Left  fence.Token `json:"head_token"` // and its token
	By    string      `json:"found_by"`
	At    time.Time   `json:"found_at"` // by the finder's clock
	Place string      `json:"place"`    // the server, cluster or file on which it was found

	// Overtaken: a holder had claimed by the time that the loss was to be
	// recorded, so it forbids no claim. That holder logs it as an error.
	Overtaken bool `json:"overtaken,omitempty"`

	Ended *LossEnd `json:"ended,omitempty"` // nil while nobody has dealt with it
}

// A LossEnd says how a loss ended.
type LossEnd struct {
	How   string      `json:"how"` // [LossRestored], [LossAccepted] or [LossDismissed]
	By    string      `json:"by"`
	At    time.Time   `json:"at"`
	Token fence.Token `json:"token,omitzero"` // of the claim that ended it, if one did
}

// The ways in which a loss ends.
const (
	LossRestored  = "restored"  // the token was raised above it: see Raise
	LossAccepted  = "accepted"  // a claim was made under Config.AcceptLoss
	LossDismissed = "dismissed" // a person said that it was none
)

// Stands reports whether the loss forbids claims.
func (l Loss) Stands() bool { return l.Ended == nil && !l.Overtaken }

// Open reports whether nobody has dealt with the loss yet.
func (l Loss) Open() bool { return l.Ended == nil }

// ledger is the record of losses as it is stored: oldest first.
type ledger struct {
	Losses []Loss `json:"losses"`
}

// What a ledger keeps: a store takes notes of 256 KiB at least.
const (
	maxLosses   = 100
	maxLossText = 600 // of What and By each, in bytes
)

func readLedger(l driver.Losses) (led ledger, err error) {
	if len(l.Text) == 0 {
		return ledger{}, nil
	}
	if err := json.Unmarshal(l.Text, &led); err != nil {
		return ledger{}, exitcodes.With(fmt.Errorf("%w: the record of losses: %w", driver.ErrCorrupt, err), exitcodes.Panic)
	}
	return led, nil
}

// text encodes the ledger. Of more than maxLosses, the oldest that have ended go.
func (led ledger) text() ([]byte, error) {
	for len(led.Losses) > maxLosses {
		oldest := max(slices.IndexFunc(led.Losses, func(l Loss) bool { return !l.Stands() }), 0)
		led.Losses = slices.Delete(slices.Clone(led.Losses), oldest, oldest+1)
	}
	return json.Marshal(led)
}

func (led ledger) standing() (found []Loss) {
	for _, l := range led.Losses {
		if l.Stands() {
			found = append(found, l)
		}
	}
	return found
}

// end returns the ledger with every loss that is open ended.
func (led ledger) end(by LossEnd) ledger {
	led.Losses = slices.Clone(led.Losses)
	for i := range led.Losses {
		if led.Losses[i].Open() {
			led.Losses[i].Ended = &by
		}
	}
	return led
}

func (led ledger) open() bool { return slices.ContainsFunc(led.Losses, Loss.Open) }

// add adds a loss, or makes it part of one that stands over the same head: two
// processes found the same one, or one was sent twice.
func (led ledger) add(l Loss) (_ ledger, id driver.ID) {
	led.Losses = slices.Clone(led.Losses)
	for i := range led.Losses {
		known := &led.Losses[i]
		if known.ID != l.ID && (!known.Open() || known.Overtaken != l.Overtaken || known.Head != l.Head) {
			continue
		}
		if l.Token.Compare(known.Token) > 0 {
			known.Token = l.Token
		}
		known.From, known.To = min(known.From, l.From), max(known.To, l.To)
		return led, known.ID
	}
	led.Losses = append(led.Losses, l)
	return led, l.ID
}

// Losses returns every loss that was recorded, oldest first. It writes nothing and
// needs no token. A failure in passing is tried again within a Config's default
// RetryBudget.
func Losses(ctx context.Context, store driver.Store) (losses []Loss, err error) {
	err = readAgain(ctx, store, func(ctx context.Context, w *witness, _ func()) error {
		record, err := w.Store.Losses(ctx)
		if err != nil {
			return err
		}
		led, err := readLedger(record)
		losses = led.Losses
		return err
	})
	return losses, err
}

// DismissLoss records that a loss was none, as of by, so that claims pass again.
// It needs no token. If the loss doesn't stand any more, or has changed
// meanwhile, nothing is written, and the error wraps [ErrRefused].
func DismissLoss(ctx context.Context, store driver.Store, cfg Config, loss Loss, by string) error {
	b := NewBoard(store, cfg)
	end := LossEnd{How: LossDismissed, By: cut(by), At: now()}
	return b.persist(ctx, func(ctx context.Context) error {
		record, err := b.store.Store.Losses(ctx)
		if err != nil {
			return err
		}
		led, err := readLedger(record)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(led.Losses, func(l Loss) bool { return l.ID == loss.ID })
		switch {
		case i < 0:
			return &final{conditionFailed("no loss %v is recorded in %s", loss.ID, store)}
		case led.Losses[i].Ended != nil && *led.Losses[i].Ended == end: // by an earlier try
			return nil
		case !led.Losses[i].same(loss):
			return &final{conditionFailed("the loss %v has changed since it was read: look at the status, and judge anew", loss.ID)}
		}
		led.Losses[i].Ended = &end
		if record.Text, err = led.text(); err != nil {
			return err
		}
		_, err = b.store.Store.PutLosses(ctx, record, nil)
		return err
	})
}

// same reports whether nothing was added to the loss, and nobody ended it.
func (l Loss) same(as Loss) bool {
	return l.Ended == nil && as.Ended == nil && l.From == as.From && l.To == as.To && l.Token == as.Token && l.Overtaken == as.Overtaken
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// cut bounds a text, at the end of a character.
func cut(text string) string {
	if len(text) > maxLossText {
		text = text[:maxLossText]
	}
	return strings.ToValidUTF8(text, "")
}

// String says what was lost, and what a person can do.
func (l Loss) String() string {
	over := "over a catalog that nobody had claimed"
	if !l.Head.IsZero() {
		over = fmt.Sprintf("over %v", l.Left)
	}
	return fmt.Sprintf("%s were lost %s, found by %s at %s on %s (loss %v: %s)",
		l.Revisions(), over, l.By, l.At.Format(time.RFC3339), l.Place, l.ID, l.What)
}

// Revisions says which revisions were lost, under which token.
func (l Loss) Revisions() string {
	if l.To <= l.From {
		return fmt.Sprintf("the commits from revision %d on, under %v", l.From, l.Token)
	}
	return fmt.Sprintf("the commits from revision %d to %d, up to %v", l.From, l.To, l.Token)
}

// remedy names the commands that end the loss.
func (l Loss) remedy() string {
	return fmt.Sprintf("compare the store with its replicas and backups; then `fencepost restored --above %v` goes on from what is left, and `fencepost restored --dismiss=%v` says that nothing was lost", l.Token, l.ID)
}

// forbid returns an error if losses stand.
func forbid(store fmt.Stringer, standing []Loss) error {
	if len(standing) == 0 {
		return nil
	}
	texts := make([]string, len(standing))
	for i, l := range standing {
		texts[i] = l.String()
	}
	return exitcodes.WithCode(fmt.Errorf("%w in %s: %s: nothing was written: %s",
		ErrLossStands, store, strings.Join(texts, "; "), standing[len(standing)-1].remedy()), exitcodes.Config)
}

// admitLosses refuses a claim while a loss stands, unless losses are accepted.
func (c *claimer) admitLosses(claiming driver.Claiming) error {
	led, err := readLedger(claiming.Losses())
	if err != nil || c.cfg.AcceptLoss {
		return err
	}
	return forbid(c.store, led.standing())
}

// CheckClaim returns the error with which a claim by this follower would end
// whenever it is made, or nil: because a loss stands ([ErrLossStands]), or because
// another build has this generation ([ErrIncompatible]). It asks the store once,
// and excludes nothing: only the claim itself does.
func (f *Follower) CheckClaim(ctx context.Context) error {
	if head, _ := f.Head(); head.Claim.Token.Generation == f.r.cfg.Generation {
		if err := sameBuild(head.Claim, f.r.cfg); err != nil {
			return err
		}
	}
	record, err := callStore(ctx, f.r.cfg.StoreTimeout, f.r.store.Losses)
	if err != nil {
		return err
	}
	led, err := readLedger(record)
	if err != nil || f.r.cfg.AcceptLoss {
		return err
	}
	return forbid(f.r.store, led.standing())
}

// endLosses has the claim end, in its own commit, the losses that it is made over.
func endLosses(claiming driver.Claiming, how string, by driver.Claim) error {
	led, err := readLedger(claiming.Losses())
	if err != nil {
		return err
	}
	if stands := len(led.standing()) > 0; !stands && (how == LossAccepted || !led.open()) {
		return nil // what forbids no claim stays an alarm until a person has looked
	}
	by.Holder.Since = time.Time{} // At says it
	text, err := led.end(LossEnd{How: how, By: cut(by.Holder.String()), At: now(), Token: by.Token}).text()
	if err != nil {
		return err
	}
	claiming.ReplaceLosses(text)
	return nil
}

// A lostError says which acknowledged commits the store has lost.
type lostError struct {
	text string
	loss Loss
	had  driver.Head // what the finder knew of
	head driver.Head // the head that shows it

	outcome atomic.Pointer[string] // of the writing of the record; nil before the end of that
}

func (e *lostError) Error() string {
	text := fmt.Sprintf("catalog: %v: %s: compare the store with its replicas and backups before anything writes again", ErrLostCommit, e.text)
	if outcome := e.outcome.Load(); outcome != nil {
		text += ": " + *outcome
	}
	return text
}

func (e *lostError) Unwrap() error                      { return ErrLostCommit }
func (e *lostError) Disposition() exitcodes.Disposition { return exitcodes.Panic }

// reportLoss writes the loss that err tells of into the store. From then on err
// says what became of that. It takes a StoreTimeout at most, also after ctx has
// ended: the process is about to. It returns err, and does nothing about one that
// tells of no loss.
func (w *witness) reportLoss(ctx context.Context, cfg Config, err error) error {
	var lost *lostError
	if !errors.As(err, &lost) || lost.outcome.Load() != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.StoreTimeout)
	defer cancel()
	r := reporter{store: w.Store, cfg: cfg, had: lost.had, found: lost.head, head: lost.head, loss: lost.loss}
	if r.loss.Token.IsZero() { // of a reader that has not read the head's claim
		r.loss.Token = w.highest().Claim.Token
	}
	r.loss.ID, r.loss.What, r.loss.By, r.loss.At = driver.NewID(), cut(lost.text), cut(cfg.Holder.String()), now()
	failed := r.persist(ctx)
	var outcome string
	switch {
	case errors.Is(failed, errShownAgain):
		outcome = failed.Error()
	case failed != nil:
		outcome = unrecorded(failed, r.loss.Token)
	case r.loss.Overtaken:
		outcome = fmt.Sprintf("another process has claimed since, and is told (loss %v)", r.loss.ID)
	default:
		outcome = fmt.Sprintf("recorded as loss %v, so that no process claims until a person has looked: `fencepost restored --above %v`, or `fencepost restored --dismiss=%v` if nothing was lost", r.loss.ID, r.loss.Token, r.loss.ID)
	}
	cfg.Logger.ErrorContext(ctx, "the store has lost acknowledged commits", "store", w.String(), "loss", r.loss.ID.String(),
		"from", r.loss.From, "to", r.loss.To, "token", r.loss.Token.String(), "recorded", failed == nil)
	lost.outcome.Store(&outcome)
	return err
}

// unrecorded says what follows from a loss that may not be in the store.
func unrecorded(failed error, token fence.Token) string {
	whether := "this could not be written into the store"
	if driver.OutcomeOf(failed) == driver.Unknown {
		whether = "whether this was written into the store is not known"
	}
	return fmt.Sprintf("%s (%v): if fencepost status shows no loss, a process that is started anew claims over what is left: end it, and run `fencepost restored --above %v`", whether, failed, token)
}

// reporter writes one loss.
type reporter struct {
	store driver.Store
	cfg   Config
	had   driver.Head // what the finder knew of
	found driver.Head // the head that showed the loss
	head  driver.Head // that head, or the one to which it was moved since
	loss  Loss

	version  int64 // of the record of losses that the last try was made on
	anywhere bool  // the record needs no head: the loss is overtaken, and that holder goes on committing
}

// persist tries until the loss is written, or can't be.
func (r *reporter) persist(ctx context.Context) error {
	pace := newPace(r.cfg.StoreTimeout)
	for lies := 0; ; {
		before := r.version
		err := r.try(ctx)
		if err == nil {
			return nil
		}
		again := transient(err) || driver.OutcomeOf(err) == driver.Unknown
		if errors.Is(err, driver.ErrConflict) {
			moved, herr := r.follow(ctx)
			switch {
			case herr != nil && !transient(herr):
				return herr
			case herr == nil && !moved && r.version == before:
				lies++ // nobody else has written: the head was never the store's
			}
			again = lies < maxLies
		}
		if !again || !pace.wait(ctx) {
			return err
		}
	}
}

// maxLies is how often a write of the record may be refused though nothing has
// changed.
const maxLies = 5

// try writes the loss once. The same one may be written again.
func (r *reporter) try(ctx context.Context) error {
	record, err := r.store.Losses(ctx)
	if err != nil {
		return err
	}
	r.version = record.Version
	led, err := readLedger(record)
	if err != nil {
		return err
	}
	loss := r.loss
	loss.Place = record.Place
	led, id := led.add(loss)
	text, err := led.text()
	if err != nil {
		return err
	}
	at := &r.head
	if r.anywhere {
		at = nil
	}
	r.loss.Place, record.Text = record.Place, text
	if _, err := r.store.PutLosses(ctx, record, at); err != nil {
		return err
	}
	r.loss.ID = id
	return nil
}

// errShownAgain means that the store has what was found to be missing: a server
// that is behind the others, or was replaced, had answered.
var errShownAgain = errors.New("the store shows it again: a server that is behind had answered")

// follow looks where the head is now. Commits of the same claim don't undo the
// loss; another claim is that of a holder that is to raise the alarm.
func (r *reporter) follow(ctx context.Context) (moved bool, err error) {
	head, err := r.store.Head(ctx)
	if err != nil {
		return false, err
	}
	if again, err := r.shownAgain(ctx, head); again || err != nil {
		return false, cmp.Or(err, errShownAgain)
	}
	moved = head.Revision != r.head.Revision || head.Commit != r.head.Commit
	if head.Claim.ID != r.head.Claim.ID {
		r.loss.Overtaken = true
	}
	if r.loss.Overtaken {
		moved, r.anywhere = moved || !r.anywhere, true
	}
	r.head = head
	return moved, nil
}

// shownAgain reports whether the log up to head has what was found to be missing:
// the commit, or the claim if no more is known. Of a token alone nothing is known.
func (r *reporter) shownAgain(ctx context.Context, head driver.Head) (found bool, err error) {
	switch had := r.had; {
	case head.Revision < had.Revision, r.found.Claim.ID == had.Claim.ID && r.found.Revision >= had.Revision:
		return false, nil
	case !had.Commit.IsZero():
		err = r.store.Log(ctx, had.Revision-1, func(rec driver.Record) error {
			found = rec.ID == had.Commit
			return errEnough
		})
	case !had.Claim.ID.IsZero():
		err = r.store.Claims(ctx, max(had.Claim.Revision, 1)-1, func(c driver.Claim) error {
			found = c.ID == had.Claim.ID
			return errEnough
		})
	}
	switch {
	case err == nil, errors.Is(err, errEnough):
		return found, nil
	case errors.Is(err, driver.ErrCompacted): // nobody but the holder of that claim could tell
		return head.Claim.ID == r.had.Claim.ID, nil
	}
	return false, err
}
