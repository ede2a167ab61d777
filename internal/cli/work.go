package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/work"
)

func (a *app) workCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "work",
		Short: "Show, check and steer the durable jobs of a service",
		Long: `Work shows the jobs that are kept in the catalog (docs/work.md), says which of them
need a person, and asks the holder to change something.

What shows something reads the store, needs no token and writes nothing: status,
list, show, check. What changes something is a request that the holder of the
token acts upon: enqueue, retry, abandon, clear, reassign, activate. The request
stands in an inbox beside the catalog until a holder takes it, so that it is not
lost if none is there. On PostgreSQL, install lets web servers make such requests
inside their own transactions.`,
		Example: `  fencepost work status
  fencepost work check --notify ./page.sh
  fencepost work list --state dead`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command given after work: want status, list, show, check, enqueue, retry, abandon, clear, reassign, activate or install")
		},
	}
	cmd.AddCommand(a.workStatusCommand(), a.workListCommand(), a.workShowCommand(), a.workCheckCommand(), a.workEnqueueCommand(),
		a.workRetryCommand(), a.workAbandonCommand(), a.workClearCommand(), a.workReassignCommand(), a.workActivateCommand(), a.workInstallCommand())
	return cmd
}

// readWork calls fn with the entries of the newest revision.
func (a *app) readWork(ctx context.Context, store driver.Store, fn func(driver.Head, *catalog.Reader) error) error {
	return bounded(ctx, a.timeout, func(ctx context.Context) error {
		return catalog.Snapshot(ctx, store, a.config(a.timeout), fn)
	})
}

// A workStatus is the answer of status in JSON.
type workStatus struct {
	Store string `json:"store"`
	work.Status
	Inbox work.Outside `json:"inbox"`

	left bool // the holder lets others claim
}

// readWorkStatus reads everything that says how the work goes.
func (a *app) readWorkStatus(ctx context.Context, store driver.Store) (workStatus, error) {
	s := workStatus{Store: store.String()}
	var claim driver.ID
	err := bounded(ctx, a.timeout, func(ctx context.Context) error {
		return catalog.Snapshot(ctx, store, a.config(a.timeout), func(head driver.Head, r *catalog.Reader) (err error) {
			claim = head.Claim.ID
			s.Status, err = work.Read(r, head, time.Now())
			return err
		})
	})
	if err != nil {
		return s, err
	}
	err = bounded(ctx, a.timeout, func(ctx context.Context) (err error) {
		if s.Inbox, err = work.Inbox(ctx, catalog.NewBoard(store, a.config(a.timeout))); err != nil {
			return err
		}
		beat, err := leader.ReadBeat(ctx, store, a.config(a.timeout))
		if beat.Claim == claim {
			s.Inbox.Seen, s.left = beat.At, beat.Left
		}
		return err
	})
	return s, err
}

func (a *app) workStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what the jobs do, and what became of them",
		Long: `Status shows how many jobs there are in each state, what has happened to them in
total and since the holder took over, what it recovered from the holder before,
the job that has waited for longest, the one that runs for longest, keys that are
blocked, recent failures and takeovers, and what waits in the inbox.

Its figures add up, and it says so if they don't. It reads every job, needs no
token and writes nothing. The last pass is in the holder's own memory: only the
page of work.Handler in the holder has it.`,
		Example: `  fencepost work status --store sqlite:/var/lib/app/catalog.db
  fencepost work status --json | jq .states`,
		Args: cobra.NoArgs,
		RunE: a.action(func(ctx context.Context) error {
			return a.withReadStore(ctx, func(ctx context.Context, store driver.Store) error {
				s, err := a.readWorkStatus(ctx, store)
				if err != nil {
					return err
				}
				return a.show(s, s.print)
			})
		}),
	}
}

func (s workStatus) print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "store %s\n", s.Store); err != nil {
		return err
	}
	if err := s.WriteText(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n", s.inboxText(), s.seenText())
	return err
}

func (s workStatus) inboxText() string {
	if s.Inbox.Requests == 0 {
		return "inbox: empty"
	}
	text := fmt.Sprintf("inbox: %d requests wait for a holder, the oldest since %s", s.Inbox.Requests, when(s.Inbox.Oldest, s.At))
	if s.Inbox.Unread > 0 {
		text += fmt.Sprintf("; %d of them can't be read", s.Inbox.Unread)
	}
	return text
}

func (s workStatus) seenText() string {
	if s.Inbox.Seen.IsZero() {
		return "holder: gives no sign of life on the board, so it is not known whether it is there"
	}
	if s.left {
		return "holder: has let others claim " + when(s.Inbox.Seen, s.At)
	}
	return "holder: last sign of life " + when(s.Inbox.Seen, s.At)
}
