package catalog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// memory is what a handle knows of the catalog without asking.
type memory struct {
	claim driver.Claim // my own; zero before the first
	acked driver.Head  // as of my last acknowledged commit, the claim or one behind it: its callers may have been told
	// tip is as of the last commit of mine that landed. It is behind acked while
	// one was read back, and is not durable yet, so that no caller was told.
	tip driver.Head
	// sent are my commits behind acked, whatever was answered: of a store, a
	// client or a proxy that sends a commit twice, the second answer is
	// ErrConflict though the first copy has landed. The last may be under way.
	sent []driver.ID
}

// A verdict is what the newest head says of a commit of mine.
type verdict uint8

const (
	unmoved verdict = iota // the head is where my last commit that landed has left it
	landed                 // the commit that I sent last is the newest
	behind                 // my last commits that landed have gone, and nobody was told of them
)

// newest returns the commit that was sent last; the zero ID where none was.
func (m memory) newest() driver.ID {
	if len(m.sent) == 0 {
		return driver.ID{}
	}
	return m.sent[len(m.sent)-1]
}

// judge holds what m knows against the newest head. It is the one place that
// says what a head means; nothing but the newest head may be asked. The error
// is a *fence.Error where a higher token took over, else one that wraps
// [ErrLostCommit].
func judge(m memory, head driver.Head) (verdict, error) {
	if err := judgeToken(m, head); err != nil {
		return unmoved, err
	}
	switch {
	case head.Commit == m.last().Commit:
		return unmoved, nil
	case len(m.sent) > 0 && head.Commit == m.newest():
		return landed, nil
	case m.wentBack(head):
		return unmoved, vanished(m.tip, head)
	case slices.Contains(m.sent, head.Commit):
		return unmoved, landedLate(head)
	}
	return unmoved, foreignCommit(m, head)
}

// last is the head as of my last commit that landed.
func (m memory) last() driver.Head {
	if m.tip.Revision > m.acked.Revision {
		return m.tip
	}
	return m.acked
}

// wentBack reports whether a head under my own claim lies behind what landed, and
// lacks nothing that was acknowledged.
func (m memory) wentBack(head driver.Head) bool {
	return head.Revision < m.last().Revision && head.Revision >= m.acked.Revision &&
		(head.Commit == m.acked.Commit || slices.Contains(m.sent, head.Commit))
}

// lostCommit describes what the store should have had, which is had, and what it
// has, which is head.
func lostCommit(had, head driver.Head, format string, args ...any) error {
	from, overtaken := head.Revision+1, claimedOver(had, head.Claim)
	switch {
	case overtaken:
		from = head.Claim.Revision
	case head.Claim.ID != had.Claim.ID && had.Claim.Revision > 0:
		from = min(from, had.Claim.Revision)
	}
	to := max(had.Revision, had.Claim.Revision)
	loss := Loss{From: min(from, max(to, 1)), To: to, Token: had.Claim.Token, Head: head.Claim.ID, Left: head.Claim.Token, Overtaken: overtaken}
	return &lostError{text: fmt.Sprintf(format, args...), loss: loss, had: had, head: head}
}

// claimedOver reports whether newest was claimed over what a loss has left, by a
// process that knew of none: it is another claim than the one that was seen, and
// its token is no lower.
func claimedOver(had driver.Head, newest driver.Claim) bool {
	return !had.Claim.ID.IsZero() && newest.ID != had.Claim.ID && newest.Token.Compare(had.Claim.Token) >= 0
}

// foreignCommit is a head under my own claim whose commit is none of mine.
func foreignCommit(m memory, head driver.Head) error {
	return lostCommit(m.acked, head, "under my own claim %v its newest commit is %v at revision %d, neither my last acknowledged %v at %d nor one sent behind it",
		head.Claim.Token, head.Commit, head.Revision, m.acked.Commit, m.acked.Revision)
}

