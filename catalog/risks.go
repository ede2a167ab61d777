package catalog

import (
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
