package leader

import (
	"context"
	"fmt"

	"github.com/fencepost/fencepost/exitcodes"
)

// A number is what a process knows about the number of its generation.
type number struct {
	tried bool // take was called
	taken bool // nobody else is given it
}

// take hands the generation of l out to it, so that a promotion of it is no typing
// error, and no other release is given the number. It costs a write once for each
// generation whose number came from elsewhere, and nothing for one that leads.
func (n *number) take(ctx context.Context, l *Leader) error {
	n.tried = true
	mine := l.cfg.Catalog.Generation
	if leads := l.Status().Leader; n.taken || leads != nil && leads.Token.Generation >= mine {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, l.cfg.heartbeat())
	defer cancel()
	if err := l.board.Reserve(bounded, mine); err != nil {
		return fmt.Errorf("the number %v of this generation was not reserved: %s", mine, exitcodes.OneLine(err.Error()))
	}
	n.taken = true
	return nil
}