// judgeBeside holds a head that was read while commits of mine may have landed:
// before is what was known when it was asked for, and now what is known since
// it was answered.
func judgeBeside(before, now memory, head driver.Head) error {
	if err := judgeToken(before, head); err != nil {
		return err
	}
	switch last := now.last(); {
	case head.Revision < before.acked.Revision:
		return lostCommit(before.acked, head, "under my own claim %v it is at revision %d, and %d was acknowledged",
			head.Claim.Token, head.Revision, before.acked.Revision)
	case head.Revision == before.acked.Revision && head.Commit != before.acked.Commit,
		head.Revision == last.Revision && head.Commit != last.Commit,
		head.Revision == last.Revision+1 && !slices.Contains(now.sent, head.Commit),
		head.Revision > last.Revision+1:
		return foreignCommit(now, head)
	case head.Revision < before.last().Revision:
		return vanished(before.tip, head)
	}
	return nil
}

// judgeSeen holds the token of a head against one that was seen before the head
// was read. It comes before any other judgement. A token counts once it was seen,
// whoever was told of the claim: it must not be issued a second time.
func judgeSeen(before, head driver.Head) error {
	if head.Claim.Token.Compare(before.Claim.Token) < 0 {
		return lostCommit(before, head, "it bears token %v, and %v was seen before", head.Claim.Token, before.Claim.Token)
	}
	return nil
}

// notAbove holds the token of something that lies in the log up to head against
// the head's own.
func notAbove(token fence.Token, revision uint64, head driver.Head) error {
	return judgeSeen(driver.Head{Revision: revision, Claim: driver.Claim{Token: token}}, head)
}

// judgeToken holds only the claim of the newest head against m.
func judgeToken(m memory, head driver.Head) error {
	token := head.Claim.Token
	seen := driver.Head{Revision: m.acked.Revision, Commit: m.acked.Commit, Claim: m.claim}
	if err := judgeSeen(seen, head); err != nil {
		return err
	}
	if err := fence.Check(m.claim.Token, token, head.Claim.Holder); err != nil {
		return err
	}
	if !m.claim.Token.IsZero() && head.Claim.ID != m.claim.ID {
		return lostCommit(m.acked, head, "it bears my token %v with the claim %v, and mine is %v", token, head.Claim.ID, m.claim.ID)
	}
	return nil
}

// judgeSuccessor says from the claim that follows mine what became of my last
// commits: whether the one that I sent last had landed. Its error wraps
// [ErrLostCommit] where the successor built on neither.
func judgeSuccessor(m memory, next driver.Claim) (verdict, error) {
	switch {
	case next.PriorClaim != m.claim.ID:
		return unmoved, lostAtFence(m.acked, next, "the claim %v follows the claim %v, and mine, %v, is missing from the chain",
			next.Token, next.PriorClaim, m.claim.ID)
	case next.PriorCommit == m.last().Commit:
		return unmoved, nil
	case len(m.sent) > 0 && next.PriorCommit == m.newest():
		return landed, nil
	case next.PriorCommit == m.acked.Commit, m.before(next.PriorCommit, m.tip.Commit):
		return behind, nil
	case slices.Contains(m.sent, next.PriorCommit):
		return unmoved, nil // nothing of mine was lost: see landedLate
	default:
		return unmoved, lostAtFence(m.acked, next, "the claim %v was built on the commit %v, and my last acknowledged one is %v at revision %d",
			next.Token, next.PriorCommit, m.acked.Commit, m.acked.Revision)
	}
}

// before reports whether a commit was sent before another one.
func (m memory) before(commit, other driver.ID) bool {
	i, j := slices.Index(m.sent, commit), slices.Index(m.sent, other)
	return i >= 0 && i < j
}

// lostAtFence is a loss that shows in the claim which follows mine: the store took
// that claim in, so that its holder is to be told.
func lostAtFence(had driver.Head, next driver.Claim, format string, args ...any) error {
	head := next.Head()
	err := lostCommit(had, head, format, args...)
	var lost *lostError
	if errors.As(err, &lost) {
		lost.loss.From, lost.loss.Overtaken = min(next.Revision, max(had.Revision, 1)), true
	}
	return err
}
