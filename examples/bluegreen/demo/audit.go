package demo

import (
	"context"
	"fmt"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// collection is where kvserver keeps its data.
const collection = "kv"

// findings are where ledger and store disagree.
type findings struct {
	lost       int // acknowledged, and not in the log, or with another value
	duplicated int // written more than once
	stale      int // commits and acknowledged writes of a token that a claim before them had fenced
	denied     int // the server said that nothing was written, and it is in the log
	claims     []driver.Claim
	commits    int
}

// audit holds the ledger against what the store holds. Nothing may write any
// more.
func audit(ctx context.Context, url string, writes []write) (findings, error) {
	store, err := storeurl.Open(ctx, url, storeurl.Config{})
	if err != nil {
		return findings{}, err
	}
	defer store.Close()
	claims, err := catalog.History(ctx, store)
	if err != nil {
		return findings{}, fmt.Errorf("the history of claims: %w", err)
	}
	a := newAuditor(claims)
	err = catalog.ReadLog(ctx, store, 0, func(c catalog.Commit) error {
		a.commit(c)
		return nil
	})
	if err != nil {
		return findings{}, fmt.Errorf("the log: %w", err)
	}
	return a.compare(writes), nil
}

// An auditor reads the log in order, and knows of each commit which token was
// the newest at that place.
type auditor struct {
	found   findings
	next    int         // the claim that the log has not reached yet
	current fence.Token // of the claims before
	entries map[string]*entry
}

// An entry is what the log says of one key.
type entry struct {
	times  int
	value  string
	newest fence.Token // at the place of its last commit
	stale  bool        // that commit is counted already
}

func newAuditor(claims []driver.Claim) *auditor {
	return &auditor{found: findings{claims: claims}, entries: make(map[string]*entry)}
}

// commit takes the next commit of the log. It is stale where its token is lower
// than that of a claim ordered before it.
func (a *auditor) commit(c catalog.Commit) {
	a.found.commits++
	for a.next < len(a.found.claims) && a.found.claims[a.next].Revision <= c.Revision {
		a.current = a.found.claims[a.next].Token
		a.next++
	}
	stale := c.Token.Compare(a.current) < 0
	if stale {
		a.found.stale++
	}
	for _, ch := range c.Changes {
		if ch.Collection != collection || ch.Delete {
			continue
		}
		e := a.entries[ch.Key]
		if e == nil {
			e = new(entry)
			a.entries[ch.Key] = e
		}
		e.times++
		e.value, e.newest, e.stale = string(ch.Value), a.current, stale
	}
}

// compare holds the ledger against the log that was read. A write that the
// store has under a good token is stale too, where a server acknowledged it
// whose own token was fenced by then.
func (a *auditor) compare(writes []write) findings {
	found := a.found
	for _, w := range writes {
		e := a.entries[w.key]
		switch {
		case e == nil && w.fate == acknowledged:
			found.lost++
		case e == nil:
		case e.times > 1:
			found.duplicated++
		case w.fate == refused:
			found.denied++
		case w.fate == acknowledged && e.value != valueOf(w.key):
			found.lost++
		case w.fate == acknowledged && !e.stale && w.token.Compare(e.newest) < 0:
			found.stale++
		}
	}
	return found
}
