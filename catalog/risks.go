package catalog

import (
	"context"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// settling is for how long what is not urgent leaves the store to the first
// commits of a holder.
const settling = 200 * time.Millisecond

// tellRisks says aloud, once, what could make the store lose a commit that it
// has acknowledged. The claim has landed by now and waits for none of it.
func (c *Catalog) tellRisks() {
	teller, ok := driver.As[driver.RiskTeller](c.store)
	if !ok {
		return
	}
	elapse(c.base, settling)
	found, err := callStore(c.base, c.cfg.StoreTimeout, teller.Risks)
	if err != nil {
		c.cfg.Logger.DebugContext(c.base, "whether the store could lose a commit can't be told", "store", c.store.String(), "err", err)
	}
	for _, f := range found {
		c.cfg.Logger.WarnContext(c.base, "this store could lose an acknowledged commit",
			"store", c.store.String(), "check", f.Name, "found", f.Detail, "remedy", f.Remedy)
	}
}

// A holder looks at the record of losses when the store wakes it, which is soon
// after that was written, at most once in lossesGap polls, and once in
// lossesEvery polls otherwise: a wake-up may be lost.
const (
	lossesGap   = 4
	lossesEvery = 40
)

// tellLosses says aloud, once for each, which losses are open: of this holder's own
// claim, or found by a process that this holder's claim has overtaken. None of them
// stops it.
func (c *Catalog) tellLosses() {
	told := make(map[driver.ID]bool)
	elapse(c.base, settling)
	for c.base.Err() == nil && !c.end.ended() {
		record, err := callStore(c.base, c.cfg.StoreTimeout, c.store.Losses)
		if err == nil { // the head is polled besides, whose failure is logged
			c.tell(record, told)
		}
		elapse(c.base, lossesGap*c.cfg.PollInterval)
		select {
		case <-c.lossWake:
		case <-time.After((lossesEvery - lossesGap) * c.cfg.PollInterval):
		case <-c.base.Done():
		}
	}
}

// claimsAndLosses listens to what a holder must notice.
func (c *Catalog) claimsAndLosses() listener {
	listen := claimsOf(c.store)
	if listen == nil {
		return nil
	}
	return func(ctx context.Context, wake func()) error {
		return listen(ctx, func() { nudge(c.lossWake); wake() })
	}
}

func (c *Catalog) tell(record driver.Losses, told map[driver.ID]bool) {
	led, err := readLedger(record)
	if err != nil {
		return // the next claim says so
	}
	for _, l := range led.Losses {
		if !l.Open() || told[l.ID] {
			continue
		}
		told[l.ID] = true
		c.cfg.Logger.ErrorContext(context.WithoutCancel(c.base), "acknowledged commits were lost; this process goes on leading",
			"store", c.store.String(), "loss", l.ID.String(), "found", l.String(), "remedy", l.remedy())
	}
}
