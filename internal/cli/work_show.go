package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

// A workFilter chooses jobs.
type workFilter struct {
	state, kind, key string
	limit            int
}

// deadState is what a filter calls the jobs on the dead list.
const deadState = "dead"

const mostListed = 10_000

func (a *app) workListCommand() *cobra.Command {
	var f workFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List jobs, live and dead",
		Long: `List shows the live jobs in the order of their IDs, and then the dead ones, without
their payloads. Jobs that are done are not kept.`,
		Example: `  fencepost work list --state dead --kind sync
  fencepost work list --json --limit 10000 | jq -r '.jobs[] | select(.attempt > 3) | .id'`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.state, "state", "", "only jobs in this `state`: "+strings.Join(stateNames(), ", "))
	flags.StringVar(&f.kind, "kind", "", "only jobs of this `kind`")
	flags.StringVar(&f.key, "key", "", "only jobs of this `key`")
	flags.IntVar(&f.limit, "limit", 100, "how many to show at most, up to "+strconv.Itoa(mostListed))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error {
			return a.withReadStore(ctx, func(ctx context.Context, store driver.Store) error { return a.workList(ctx, store, f) })
		})(cmd, args)
	}
	return cmd
}

func stateNames() (names []string) {
	for _, s := range work.States() {
		names = append(names, string(s))
	}
	return append(names, deadState)
}

func (f workFilter) check() error {
	known := f.state == ""
	for _, name := range stateNames() {
		known = known || name == f.state
	}
	if !known {
		return fmt.Errorf("--state %q is no state: want %s", clipped(f.state), strings.Join(stateNames(), ", "))
	}
	if f.limit < 1 || f.limit > mostListed {
		return fmt.Errorf("--limit is %d, want 1 to %d", f.limit, mostListed)
	}
	if len(f.kind) > work.MaxName || len(f.key) > work.MaxKey {
		return fmt.Errorf("--kind has %d bytes and --key %d, want at most %d and %d", len(f.kind), len(f.key), work.MaxName, work.MaxKey)
	}
	return nil
}

// clipped is the beginning of what a person typed.
func clipped(s string) string { return s[:min(len(s), 64)] }

func (f workFilter) matches(i work.Info) bool {
	state := string(i.State)
	if i.Reason != "" {
		state = deadState
	}
	return (f.state == "" || f.state == state) && (f.kind == "" || f.kind == i.Kind) && (f.key == "" || f.key == i.Key)
}

// workJobs is the answer of list in JSON.
type workJobs struct {
	Store string      `json:"store"`
	Token fence.Token `json:"token,omitzero"`
	Jobs  []work.Info `json:"jobs"`
	More  bool        `json:"more"` // there are more than --limit
}

func (a *app) workList(ctx context.Context, store driver.Store, f workFilter) error {
	all := workJobs{Store: store.String(), Jobs: []work.Info{}}
	err := a.readWork(ctx, store, func(head driver.Head, r *catalog.Reader) error {
		all.Token = head.Claim.Token
		return work.List(r, head, time.Now(), func(i work.Info) bool {
			if !f.matches(i) {
				return true
			}
			if all.More = len(all.Jobs) == f.limit; all.More {
				return false
			}
			all.Jobs = append(all.Jobs, i)
			return true
		})
	})
	if err != nil {
		return err
	}
	return a.show(all, func(w io.Writer) error { return all.print(w, time.Now()) })
}

func (j workJobs) print(w io.Writer, now time.Time) error {
	rows := [][]string{{"ID", "KIND", "KEY", "STATE", "DUE", "ATTEMPT", "INTERRUPTED", "CLAIM", "OWNER", "ERROR"}}
	for _, i := range j.Jobs {
		rows = append(rows, []string{
			i.ID.String(), cell(i.Kind), cell(i.Key), stateCell(i), age(now.Sub(i.Due)), strconv.Itoa(i.Attempt), strconv.Itoa(i.Interrupted),
			tokenOrNone(i.Claim), cell(i.Owner), cell(shortened(i.Error)),
		})
	}
	if err := table(w, rows); err != nil || !j.More {
		return err
	}
	_, err := fmt.Fprintf(w, "there are more than %d: --limit shows more, --state, --kind and --key choose\n", len(j.Jobs))
	return err
}

func tokenOrNone(t fence.Token) string {
	if t.IsZero() {
		return "-"
	}
	return t.String()
}

