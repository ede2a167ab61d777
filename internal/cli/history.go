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
)

func (a *app) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "Show every claim that was ever made, oldest first",
		Long: `History shows each claim: its token, when it was made by the clock of the one
who made it, by whom, of which build, why, and at which revision. Below it shows
what the store was found to have lost, by whom, and how that ended. It writes
nothing and needs no token.`,
		Example: `  fencepost history
  fencepost history --json | jq -r '.claims[].token'`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error { return a.withStore(ctx, a.history) }),
	}
}

// claims is the history in JSON.
type claims struct {
	Store  string         `json:"store"`
	Claims []driver.Claim `json:"claims"`
	Losses []catalog.Loss `json:"losses"`
}

func (a *app) history(ctx context.Context, store driver.Store) error {
	c := claims{Store: store.String(), Claims: []driver.Claim{}, Losses: []catalog.Loss{}}
	err := bounded(ctx, a.timeout, func(ctx context.Context) error {
		read, err := catalog.History(ctx, store)
		c.Claims = append(c.Claims, read...)
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
	return a.show(c, func(w io.Writer) error { return c.print(w, time.Now()) })
}

func (c claims) print(w io.Writer, now time.Time) error {
	if len(c.Claims) == 0 && len(c.Losses) == 0 {
		_, err := fmt.Fprintf(w, "nobody has claimed %s yet\n", c.Store)
		return err
	}
	rows := [][]string{{"TOKEN", "WHEN", "NAME", "ADDRESS", "BUILD", "REVISION", "REASON"}}
	for _, claim := range c.Claims {
		h := claim.Holder
		rows = append(rows, []string{
			claim.Token.String(), when(h.Since, now), cell(h.Name), cell(h.Address), cell(h.Build),
			strconv.FormatUint(claim.Revision, 10), cell(claim.Reason),
		})
	}
	if err := table(w, rows); err != nil || len(c.Losses) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return table(w, lossTable(c.Losses, now))
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
