package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader"
)

func (a *app) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "Show every claim that was ever made, and the promotions, oldest first",
		Long: `History shows each claim: its token, when it was made by the clock of the one
who made it, by whom, of which build, why, and at which revision. Below it shows
the newest 200 promotions and aborts, by whom, when and why, those that were
overtaken or given up among them; and what the store was found to have lost, by
whom, and how that ended. It writes nothing and needs no token.`,
		Example: `  fencepost history
  fencepost history --json | jq -r '.claims[].token'
  fencepost history --json | jq '.changes[] | select(.generation == 8)'`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error { return a.withStore(ctx, a.history) }),
	}
}

// claims is the history in JSON.
type claims struct {
	Store   string          `json:"store"`
	Claims  []driver.Claim  `json:"claims"`
	Changes []leader.Change `json:"changes"` // promotions and aborts
	Losses  []catalog.Loss  `json:"losses"`
	Others  *others         `json:"other_catalogs,omitempty"` // of the same store, if nobody ever claimed this one
}

func (a *app) history(ctx context.Context, store driver.Store) error {
	c := claims{Store: store.String(), Claims: []driver.Claim{}, Changes: []leader.Change{}, Losses: []catalog.Loss{}}
	err := bounded(ctx, a.timeout, func(ctx context.Context) error {
		read, err := catalog.History(ctx, store)
		c.Claims = append(c.Claims, read...)
		if err != nil {
			return err
		}
		changes, err := leader.Changes(ctx, store, a.config(a.timeout))
		c.Changes = append(c.Changes, changes...)
		if err != nil {
			return err
		}
		losses, err := catalog.Losses(ctx, store)
		c.Losses = append(c.Losses, losses...)
		return err
	})
	if err != nil {
		return err
	}
	if len(c.Claims) == 0 {
		c.Others = othersOf(ctx, store)
	}
	return a.show(c, func(w io.Writer) error { return c.print(w, time.Now()) })
}

func (c claims) print(w io.Writer, now time.Time) error {
	var tables [][][]string
	if len(c.Claims) > 0 {
		tables = append(tables, claimTable(c.Claims, now))
	} else if len(c.Losses) == 0 {
		tables = append(tables, [][]string{{fmt.Sprintf("nobody has claimed %s yet%s", c.Store, c.Others.text())}})
	}
	if len(c.Changes) > 0 {
		tables = append(tables, changeTable(c.Changes, now))
	}
	if len(c.Losses) > 0 {
		tables = append(tables, lossTable(c.Losses, now))
	}
	for i, rows := range tables {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := table(w, rows); err != nil {
			return err
		}
	}
	return nil
}

func claimTable(claims []driver.Claim, now time.Time) [][]string {
	rows := [][]string{{"TOKEN", "WHEN", "NAME", "ADDRESS", "BUILD", "REVISION", "REASON"}}
	for _, claim := range claims {
		h := claim.Holder
		rows = append(rows, []string{
			claim.Token.String(), when(h.Since, now), cell(h.Name), cell(h.Address), cell(h.Build),
			strconv.FormatUint(claim.Revision, 10), cell(claim.Reason),
		})
	}
	return rows
}

// changeTable lists promotions and aborts.
func changeTable(changes []leader.Change, now time.Time) [][]string {
	rows := [][]string{{"GENERATION", "WAS", "WHEN", "BY", "REASON"}}
	for _, c := range changes {
		rows = append(rows, []string{c.Generation.String(), cell(string(c.Kind)), when(c.At, now), cell(c.By), cell(c.Reason)})
	}
	return rows
}

// lossTable lists losses, and how they ended.
func lossTable(losses []catalog.Loss, now time.Time) [][]string {
	rows := [][]string{{"LOSS", "FOUND", "BY", "ON", "LOST", "ENDED"}}
	for _, l := range losses {
		ended := "no: see fencepost status"
		if e := l.Ended; e != nil {
			ended = fmt.Sprintf("%s by %s, %s", e.How, e.By, when(e.At, now))
			if !e.Token.IsZero() {
				ended += fmt.Sprintf(", as %v", e.Token)
			}
		}
		rows = append(rows, []string{l.ID.String(), when(l.At, now), cell(l.By), cell(l.Place), cell(l.Revisions()), cell(ended)})
	}
	return rows
}