func stateCell(i work.Info) string {
	if i.Reason != "" {
		return deadState + ", " + string(i.Reason)
	}
	return string(i.State)
}

// shortened is the beginning of a long text.
func shortened(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func (a *app) workShowCommand() *cobra.Command {
	var ref string
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one job, or what became of a request",
		Long: `Show shows everything that is known of one job, with its payload. It ends with 1 if
there is no such job: it is done, was cleared, or never was.

With --ref it shows a request instead: whether it waits in the inbox, or what the
holder answered. The newest 1024 answers are kept.`,
		Example: `  fencepost work show 17
  fencepost work show 17 --json | jq -r '.job.payload | @base64d'
  fencepost work show --ref 001764499000000-6fd0b1…`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&ref, "ref", "", "the `reference` of a request")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 1) == (ref != "") {
			return errors.New("show needs the ID of a job, or --ref: one of them")
		}
		if ref != "" {
			if err := checkRef(ref); err != nil {
				return err
			}
			return a.action(func(ctx context.Context) error {
				return a.withReadStore(ctx, func(ctx context.Context, store driver.Store) error { return a.showRequest(ctx, store, ref) })
			})(cmd, args)
		}
		id, err := work.ParseID(args[0])
		if err != nil {
			return err
		}
		return a.action(func(ctx context.Context) error {
			return a.withReadStore(ctx, func(ctx context.Context, store driver.Store) error { return a.showJob(ctx, store, id) })
		})(cmd, args)
	}
	return cmd
}

// A workJob is the answer of show in JSON.
type workJob struct {
	Store string    `json:"store"`
	Job   work.Info `json:"job"`
}

func (a *app) showJob(ctx context.Context, store driver.Store, id work.ID) error {
	shown := workJob{Store: store.String()}
	found := false
	err := a.readWork(ctx, store, func(head driver.Head, r *catalog.Reader) (err error) {
		shown.Job, found, err = work.Find(r, head, id, time.Now())
		return err
	})
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: %d is done, was cleared, or never was", work.ErrNotFound, id)
	}
	return a.show(shown, func(w io.Writer) error { return printJob(w, shown.Job, time.Now()) })
}

// printJob lays a job out for people; what it does not have is left out.
func printJob(w io.Writer, i work.Info, now time.Time) error {
	rows := [][]string{{"job", i.ID.String()}}
	add := func(there bool, name, format string, args ...any) {
		if there {
			rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
		}
	}
	add(true, "kind", "%s", cell(i.Kind))
	add(i.Key != "", "key", "%s", cell(i.Key))
	add(true, "state", "%s", stateCell(i))
	add(i.Reason != "", "dead since", "%s", when(i.DeadAt, now))
	add(i.Text != "", "because", "%s", cell(i.Text))
	add(true, "made", "%s, under %s", when(i.MadeAt, now), tokenOrNone(i.Made))
	add(true, "due", "%s", when(i.Due, now))
	add(i.Priority != 0, "priority", "%d", i.Priority)
	add(i.Owner != "", "pinned to", "%s", cell(i.Owner))
	add(i.From != "", "reassigned from", "%s", cell(i.From))
	add(!i.Claim.IsZero(), "claimed", "%s, under %v", when(i.At, now), i.Claim)
	add(i.Attempt+i.Interrupted+i.Crashed > 0, "runs", "attempt %d, interrupted %d times, crashed %d times", i.Attempt, i.Interrupted, i.Crashed)
	add(!i.NotBefore.IsZero(), "runs again", "%s", when(i.NotBefore, now))
	add(i.Error != "", "error", "%s", cell(i.Error))
	add(i.Ref != "", "request", "%s", cell(i.Ref))
	add(i.Left > 0, "progress", "%d bytes", i.Left)
	add(true, "payload", "%d bytes", i.Size)
	if err := table(w, rows); err != nil || i.Size == 0 {
		return err
	}
	_, err := fmt.Fprintln(w, payloadText(i.Payload))
	return err
}

// payloadText is the beginning of a payload for people; --json has all of it.
func payloadText(payload []byte) string {
	const most = 4096
	some := payload[:min(len(payload), most)]
	text := strconv.QuoteToASCII(string(some))
	if utf8.Valid(some) {
		text = cell(string(some))
	}
	if len(payload) > most {
		text += fmt.Sprintf("… (%d bytes: --json has all)", len(payload))
	}
	return text
}
