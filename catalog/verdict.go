package catalog

import (
	"slices"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// memory is what a handle knows of the catalog without asking.
type memory struct {
	claim driver.Claim // my own; zero before the first
	acked driver.Head  // as of my last acknowledged commit
	// sent are my commits behind acked, whatever was answered: of a store, a
	// client or a proxy that sends a commit twice, the second answer is
	// ErrConflict though the first copy has landed. The last may be under way.
	sent []driver.ID
}

// A verdict is what the newest head says of a commit of mine.
type verdict uint8

const (
	unmoved verdict = iota // the head is my last acknowledged one
	landed                 // the commit that I sent last is the newest
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
	case head.Commit == m.acked.Commit:
		return unmoved, nil
	case len(m.sent) > 0 && head.Commit == m.newest():
		return landed, nil
	case slices.Contains(m.sent, head.Commit):
		return unmoved, landedLate(head)
	}
	return unmoved, foreignCommit(m, head)
}

// foreignCommit is a head under my own claim whose commit is none of mine.
func foreignCommit(m memory, head driver.Head) error {
	return lostCommit("under my own claim %v its newest commit is %v at revision %d, neither my last acknowledged %v at %d nor one sent behind it",
		head.Claim.Token, head.Commit, head.Revision, m.acked.Commit, m.acked.Revision)
}

// judgeBeside holds a head that was read while commits of mine may have landed:
// before is what was known when it was asked for, and now what is known since
// it was answered.
func judgeBeside(before, now memory, head driver.Head) error {
	if err := judgeToken(before, head); err != nil {
		return err
	}
	switch acked := now.acked.Revision; {
	case head.Revision < before.acked.Revision:
		return lostCommit("under my own claim %v it is at revision %d, and %d was acknowledged",
			head.Claim.Token, head.Revision, before.acked.Revision)
	case head.Revision == before.acked.Revision && head.Commit != before.acked.Commit,
		head.Revision == acked && head.Commit != now.acked.Commit,
		head.Revision == acked+1 && !slices.Contains(now.sent, head.Commit),
		head.Revision > acked+1:
		return foreignCommit(now, head)
	}
	return nil
}

// judgeSeen holds the token of a head against one that was seen before the head
// was read. It comes before any other judgement.
func judgeSeen(before, token fence.Token) error {
	if token.Compare(before) < 0 {
		return lostCommit("it bears token %v, and %v was seen before", token, before)
	}
	return nil
}

// notAbove holds the token of something that lies in the log up to head against
// the head's own.
func notAbove(token fence.Token, head driver.Head) error { return judgeSeen(token, head.Claim.Token) }

// judgeToken holds only the claim of the newest head against m.
func judgeToken(m memory, head driver.Head) error {
	token := head.Claim.Token
	if err := judgeSeen(m.claim.Token, token); err != nil {
		return err
	}
	if err := fence.Check(m.claim.Token, token, head.Claim.Holder); err != nil {
		return err
	}
	if !m.claim.Token.IsZero() && head.Claim.ID != m.claim.ID {
		return lostCommit("it bears my token %v with the claim %v, and mine is %v", token, head.Claim.ID, m.claim.ID)
	}
	return nil
}

// judgeSuccessor says from the claim that follows mine what became of my last
// commits: whether the one that I sent last had landed. Its error wraps
// [ErrLostCommit] where the successor built on neither.
func judgeSuccessor(m memory, next driver.Claim) (verdict, error) {
	switch {
	case next.PriorClaim != m.claim.ID:
		return unmoved, lostCommit("the claim %v follows the claim %v, and mine, %v, is missing from the chain",
			next.Token, next.PriorClaim, m.claim.ID)
	case next.PriorCommit == m.acked.Commit:
		return unmoved, nil
	case len(m.sent) > 0 && next.PriorCommit == m.newest():
		return landed, nil
	case slices.Contains(m.sent, next.PriorCommit):
		return unmoved, nil // nothing of mine was lost: see landedLate
	default:
		return unmoved, lostCommit("the claim %v was built on the commit %v, and my last acknowledged one is %v at revision %d",
			next.Token, next.PriorCommit, m.acked.Commit, m.acked.Revision)
	}
}
